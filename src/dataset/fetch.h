/*
 * Pictures from a web server's index pages (Apache's or nginx's listings): a folder a
 * class, as a folder on this machine. For an address that the operator typed; it is
 * never for one that a client names.
 */
#ifndef SAC_DATASET_FETCH_H
#define SAC_DATASET_FETCH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Fetches what `url` (http or https) lists into the folder OUT.download, which the
 * caller names as `out` and gets as a path to free. Links are followed only below the
 * address, redirections not at all; names become files' names only where they can be.
 * What is there already is not fetched again. A picture that the server does not give
 * (404, 403) is named in the log and left out. `threads` 0: 4. Blocks.
 *
 * SAC_EUNSUPPORTED: built without libcurl; SAC_EIO: the network, after three tries. */
int sac_fetch_tree(const char *url, const char *out, int threads, char **ret_folder,
                   struct sac_error *err);

/* For tests: the name that a link of an index page stands for, percent-decoded; false
 * where it leads elsewhere or is no name of a file or folder. */
bool sac_fetch_name(const char *base, const char *link, char *name, size_t size, bool *ret_folder);

#endif
