/*
 * An LMDB is mapped once; at opening its keys are walked and each record's place
 * is written down, which touches only the tree's leaves. Items are then read
 * without LMDB's help, by any thread. The transaction stays open, for the places
 * to stay good.
 */
#include "data/source_private.h"

#include <stdio.h>
#include <stdlib.h>

#ifdef SAC_HAVE_LMDB

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lmdb.h>

#include "base/file.h"
#include "data/datum.h"

struct record {
    const uint8_t *bytes, *key;
    uint32_t size, key_size;
};

struct lmdb {
    struct sac_source source;
    MDB_env *env;
    MDB_txn *txn;
    struct record *records;
};

/* The head of a data file: two pages, each with a copy of this (LMDB's data
 * version 1, 64 bits), the newer of which counts. */
enum {
    META_AT = 16, /* behind the page's own head */
    MAGIC_AT = 0,
    VERSION_AT = 4,
    PAGE_SIZE_AT = 24,
    LAST_PAGE_AT = 120,
    TRANSACTION_AT = 128,
    META_SIZE = 136,
};

struct meta {
    uint64_t last_page, transaction;
    uint32_t page_size;
};

static int read_meta(int fd, off_t at, const char *path, struct meta *ret, struct sac_error *err)
{
    uint8_t bytes[META_SIZE];
    uint32_t magic, version;

    ssize_t got = pread(fd, bytes, sizeof bytes, at + META_AT);
    if (got < 0)
        return sac_fail_errno(err, errno, "%s", path);
    if (got != META_SIZE)
        return sac_fail(err, SAC_EFORMAT, "%s: an LMDB cut short in its first pages", path);
    memcpy(&magic, bytes + MAGIC_AT, sizeof magic);
    memcpy(&version, bytes + VERSION_AT, sizeof version);
    memcpy(&ret->page_size, bytes + PAGE_SIZE_AT, sizeof ret->page_size);
    memcpy(&ret->last_page, bytes + LAST_PAGE_AT, sizeof ret->last_page);
    memcpy(&ret->transaction, bytes + TRANSACTION_AT, sizeof ret->transaction);
    if (magic != 0xBEEFC0DEu || version != 1)
        return sac_fail(err, SAC_EFORMAT, "%s: not an LMDB of version 1", path);
    if (ret->page_size < 512 || ret->page_size > 65536 ||
        (ret->page_size & (ret->page_size - 1)) != 0)
        return sac_fail(err, SAC_EFORMAT, "%s: an LMDB with pages of %u bytes", path,
                        ret->page_size);
    return 0;
}

/* A page that the file does not have would raise SIGBUS when it is touched. */
static int check_length(int fd, const char *path, struct sac_error *err)
{
    struct meta first, second;
    struct stat info;
    uint64_t need;

    if (fstat(fd, &info) < 0)
        return sac_fail_errno(err, errno, "%s", path);
    int rc = read_meta(fd, 0, path, &first, err);
    if (rc == 0)
        rc = read_meta(fd, (off_t)first.page_size, path, &second, err);
    if (rc < 0)
        return rc;
    if (second.page_size != first.page_size)
        return sac_fail(err, SAC_EFORMAT, "%s: an LMDB whose two heads differ in page size", path);
    uint64_t last = second.transaction > first.transaction ? second.last_page : first.last_page;
    if (__builtin_add_overflow(last, 1, &need) ||
        __builtin_mul_overflow(need, first.page_size, &need) || need > (uint64_t)info.st_size)
        return sac_fail(err, SAC_EFORMAT,
                        "%s: a truncated LMDB: %lld bytes, where its head says %llu pages of %u",
                        path, (long long)info.st_size, (unsigned long long)last + 1,
                        first.page_size);
    return 0;
}

static int check_file(const char *path, bool folder, struct sac_error *err)
{
    char file[4096];

    if (snprintf(file, sizeof file, folder ? "%s/data.mdb" : "%s", path) >= (int)sizeof file)
        return sac_fail(err, SAC_EINVAL, "%.64s…: the path is too long", path);
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return sac_fail_errno(err, errno, "%s", file);
    int rc = check_length(fd, file, err);
    close(fd);
    return rc;
}

static int fail_lmdb(struct sac_error *err, int rc, const char *path)
{
    if (rc == ENOMEM)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    return sac_fail(err, rc > 0 ? SAC_EIO : SAC_EFORMAT, "%s: LMDB: %s", path, mdb_strerror(rc));
}

static int index_records(struct lmdb *lmdb, MDB_cursor *cursor, size_t count)
{
    MDB_val key, value;
    size_t at = 0;
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);

    for (; rc == 0 && at < count; at++) {
        lmdb->records[at] = (struct record){value.mv_data, key.mv_data, (uint32_t)value.mv_size,
                                            (uint32_t)key.mv_size};
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    if (rc == MDB_NOTFOUND && at == count)
        return 0;
    return rc ? rc : MDB_CORRUPTED;
}

/* A damaged tree may point anywhere: nothing outside of the file is kept. */
static int check_records(const struct lmdb *lmdb, struct sac_error *err)
{
    MDB_envinfo info;
    MDB_stat stat;

    mdb_env_info(lmdb->env, &info);
    mdb_env_stat(lmdb->env, &stat);
    /* With no fixed address the map is told by the records' own places. */
    size_t length = (info.me_last_pgno + 1) * stat.ms_psize;
    const uint8_t *least = lmdb->records[0].key, *most = least;
    for (int64_t i = 0; i < lmdb->source.count; i++) {
        const struct record *r = &lmdb->records[i];
        least = r->bytes < least ? r->bytes : least;
        most = r->bytes + r->size > most ? r->bytes + r->size : most;
    }
    if ((size_t)(most - least) > length)
        return sac_fail(err, SAC_EFORMAT, "%s: a damaged LMDB: records outside of the file",
                        lmdb->source.path);
    return 0;
}

