/*
 * What model.json and flags say of a model, before the net is known. Private to
 * model/. One thread.
 */
#ifndef SAC_MODEL_SETTINGS_H
#define SAC_MODEL_SETTINGS_H

#include "model/model.h"

enum sac_mean_kind {
    SAC_MEAN_AVERAGE, /* mean.binaryproto averaged per channel, or none without the file */
    SAC_MEAN_NONE,
    SAC_MEAN_VALUES,
    SAC_MEAN_IMAGE,
};

struct sac_settings {
    char name[64]; /* empty: from the folder */
    enum sac_resize resize;
    int resize_width, resize_height; /* 0: the input's */
    int crop_width, crop_height;     /* 0: the input's; else they must agree with it */
    enum sac_mean_kind mean_kind;
    float mean[3];
    int mean_count; /* 1 or the channels */
    float scale;
    enum { SAC_CHANNELS_AUTO, SAC_CHANNELS_BGR, SAC_CHANNELS_RGB, SAC_CHANNELS_GREY } channels;
    enum sac_decode_mode decode;
    uint8_t background[3];
    int precision; /* enum sac_precision, or -1: auto */
    int topk, timeout_ms, priority;
    int batch_max; /* 0: the device's usual */
    bool deterministic;
};

struct sac_settings sac_settings_default(void);
/* Reads model.json over the settings. */
int sac_settings_read_json(struct sac_settings *settings, const char *path, struct sac_error *err);
/* Lays flags over the settings; a sentence names the flag. */
int sac_settings_override(struct sac_settings *settings, const struct sac_model_overrides *flags,
                          struct sac_error *err);

#endif
