/*
 * An LMDB is written in transactions, and the environment is opened anew for each:
 * what LMDB keeps in memory between two of them would otherwise decide which pages the
 * next one takes, and a data set that was gone on with would differ from one that was
 * made in one go. For the same reason the map's size, which stands in the file, follows
 * from the file's.
 */
#include "data/sink_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef SAC_HAVE_LMDB

#include <lmdb.h>

#include "base/durable.h"
#include "base/file.h"
#include "data/datum.h"

/* What a transaction may add, many times over; the file stays as small as it is. */
#define MAP_STEP ((size_t)2 << 30)

struct lmdb {
    struct sac_sink sink;
    MDB_env *env; /* all three only within a transaction */
    MDB_txn *txn;
    MDB_dbi database;
    struct sac_buf record;
};

static int fail_lmdb(const struct lmdb *lmdb, int rc, struct sac_error *err)
{
    if (rc > 0)
        return sac_fail_errno(err, rc, "%s cannot be written", lmdb->sink.path);
    return sac_fail(err, SAC_EIO, "%s: LMDB: %s", lmdb->sink.path, mdb_strerror(rc));
}

static void close_env(struct lmdb *lmdb)
{
    if (lmdb->txn)
        mdb_txn_abort(lmdb->txn);
    if (lmdb->env)
        mdb_env_close(lmdb->env);
    lmdb->txn = NULL;
    lmdb->env = NULL;
}

static int open_env(struct lmdb *lmdb)
{
    MDB_envinfo info;
    MDB_stat stat;
    int rc = mdb_env_create(&lmdb->env);

    if (rc == 0)
        rc = mdb_env_open(lmdb->env, lmdb->sink.path, MDB_NOLOCK, 0666);
    if (rc == 0)
        rc = mdb_env_info(lmdb->env, &info);
    if (rc == 0)
        rc = mdb_env_stat(lmdb->env, &stat);
    if (rc == 0) {
        size_t used = (info.me_last_pgno + 1) * stat.ms_psize;
        rc = mdb_env_set_mapsize(lmdb->env, (used / MAP_STEP + 2) * MAP_STEP);
    }
    if (rc == 0)
        rc = mdb_txn_begin(lmdb->env, NULL, 0, &lmdb->txn);
    return rc ? rc : mdb_dbi_open(lmdb->txn, NULL, 0, &lmdb->database);
}

static int begin(struct lmdb *lmdb, struct sac_error *err)
{
    int rc = lmdb->txn ? 0 : open_env(lmdb);

    if (rc == 0)
        return 0;
    close_env(lmdb);
    return fail_lmdb(lmdb, rc, err);
}

static int lmdb_put(struct sac_sink *sink, const struct sac_record *record, struct sac_error *err)
{
    struct lmdb *lmdb = (struct lmdb *)sink;
    struct sac_datum datum = {.channels = record->channels,
                              .height = record->height,
                              .width = record->width,
                              .label = record->label,
                              .encoded = record->kind == SAC_ITEM_ENCODED,
                              .bytes = record->bytes,
                              .size = record->kind == SAC_ITEM_FLOATS ? 0 : record->size};
    char name[128];
    int rc = begin(lmdb, err);

    if (rc < 0)
        return rc;
    if (record->kind == SAC_ITEM_FLOATS)
        datum.floats = (size_t)record->channels * (size_t)record->height * (size_t)record->width;
    sac_buf_clear(&lmdb->record);
    sac_datum_write(&lmdb->record, &datum, record->floats);
    if (lmdb->record.failed)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", sink->path);
    sac_sink_record_name(sink, record, name);
    MDB_val key = {strlen(name), name}, value = {lmdb->record.len, lmdb->record.data};
    rc = mdb_put(lmdb->txn, lmdb->database, &key, &value, MDB_APPEND);
    return rc ? fail_lmdb(lmdb, rc, err) : 0;
}

static int lmdb_commit(struct sac_sink *sink, struct sac_error *err)
{
    struct lmdb *lmdb = (struct lmdb *)sink;

    if (!lmdb->txn)
        return 0;
    int rc = mdb_txn_commit(lmdb->txn);
    lmdb->txn = NULL;
    close_env(lmdb);
    return rc ? fail_lmdb(lmdb, rc, err) : 0;
}

static void lmdb_free(struct sac_sink *sink)
{
    struct lmdb *lmdb = (struct lmdb *)sink;

    close_env(lmdb);
    sac_buf_done(&lmdb->record);
    free(lmdb);
}

static const struct sac_sink_type lmdb_type = {lmdb_put, lmdb_commit, lmdb_commit, lmdb_free};

static int tell_channels(const char *folder, bool rgb, struct sac_error *err)
{
    char file[4096];

    if (snprintf(file, sizeof file, "%s/" SAC_SOURCE_CHANNELS, folder) >= (int)sizeof file)
        return sac_fail(err, SAC_EINVAL, "%.200s…: the path is too long", folder);
    if (rgb)
        return sac_durable_write(file, "rgb\n", 4, err);
    if (unlink(file) < 0 && errno != ENOENT)
        return sac_fail_errno(err, errno, "%s cannot be replaced", file);
    return 0;
}

/* Nothing yet: what a killed beginning left is dropped, and a first commit makes the
 * file. */
static int start(struct lmdb *lmdb, bool rgb, struct sac_error *err)
{
    char file[4096];

    if (snprintf(file, sizeof file, "%s/data.mdb", lmdb->sink.path) >= (int)sizeof file)
        return sac_fail(err, SAC_EINVAL, "%.200s…: the path is too long", lmdb->sink.path);
    if (mkdir(lmdb->sink.path, 0777) < 0 && errno != EEXIST)
        return sac_fail_errno(err, errno, "the folder %s cannot be made", lmdb->sink.path);
    if (unlink(file) < 0 && errno != ENOENT)
        return sac_fail_errno(err, errno, "%s cannot be replaced", file);
    return tell_channels(lmdb->sink.path, rgb, err);
}

/* The last commit must be the one that the mark tells of. */
static int check_count(struct lmdb *lmdb, struct sac_error *err)
{
    MDB_stat stat;
    int rc = begin(lmdb, err);

    if (rc < 0)
        return rc;
    rc = mdb_stat(lmdb->txn, lmdb->database, &stat);
    close_env(lmdb);
    if (rc)
        return fail_lmdb(lmdb, rc, err);
    if ((int64_t)stat.ms_entries != lmdb->sink.mark.records)
        return sac_fail(err, SAC_EFORMAT, "%s: %zu records; expected %lld", lmdb->sink.path,
                        (size_t)stat.ms_entries, (long long)lmdb->sink.mark.records);
    return 0;
}

int sac_sink_lmdb_open(struct sac_sink **ret, const struct sac_sink_options *options,
                       const struct sac_sink_mark *mark, struct sac_error *err)
{
    struct lmdb *lmdb = sac_sink_new(sizeof *lmdb, &lmdb_type, options, mark, err);

    if (!lmdb)
        return SAC_ENOMEM;
    int rc = mark->records > 0 ? check_count(lmdb, err) : start(lmdb, options->rgb, err);
    if (rc == 0)
        *ret = &lmdb->sink;
    else
        sac_sink_free(&lmdb->sink);
    return rc;
}

#else

int sac_sink_lmdb_open(struct sac_sink **ret, const struct sac_sink_options *options,
                       const struct sac_sink_mark *mark, struct sac_error *err)
{
    (void)ret;
    (void)mark;
    return sac_fail(err, SAC_EUNSUPPORTED,
                    "%s: an LMDB, and this program was built without liblmdb", options->path);
}

#endif