static int open_database(struct lmdb *lmdb, bool folder, struct sac_error *err)
{
    unsigned flags = MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS | (folder ? 0 : MDB_NOSUBDIR);
    MDB_cursor *cursor = NULL;
    MDB_stat stat;
    MDB_dbi database;
    int rc = mdb_env_create(&lmdb->env);

    if (rc == 0)
        rc = mdb_env_open(lmdb->env, lmdb->source.path, flags, 0444);
    if (rc == 0)
        rc = mdb_txn_begin(lmdb->env, NULL, MDB_RDONLY, &lmdb->txn);
    if (rc == 0)
        rc = mdb_dbi_open(lmdb->txn, NULL, 0, &database);
    if (rc == 0)
        rc = mdb_stat(lmdb->txn, database, &stat);
    if (rc == 0 && stat.ms_entries == 0)
        return sac_fail(err, SAC_EFORMAT, "%s: an LMDB without records", lmdb->source.path);
    if (rc == 0 && !(lmdb->records = calloc(stat.ms_entries, sizeof *lmdb->records)))
        rc = ENOMEM;
    if (rc == 0)
        rc = mdb_cursor_open(lmdb->txn, database, &cursor);
    if (rc == 0)
        rc = index_records(lmdb, cursor, stat.ms_entries);
    if (cursor)
        mdb_cursor_close(cursor);
    if (rc != 0)
        return fail_lmdb(err, rc, lmdb->source.path);
    lmdb->source.count = (int64_t)stat.ms_entries;
    return check_records(lmdb, err);
}

static int lmdb_item(const struct sac_source *source, int64_t index, struct sac_item *ret,
                     struct sac_error *err)
{
    const struct record *record = &((const struct lmdb *)source)->records[index];
    struct sac_datum datum;
    int rc = sac_datum_read(&datum, record->bytes, record->size, err);

    if (rc == 0)
        rc = sac_item_set_label(ret, datum.label, err);
    if (rc < 0)
        return rc;
    ret->kind = datum.encoded ? SAC_ITEM_ENCODED : SAC_ITEM_BYTES;
    ret->channels = datum.channels;
    ret->height = datum.height;
    ret->width = datum.width;
    ret->rgb = source->rgb;
    ret->bytes = datum.bytes;
    ret->size = datum.size;
    if (datum.size > 0)
        return 0;
    ret->kind = SAC_ITEM_FLOATS;
    rc = sac_item_reserve(ret, datum.floats * sizeof(float), err);
    if (rc == 0)
        sac_datum_floats(record->bytes, record->size, ret->memory);
    ret->floats = ret->memory;
    return rc;
}

static int lmdb_label(const struct sac_source *source, int64_t index, int32_t *ret,
                      struct sac_error *err)
{
    const struct record *record = &((const struct lmdb *)source)->records[index];
    struct sac_datum datum;
    int rc = sac_datum_read(&datum, record->bytes, record->size, err);

    if (rc == 0)
        *ret = datum.label;
    return rc;
}

static void lmdb_name(const struct sac_source *source, int64_t index, char *text, size_t size)
{
    const struct record *record = &((const struct lmdb *)source)->records[index];

    snprintf(text, size, "%s: key %.*s", source->path,
             record->key_size < 100 ? (int)record->key_size : 100, (const char *)record->key);
}

static void lmdb_free(struct sac_source *source)
{
    struct lmdb *lmdb = (struct lmdb *)source;

    if (lmdb->txn)
        mdb_txn_abort(lmdb->txn);
    if (lmdb->env)
        mdb_env_close(lmdb->env);
    free(lmdb->records);
    free(lmdb);
}

static const struct sac_source_type lmdb_type = {"LMDB",    lmdb_item,  lmdb_name,
                                                 lmdb_free, lmdb_label, NULL};

/* What sink_lmdb.c, or a user, wrote beside the data. */
static int read_channels(struct lmdb *lmdb, bool folder, struct sac_error *err)
{
    char file[4096];
    uint8_t *text = NULL;
    size_t size = 0;

    if (!folder ||
        snprintf(file, sizeof file, "%s/" SAC_SOURCE_CHANNELS, lmdb->source.path) >=
            (int)sizeof file ||
        !sac_file_exists(file))
        return 0;
    int rc = sac_file_read(file, 64, &text, &size, err);
    if (rc < 0)
        return rc;
    while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == '\r'))
        size--;
    lmdb->source.rgb = size == 3 && memcmp(text, "rgb", 3) == 0;
    if (!lmdb->source.rgb && (size != 3 || memcmp(text, "bgr", 3) != 0))
        rc = sac_fail(err, SAC_EFORMAT, "%s: expected rgb or bgr", file);
    free(text);
    return rc;
}

int sac_source_lmdb_open(struct sac_source **ret, const char *path, struct sac_error *err)
{
    bool folder = sac_file_is_folder(path);
    int rc = check_file(path, folder, err);

    if (rc < 0)
        return rc;
    struct lmdb *lmdb = sac_source_new(sizeof *lmdb, &lmdb_type, path, err);
    if (!lmdb)
        return SAC_ENOMEM;
    rc = open_database(lmdb, folder, err);
    if (rc == 0)
        rc = read_channels(lmdb, folder, err);
    if (rc == 0)
        *ret = &lmdb->source;
    else
        sac_source_free(&lmdb->source);
    return rc;
}

#else

int sac_source_lmdb_open(struct sac_source **ret, const char *path, struct sac_error *err)
{
    (void)ret;
    return sac_fail(err, SAC_EUNSUPPORTED,
                    "%s: an LMDB, and this program was built without liblmdb", path);
}

#endif
