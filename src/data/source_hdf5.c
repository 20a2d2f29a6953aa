/*
 * HDF5 files as Caffe's HDF5Data has them. The library is not asked by two
 * threads at a time, whatever build it is: one lock in the program guards it.
 */
#include "data/source_private.h"

#include <stdio.h>
#include <stdlib.h>

#ifdef SAC_HAVE_HDF5

#include <pthread.h>
#include <string.h>

#include <hdf5.h>

#include "base/file.h"

enum { FILES_MAX = 65536, OPEN_MAX = 32, LABELS_MAX = 1 << 20, RANK_MAX = SAC_SOURCE_AXES_MAX + 1 };

/* Guards every call of the library. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Its complaints go to stderr otherwise; each thread has a setting of its own. */
static void silence(void)
{
    static _Thread_local bool silenced;

    if (!silenced)
        H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    silenced = true;
}

struct dataset {
    hid_t id;
    int rank;
    hsize_t dim[RANK_MAX];
};

struct h5_file {
    const char *path;
    int64_t first, count;
    hid_t id;             /* < 0: closed */
    struct dataset *sets; /* the items', then the labels' */
    uint64_t used;        /* when last */
};

struct hdf5 {
    struct sac_source source;
    struct sac_lines lines;
    char *names[SAC_SOURCE_SETS_MAX];
    struct sac_source_set sets[SAC_SOURCE_SETS_MAX];
    struct dataset *datasets; /* of all files */
    int channels, height, width;
    struct h5_file *files;
    int file_count, open_count;
    uint64_t clock;
};

void sac_hdf5_lock(void)
{
    pthread_mutex_lock(&lock);
    silence();
}

void sac_hdf5_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

static void close_dataset(struct dataset *dataset)
{
    if (dataset->id >= 0)
        H5Dclose(dataset->id);
    dataset->id = -1;
}

static void close_file(struct hdf5 *hdf5, struct h5_file *file)
{
    if (file->id < 0)
        return;
    for (int i = 0; i < hdf5->source.set_count; i++)
        close_dataset(&file->sets[i]);
    H5Fclose(file->id);
    file->id = -1;
    hdf5->open_count--;
}

/* A cache that holds two chunks, so that rows of one are unpacked once. */
static hid_t cache_for(hid_t file, const char *name)
{
    hid_t access = H5Pcreate(H5P_DATASET_ACCESS), probe = H5Dopen2(file, name, H5P_DEFAULT);
    hid_t made = probe >= 0 ? H5Dget_create_plist(probe) : -1;
    hsize_t dim[RANK_MAX];

    if (made >= 0 && H5Pget_layout(made) == H5D_CHUNKED) {
        int rank = H5Pget_chunk(made, RANK_MAX, dim);
        size_t bytes = 2 * sizeof(double);
        for (int i = 0; i < rank && i < RANK_MAX && bytes < (size_t)64 << 20; i++)
            bytes *= (size_t)dim[i];
        if (bytes > (size_t)1 << 20 && bytes < (size_t)256 << 20)
            H5Pset_chunk_cache(access, 521, bytes, 1.0);
    }
    if (made >= 0)
        H5Pclose(made);
    if (probe >= 0)
        H5Dclose(probe);
    return access;
}

static int open_dataset(const struct h5_file *file, const char *name, struct dataset *ret,
                        struct sac_error *err)
{
    if (H5Lexists(file->id, name, H5P_DEFAULT) <= 0)
        return sac_fail(err, SAC_EINVAL, "%s: no dataset \"%s\"", file->path, name);
    hid_t access = cache_for(file->id, name);
    ret->id = H5Dopen2(file->id, name, access);
    H5Pclose(access);
    if (ret->id < 0)
        return sac_fail(err, SAC_EINVAL, "%s: \"%s\" is no dataset", file->path, name);
    hid_t space = H5Dget_space(ret->id), type = H5Dget_type(ret->id);
    int rank = H5Sget_simple_extent_ndims(space);
    H5T_class_t class = H5Tget_class(type);
    int rc = 0;
    if (rank < 1 || rank > RANK_MAX || (class != H5T_INTEGER && class != H5T_FLOAT))
        rc = sac_fail(err, SAC_EINVAL, "%s: \"%s\" is no array of numbers with 1 to %d dimensions",
                      file->path, name, RANK_MAX);
    else
        H5Sget_simple_extent_dims(space, ret->dim, NULL);
    ret->rank = rank;
    H5Tclose(type);
    H5Sclose(space);
    return rc;
}

