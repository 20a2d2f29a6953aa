/*
 * The file that `classify -o` writes: what it has already is not done again, so
 * that a run goes on where the last one was stopped. Main thread.
 *
 * A record begins with the picture's path, quoted as its style has it, and ends
 * at a line end. Only a file of such records is touched: any other is refused as
 * it stands, whatever the command line said.
 */
#ifndef SAC_CLI_RESUME_H
#define SAC_CLI_RESUME_H

#include <stdio.h>

#include "base/buf.h"
#include "cli/pictures.h"

/* RFC 4180: quoted, quotes doubled. */
void sac_csv_put(struct sac_buf *out, const char *text);

/* Opens `path` for more records; pictures that have one leave the list. A record
 * that a crash cut short at the end is cut off. `csv_head` is the line, with its
 * end, that a CSV file begins with and that is written to a new one; NULL: JSON
 * lines ({"file":…). SAC_EFORMAT: the file is not one of ours. The caller closes
 * *ret. */
int sac_resume_open(FILE **ret, const char *path, const char *csv_head,
                    struct sac_pictures *pictures, struct sac_error *err);

#endif
