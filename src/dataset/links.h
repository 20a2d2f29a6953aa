/*
 * The links of a web server's index page (Apache's, nginx's or Python's listings, or a
 * page written by hand), and the files' names that they stand for. Any thread.
 */
#ifndef SAC_DATASET_LINKS_H
#define SAC_DATASET_LINKS_H

#include <stdbool.h>
#include <stddef.h>

/* The next href's value, in place and with its entities decoded, and `*at` behind it;
 * NULL: there is none. Quoted either way or not at all, blanks around the "=". */
char *sac_link_next(char **at);

/* What links on the page at `url` are relative to: no query, up to the last slash.
 * False: does not fit. */
bool sac_link_base(const char *url, char *base, size_t size);

/* The name that a link stands for, percent-decoded; false where it leads elsewhere than
 * right below `base`, or is no name of a file or folder. */
bool sac_link_name(const char *base, const char *link, char *name, size_t size, bool *ret_folder);

/* The address of a link that has a name; bytes that are none of an address's escaped.
 * False: does not fit. */
bool sac_link_url(const char *base, const char *link, char *url, size_t size);

#endif