/* The file that has waited longest makes room. */
static void make_room(struct hdf5 *hdf5)
{
    struct h5_file *oldest = NULL;

    if (hdf5->open_count < OPEN_MAX)
        return;
    for (int i = 0; i < hdf5->file_count; i++) {
        struct h5_file *file = &hdf5->files[i];
        if (file->id >= 0 && (!oldest || file->used < oldest->used))
            oldest = file;
    }
    if (oldest)
        close_file(hdf5, oldest);
}

static int open_h5(struct hdf5 *hdf5, struct h5_file *file, struct sac_error *err)
{
    file->used = ++hdf5->clock;
    if (file->id >= 0)
        return 0;
    make_room(hdf5);
    if (!sac_file_exists(file->path))
        return sac_fail(err, SAC_ENOENT, "%s: no such file", file->path);
    file->id = H5Fopen(file->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file->id < 0)
        return sac_fail(err, SAC_EINVAL, "%s: not a whole HDF5 file", file->path);
    hdf5->open_count++;
    int rc = 0;
    for (int i = 0; rc == 0 && i < hdf5->source.set_count; i++)
        rc = open_dataset(file, hdf5->names[i], &file->sets[i], err);
    if (rc < 0)
        close_file(hdf5, file);
    return rc;
}

/* What of a dataset belongs to one item. */
static int set_of(const struct dataset *dataset, const char *path, const char *name,
                  struct sac_source_set *ret, struct sac_error *err)
{
    uint64_t count = 1;

    *ret = (struct sac_source_set){.rank = dataset->rank - 1};
    for (int i = 1; i < dataset->rank; i++) {
        if (__builtin_mul_overflow(count, dataset->dim[i], &count) || count > INT32_MAX)
            return sac_fail(err, SAC_ELIMIT, "%s: an item of \"%s\" has over %d values", path, name,
                            INT32_MAX);
        ret->dim[i - 1] = (int64_t)dataset->dim[i];
    }
    if (count == 0)
        return sac_fail(err, SAC_EINVAL, "%s: an item of \"%s\" has no values", path, name);
    ret->count = (int64_t)count;
    return 0;
}

static bool is_equal(const struct sac_source_set *a, const struct sac_source_set *b)
{
    return a->rank == b->rank && memcmp(a->dim, b->dim, sizeof a->dim) == 0;
}

/* "1 × 2 × 2" */
static const char *set_text(const struct sac_source_set *set, char *text, size_t size)
{
    size_t at = 0;

    snprintf(text, size, "1");
    for (int i = 0; i < set->rank && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%lld", i ? " × " : "",
                               (long long)set->dim[i]);
    return text;
}

/* What sink_hdf5.c wrote: of all files the first's counts. */
static bool is_rgb(const struct dataset *data)
{
    int mark = 0;
    hid_t id = H5Aexists(data->id, SAC_SOURCE_RGB) > 0
                   ? H5Aopen(data->id, SAC_SOURCE_RGB, H5P_DEFAULT)
                   : -1;

    if (id >= 0 && H5Aread(id, H5T_NATIVE_INT, &mark) < 0)
        mark = 0;
    if (id >= 0)
        H5Aclose(id);
    return mark == 1;
}

/* Of the first file: what an item is. Fewer than three dimensions leave the last ones 1. */
static int settle_items(struct hdf5 *hdf5, const struct h5_file *file, struct sac_error *err)
{
    const struct sac_source_set *data = &hdf5->sets[0];
    int64_t labels = 0;

    hdf5->channels = data->rank > 0 ? (int)data->dim[0] : 1;
    hdf5->width = data->rank > 2 ? (int)data->dim[data->rank - 1] : 1;
    hdf5->height = (int)(data->count / hdf5->channels / hdf5->width);
    hdf5->source.rgb = is_rgb(&file->sets[0]);
    for (int i = 1; i < hdf5->source.set_count; i++)
        labels += hdf5->sets[i].count;
    if (labels > LABELS_MAX)
        return sac_fail(err, SAC_ELIMIT, "%s: %lld values a label; at most %d", file->path,
                        (long long)labels, LABELS_MAX);
    hdf5->source.label_count = labels > 0 ? (int)labels : 1;
    return 0;
}

static int settle_set(struct hdf5 *hdf5, const struct h5_file *file, int index,
                      struct sac_error *err)
{
    const struct dataset *set = &file->sets[index];
    struct sac_source_set found;
    char text[160], before[160];
    int rc = set_of(set, file->path, hdf5->names[index], &found, err);

