/* The server of tests that fetch: fetch_server.py, for as long as a group of cases. */
#ifndef SAC_TESTS_FETCH_RIG_H
#define SAC_TESTS_FETCH_RIG_H

#include "data/fetch.h"

/* Its file: byte i is (7i + ⌊i/256⌋) mod 256; sums by sha256sum and sha1sum. */
enum { SERVED_SIZE = 100000 };
#define SERVED_SHA256 "55af394c980c7a7fb68aa904c4afdd93d76e5f826487105fc06f92a25bab8cbe"
#define SERVED_SHA1 "557878b8118e7a9bdc75bcfc419f9b082ce073e6"

int server_start(void **state);
int server_stop(void **state);
/* Good until the next call. */
const char *server_url(const char *path);

/* A path in the test's folder, e.g. "case/file"; good until the next call. */
const char *path_in_tmp(const char *name);
/* How many files a folder of the test's folder has; -1: there is none. */
int files_in_tmp(const char *name);

/* Little patience. */
struct sac_fetch_options impatient(void);

#endif
