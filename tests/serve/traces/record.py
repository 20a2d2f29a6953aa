#!/usr/bin/env python3
"""Records when requests of `saccade bench` reach a server, for tests/serve/test_traces.c:
a server that answers at once, and one line a request: microseconds since the first.
Usage: record.py SACCADE [bench's options] > trace.txt"""
import socket
import subprocess
import sys
import threading
import time

times = []
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def serve(connection):
    pending = b""
    while True:
        got = connection.recv(65536)
        if not got:
            return
        now = time.monotonic()
        pending += got
        count = pending.count(b"\r\n\r\n")  # GETs: no bodies
        pending = pending.rpartition(b"\r\n\r\n")[2] if count else pending
        times.extend([now] * count)
        connection.sendall(ANSWER * count)


def accept(listener):
    while True:
        threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0), backlog=256)
threading.Thread(target=accept, args=[listener], daemon=True).start()
subprocess.run([sys.argv[1], "bench", *sys.argv[2:],
                "http://127.0.0.1:%d/" % listener.getsockname()[1]], check=True,
               stdout=subprocess.DEVNULL)
print("# saccade bench " + " ".join(sys.argv[2:]))
for when in sorted(times):
    print(round((when - min(times)) * 1e6))