    if (rc < 0)
        return rc;
    if (set->dim[0] != file->sets[0].dim[0])
        return sac_fail(err, SAC_EINVAL, "%s: %llu items in \"%s\" and %llu in \"%s\"", file->path,
                        (unsigned long long)file->sets[0].dim[0], hdf5->names[0],
                        (unsigned long long)set->dim[0], hdf5->names[index]);
    if (hdf5->file_count == 1)
        hdf5->sets[index] = found;
    if (is_equal(&found, &hdf5->sets[index]))
        return 0;
    return sac_fail(err, SAC_EINVAL, "%s: items of %s in \"%s\"; the files before have %s",
                    file->path, set_text(&found, text, sizeof text), hdf5->names[index],
                    set_text(&hdf5->sets[index], before, sizeof before));
}

static int settle_file(struct hdf5 *hdf5, struct h5_file *file, struct sac_error *err)
{
    int rc = open_h5(hdf5, file, err);

    for (int i = 0; rc == 0 && i < hdf5->source.set_count; i++)
        rc = settle_set(hdf5, file, i, err);
    if (rc == 0 && hdf5->file_count == 1)
        rc = settle_items(hdf5, file, err);
    if (rc < 0)
        return rc;
    file->first = hdf5->source.count;
    file->count = (int64_t)file->sets[0].dim[0];
    hdf5->source.count += file->count;
    return 0;
}

static int read_row(const struct dataset *dataset, int64_t row, size_t size, float *to)
{
    hsize_t start[RANK_MAX] = {(hsize_t)row}, count[RANK_MAX], flat = size;
    hid_t file_space = H5Dget_space(dataset->id), memory_space = H5Screate_simple(1, &flat, NULL);

    for (int i = 0; i < dataset->rank; i++)
        count[i] = i == 0 ? 1 : dataset->dim[i];
    herr_t rc = H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, NULL, count, NULL);
    if (rc >= 0)
        rc = H5Dread(dataset->id, H5T_NATIVE_FLOAT, memory_space, file_space, H5P_DEFAULT, to);
    H5Sclose(memory_space);
    H5Sclose(file_space);
    return rc < 0 ? -1 : 0;
}

static struct h5_file *file_of(const struct hdf5 *hdf5, int64_t index)
{
    int low = 0, high = hdf5->file_count - 1;

    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (hdf5->files[middle].first <= index)
            low = middle;
        else
            high = middle - 1;
    }
    return &hdf5->files[low];
}

static int read_item(struct hdf5 *hdf5, int64_t index, float *to, struct sac_error *err)
{
    struct h5_file *file = file_of(hdf5, index);
    int rc = open_h5(hdf5, file, err);

    for (int i = 0; rc == 0 && i < hdf5->source.set_count; i++) {
        size_t count = (size_t)hdf5->sets[i].count;
        if (read_row(&file->sets[i], index - file->first, count, to) < 0)
            rc = sac_fail(err, SAC_EFORMAT, "its \"%s\" cannot be read; is the file damaged?",
                          hdf5->names[i]);
        to += count;
    }
    return rc;
}

static int hdf5_item(const struct sac_source *source, int64_t index, struct sac_item *ret,
                     struct sac_error *err)
{
    struct hdf5 *hdf5 = (struct hdf5 *)source; /* what changes is guarded by the lock */
    size_t data = (size_t)hdf5->sets[0].count, labels = (size_t)source->label_count;
    int rc = sac_item_reserve(ret, (data + labels) * sizeof(float), err);

    if (rc < 0)
        return rc;
    float *values = ret->memory;
    values[data] = 0; /* where there is no label */
    sac_hdf5_lock();
    rc = read_item(hdf5, index, values, err);
    sac_hdf5_unlock();
    ret->kind = SAC_ITEM_FLOATS;
    ret->channels = hdf5->channels;
    ret->height = hdf5->height;
    ret->width = hdf5->width;
    ret->rgb = source->rgb;
    ret->floats = values;
    ret->labels = values + data;
    return rc;
}

static void hdf5_name(const struct sac_source *source, int64_t index, char *text, size_t size)
{
    const struct h5_file *file = file_of((const struct hdf5 *)source, index);

    snprintf(text, size, "%s: item %lld", file->path, (long long)(index - file->first));
}

