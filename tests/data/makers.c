#include "makers.h"

#include <stdarg.h>
#include <sys/stat.h>

#include <png.h>

#ifdef SAC_HAVE_LMDB
#include <lmdb.h>
#endif
#ifdef SAC_HAVE_HDF5
#include <hdf5.h>
#endif

uint8_t made_value(int number, int c, int y, int x)
{
    return (uint8_t)(number * 37 + c * 91 + y * 13 + x * 7 + x * y * (c + 1));
}

static void fill(uint8_t *to, int number, int width, int height, int channels, bool planes)
{
    for (int c = 0; c < channels; c++) {
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++)
                to[planes ? (c * height + y) * width + x : (y * width + x) * channels + c] =
                    made_value(number, c, y, x);
        }
    }
}

struct bytes make_png(int number, int width, int height, int channels)
{
    uint8_t *pixels = malloc((size_t)(width * height * channels));
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)width,
                       .height = (png_uint_32)height,
                       .format = channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY};
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
    struct bytes file = {malloc(size), 0};

    assert_true(pixels && file.data);
    fill(pixels, number, width, height, channels, false);
    assert_true(png_image_write_to_memory(&image, file.data, &size, 0, pixels, 0, NULL));
    file.size = size;
    free(pixels);
    return file;
}

static struct bytes pack(const Caffe__Datum *datum)
{
    struct bytes out = {malloc(caffe__datum__get_packed_size(datum) + 1), 0};

    assert_non_null(out.data);
    out.size = caffe__datum__pack(datum, out.data);
    return out;
}

struct bytes make_datum(int number, int width, int height, int channels, int label, bool floats)
{
    size_t count = (size_t)(width * height * channels);
    uint8_t *planes = malloc(count);
    float *values = malloc(count * sizeof *values);
    Caffe__Datum datum = CAFFE__DATUM__INIT;

    assert_true(planes && values);
    fill(planes, number, width, height, channels, true);
    for (size_t i = 0; i < count; i++)
        values[i] = planes[i] + .5f;
    datum.has_channels = datum.has_height = datum.has_width = datum.has_label = 1;
    datum.channels = channels;
    datum.height = height;
    datum.width = width;
    datum.label = label;
    if (floats) {
        datum.n_float_data = count;
        datum.float_data = values;
    } else {
        datum.has_data = 1;
        datum.data = (ProtobufCBinaryData){count, planes};
    }
    struct bytes out = pack(&datum);
    free(planes);
    free(values);
    return out;
}

struct bytes make_encoded_datum(struct bytes file, int label)
{
    Caffe__Datum datum = CAFFE__DATUM__INIT;

    datum.has_label = datum.has_encoded = datum.has_data = 1;
    datum.label = label;
    datum.encoded = 1;
    datum.data = (ProtobufCBinaryData){file.size, file.data};
    return pack(&datum);
}

const char *made_path(const char *format, ...)
{
    static char *kept[4096];
    static int count;
    char name[200];
    va_list args;

    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    assert_true(count < 4096);
    assert_true(asprintf(&kept[count], "%s/%s", sac_test_tmpdir(), name) > 0);
    return kept[count++];
}

void make_folder(const char *path)
{
    assert_int_equal(mkdir(path, 0777), 0);
}

void make_lmdb(const char *path, struct bytes *datums, int count)
{
#ifdef SAC_HAVE_LMDB
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi database;

    make_folder(path);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_mapsize(env, 64u << 20), 0);
    assert_int_equal(mdb_env_open(env, path, 0, 0666), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, 0, &database), 0);
    for (int i = count - 1; i >= 0; i--) { /* written backwards: keys are what counts */
        char text[16];
        MDB_val key = {(size_t)snprintf(text, sizeof text, "%08d", i), text};
        MDB_val value = {datums[i].size, datums[i].data};
        assert_int_equal(mdb_put(txn, database, &key, &value, 0), 0);
        free(datums[i].data);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
#else
    (void)path;
    for (int i = 0; i < count; i++)
        free(datums[i].data);
    print_message("# skipped: built without LMDB\n");
    skip();
#endif
}

void make_hdf5(const char *path, const float *data, const int shape[4], const float *labels,
               int label_count)
{
#ifdef SAC_HAVE_HDF5
    hsize_t dim[4] = {(hsize_t)shape[0], (hsize_t)shape[1], (hsize_t)shape[2], (hsize_t)shape[3]};
    hsize_t label_dim[2] = {(hsize_t)shape[0], (hsize_t)label_count};
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t space = H5Screate_simple(4, dim, NULL);
    hid_t label_space = H5Screate_simple(label_count > 1 ? 2 : 1, label_dim, NULL);
    hid_t layout = H5Pcreate(H5P_DATASET_CREATE);
    if (shape[0] > 2) { /* as h5py writes with compression: rows in packed chunks */
        hsize_t chunk[4] = {2, dim[1], dim[2], dim[3]};
        H5Pset_chunk(layout, 4, chunk);
        H5Pset_deflate(layout, 4);
    }
    hid_t set = H5Dcreate2(file, "data", H5T_IEEE_F32LE, space, H5P_DEFAULT, layout, H5P_DEFAULT);
    H5Pclose(layout);
    hid_t label_set = H5Dcreate2(file, "label", H5T_IEEE_F64LE, label_space, H5P_DEFAULT,
                                 H5P_DEFAULT, H5P_DEFAULT);

    assert_true(set >= 0 && label_set >= 0);
    assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    assert_true(H5Dwrite(label_set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, labels) >= 0);
    H5Dclose(set);
    H5Dclose(label_set);
    H5Sclose(space);
    H5Sclose(label_space);
    H5Fclose(file);
#else
    (void)path;
    (void)data;
    (void)shape;
    (void)labels;
    (void)label_count;
    print_message("# skipped: built without HDF5\n");
    skip();
#endif
}
