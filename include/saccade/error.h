/*
 * Errors, as every function of Saccade returns them.
 *
 * A function that can fail returns 0 or a negative code of enum sac_code, and
 * writes one sentence into the caller's struct sac_error. The sentence is
 * written once, where the failure happened, and names the file, layer, line or
 * field, what was expected and what came. Programmer errors are asserted.
 *
 * Any thread; a struct sac_error belongs to one thread at a time.
 */
#ifndef SACCADE_ERROR_H
#define SACCADE_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

enum sac_code {
    SAC_EINVAL = -1,       /* an argument, flag or field that cannot be meant */
    SAC_EFORMAT = -2,      /* a file or body is not what it claims to be */
    SAC_ELIMIT = -3,       /* larger, deeper or longer than a stated limit */
    SAC_EUNSUPPORTED = -4, /* well formed, but not something we do */
    SAC_ENOMEM = -5,       /* memory, on the host or on a device */
    SAC_EIO = -6,          /* reading, writing or the network */
    SAC_ENOENT = -7,       /* no such file, model, layer or device */
    SAC_EBUSY = -8,        /* full: try later */
    SAC_ETIMEDOUT = -9,    /* a deadline passed */
    SAC_ECANCELED = -10,   /* nobody wants the answer any more */
    SAC_EDEVICE = -11,     /* a device failed */
};

#define SAC_ERROR_TEXT 512

/* Start it as `= {0}`. */
struct sac_error {
    int code; /* 0: nothing has failed */
    char text[SAC_ERROR_TEXT];
};

#ifdef __cplusplus
}
#endif
#endif