static void hdf5_free(struct sac_source *source)
{
    struct hdf5 *hdf5 = (struct hdf5 *)source;

    sac_hdf5_lock();
    for (int i = 0; i < hdf5->file_count; i++)
        close_file(hdf5, &hdf5->files[i]);
    sac_hdf5_unlock();
    free(hdf5->files);
    free(hdf5->datasets);
    for (int i = 0; i < hdf5->source.set_count; i++)
        free(hdf5->names[i]);
    sac_lines_done(&hdf5->lines);
    free(hdf5);
}

static const struct sac_source_type hdf5_type = {"HDF5",    hdf5_item, hdf5_name,
                                                 hdf5_free, NULL,      NULL};

static int add_file(struct hdf5 *hdf5, const char *path, struct sac_error *err)
{
    if (hdf5->file_count == FILES_MAX)
        return sac_fail(err, SAC_ELIMIT, "%s: more than %d files", hdf5->source.path, FILES_MAX);
    int sets = hdf5->source.set_count, at = hdf5->file_count++;
    struct h5_file *file = &hdf5->files[at];
    *file = (struct h5_file){
        .path = path, .id = -1, .sets = hdf5->datasets + (size_t)at * (size_t)sets};
    for (int i = 0; i < sets; i++)
        file->sets[i].id = -1;
    return settle_file(hdf5, file, err);
}

static int add_files(struct hdf5 *hdf5, bool single, struct sac_error *err)
{
    const struct sac_lines *lines = &hdf5->lines;
    size_t most = single || lines->count < 1 ? 1 : (size_t)lines->count;
    int rc = 0;

    hdf5->files = calloc(most, sizeof *hdf5->files);
    hdf5->datasets = calloc(most * (size_t)hdf5->source.set_count, sizeof *hdf5->datasets);
    if (!hdf5->files || !hdf5->datasets)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", hdf5->source.path);
    if (single)
        return add_file(hdf5, hdf5->source.path, err);
    for (int64_t i = 0; rc == 0 && i < lines->count; i++) {
        if (*lines->line[i])
            rc = add_file(hdf5, lines->line[i], err);
    }
    return rc;
}

static int name_sets(struct hdf5 *hdf5, char *const *names, int count, struct sac_error *err)
{
    if (count < 1 || count > SAC_SOURCE_SETS_MAX)
        return sac_fail(err, SAC_EUNSUPPORTED, "%s: %d datasets; expected 1 to %d",
                        hdf5->source.path, count, SAC_SOURCE_SETS_MAX);
    hdf5->source.sets = hdf5->sets;
    for (; hdf5->source.set_count < count; hdf5->source.set_count++) {
        char *name = strdup(names[hdf5->source.set_count]);
        if (!name)
            return sac_fail(err, SAC_ENOMEM, "%s: out of memory", hdf5->source.path);
        hdf5->names[hdf5->source.set_count] = name;
    }
    return 0;
}

int sac_source_hdf5_open_sets(struct sac_source **ret, const char *path, char *const *names,
                              int count, struct sac_error *err)
{
    struct hdf5 *hdf5 = sac_source_new(sizeof *hdf5, &hdf5_type, path, err);

    if (!hdf5)
        return SAC_ENOMEM;
    int rc = name_sets(hdf5, names, count, err);
    if (rc == 0 && !sac_file_exists(path))
        rc = sac_fail(err, SAC_ENOENT, "%s: no such file", path);
    sac_hdf5_lock();
    bool single = rc == 0 && H5Fis_hdf5(path) > 0;
    if (rc == 0 && !single)
        rc = sac_lines_load(&hdf5->lines, path, err);
    if (rc == 0)
        rc = add_files(hdf5, single, err);
    sac_hdf5_unlock();
    if (rc == 0 && hdf5->source.count == 0)
        rc = sac_fail(err, SAC_EFORMAT, "%s: no items", path);
    if (rc == 0)
        *ret = &hdf5->source;
    else
        sac_source_free(&hdf5->source);
    return rc;
}

#else

int sac_source_hdf5_open_sets(struct sac_source **ret, const char *path, char *const *names,
                              int count, struct sac_error *err)
{
    (void)ret;
    (void)names;
    (void)count;
    return sac_fail(err, SAC_EUNSUPPORTED, "%s: HDF5, and this program was built without libhdf5",
                    path);
}

#endif

int sac_source_hdf5_open(struct sac_source **ret, const char *path, const char *data,
                         const char *label, struct sac_error *err)
{
    char *names[] = {(char *)data, (char *)label};

    return sac_source_hdf5_open_sets(ret, path, names, label ? 2 : 1, err);
}
