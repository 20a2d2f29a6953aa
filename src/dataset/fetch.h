/*
 * Pictures from a web server's index pages (Apache's or nginx's listings): a folder a
 * class, as a list on this machine. For an address that the operator typed; it is never
 * for one that a client names.
 */
#ifndef SAC_DATASET_FETCH_H
#define SAC_DATASET_FETCH_H

#include <stdint.h>

#include "base/error.h"

struct sac_fetch_tree_options {
    const char *url; /* http or https */
    const char *out; /* OUT of OUT.download */
    int threads;     /* 0: 4 */
    /* On the calling thread, often; may be NULL. While pages are read, `total` is −1 and
     * `done` is the pictures found so far; then `done` of `total` are there. */
    void (*on_progress)(void *user, int64_t done, int64_t total);
    void *user;
};

/* Fetches what the address lists into the folder OUT.download, with list.txt and
 * labels.txt beside: `*ret_list`, the list's path, is the caller's to free. It names the
 * pictures that this listing has, by class and name, whatever an earlier one had.
 *
 * Links are followed only below the address, or below where the server redirects it to;
 * names become files' names only where they can be. What is there already, and whole, is
 * not fetched again. A picture or folder that the server does not give (404, 403) is
 * named in the log and left out.
 *
 * Blocks. SAC_EUNSUPPORTED: built without libcurl; SAC_EIO: the network, after three
 * tries; SAC_EINVAL: OUT.download is there and of another address, or not of this
 * command; SAC_EBUSY: another process fetches to it. */
int sac_fetch_tree(const struct sac_fetch_tree_options *options, char **ret_list,
                   struct sac_error *err);

#endif
