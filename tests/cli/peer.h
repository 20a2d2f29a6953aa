/*
 * A small HTTP server on a thread of its own, for tests of a client: one
 * request after the other, and what it answers is in the path.
 *
 *   /ok           200 "ok"                    /busy      503
 *   /chunked      100, then 200 in chunks     /until-close 200, ended by closing
 *   /close        200 and Connection: close   /count     200, another body each time
 *   /echo         200, the request's body     /never     no answer
 *   /reset        the connection is reset     /half      half an answer, then closed
 *   /garbage      not HTTP                    /stall     the first takes stall_ms
 */
#ifndef SAC_TESTS_CLI_PEER_H
#define SAC_TESTS_CLI_PEER_H

#include <stdatomic.h>
#include <stdint.h>

struct peer;

struct peer *peer_start(int stall_ms);
/* http://127.0.0.1:PORT/PATH; valid until the next call. */
const char *peer_url(struct peer *peer, const char *path);
int peer_requests(const struct peer *peer);
int peer_connections(const struct peer *peer);
/* The head of the first request; after peer_stop() or when it has been answered. */
const char *peer_first_head(const struct peer *peer);
void peer_stop(struct peer *peer);

#endif
