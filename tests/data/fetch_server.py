#!/usr/bin/env python3
"""A web server that does what servers do to downloads: see `Handler`'s routes.

Prints its port and serves until standard input closes. `GET /log` answers what was
asked so far, a line a request: path, range, if-range. With a folder as argument,
/files/NAME is a file of it; /files-broken/NAME breaks every 500,000 bytes.
"""

import http.server
import os
import sys
import threading

SIZE = 100_000
BYTES = bytes((i * 7 + i // 256) % 256 for i in range(SIZE))
OTHER = bytes((b + 1) % 256 for b in BYTES)
log = []
counts = {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def asked_from(self):
        value = self.headers.get("Range")
        return int(value[len("bytes="):-1]) if value else 0

    def answer(self, body, start=None, total=None, cut=None, etag='"one"', length=True):
        """206 from `start` on, or 200; only `cut` bytes of it come."""
        partial = start is not None
        total = len(body) if total is None else total
        part = body[start:] if partial else body
        self.send_response(206 if partial else 200)
        if etag:
            self.send_header("ETag", etag)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if length:
            self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part if cut is None else part[:cut])
        if cut is not None or not length:
            self.close_connection = True

    def ranged(self, body, cut=None, etag='"one"'):
        """As an honest server does it."""
        condition = self.headers.get("If-Range")
        start = self.asked_from()
        if start and (condition is None or condition == etag):
            self.answer(body, start, cut=cut, etag=etag)
        else:
            self.answer(body, cut=cut, etag=etag)

    def status(self, code):
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def file(self, name, cut):
        path = os.path.join(sys.argv[1], os.path.basename(name))
        if not os.path.isfile(path):
            return self.status(404)
        with open(path, "rb") as f:
            self.ranged(f.read(), cut)

    def do_GET(self):
        path = self.path.split("?")[0]
        n = counts[self.path] = counts.get(self.path, 0) + 1
        if path == "/log":
            body = "".join(line + "\n" for line in log).encode()
            return self.answer(body)
        log.append(f"{path} {self.headers.get('Range')} {self.headers.get('If-Range')}")
        if path.startswith("/files/"):
            return self.file(path, None)
        if path.startswith("/files-broken/"):
            return self.file(path, 500_000)
        if path == "/whole":
            self.ranged(BYTES)
        elif path == "/breaks":  # after each 30,000 bytes
            self.ranged(BYTES, cut=30_000)
        elif path == "/breaks-once":
            self.ranged(BYTES, cut=40_000 if n == 1 else None)
        elif path == "/dies":  # in the middle, for ever
            self.ranged(BYTES, cut=50_000 if n == 1 else 0)
        elif path == "/no-ranges":
            self.answer(BYTES, cut=60_000 if n == 1 else None)
        elif path == "/no-validator":
            self.ranged(BYTES, cut=60_000 if n == 1 else None, etag=None)
        elif path == "/changes":  # another file under the same name, honestly
            if n == 1:
                self.answer(BYTES, cut=40_000)
            else:
                self.ranged(OTHER, etag='"two"')
        elif path == "/mixes":  # the same, dishonestly: the sum alone can tell
            if n == 1:
                self.answer(OTHER, cut=40_000)
            else:
                self.answer(BYTES, self.asked_from() or None)
        elif path == "/lies":  # sends another part than it was asked for
            if self.asked_from():
                self.answer(BYTES, 10)
            else:
                self.answer(BYTES, cut=40_000 if n == 1 else None)
        elif path == "/grows":  # the part's whole is larger than the whole was
            if self.asked_from():
                self.answer(BYTES, self.asked_from(), total=SIZE + 5)
            else:
                self.answer(BYTES, cut=40_000 if n == 1 else None)
        elif path == "/garbage-range":
            if self.asked_from():
                self.send_response(206)
                self.send_header("Content-Range", "bytes 9-3/2")
                self.send_header("Content-Length", "3")
                self.end_headers()
                self.wfile.write(b"abc")
            else:
                self.answer(BYTES, cut=40_000 if n == 1 else None)
        elif path == "/stalls":
            if n == 1:
                self.answer(BYTES, cut=40_000, etag='"one"')
                self.close_connection = True
                self.wfile.flush()
                threading.Event().wait(3)
            else:
                self.ranged(BYTES)
        elif path == "/busy":
            self.status(503) if n < 3 else self.ranged(BYTES)
        elif path == "/wrong":
            self.answer(OTHER)
        elif path == "/no-length":
            self.answer(BYTES, length=False)
        elif path == "/huge":
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
            self.close_connection = True
        elif path == "/endless":
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            try:
                for _ in range(1000):
                    self.wfile.write(BYTES)
            except OSError:
                pass
        elif path == "/empty":
            self.answer(b"")
        elif path.startswith("/hop/"):
            left = int(path[5:])
            self.send_response(302)
            self.send_header("Location", f"/hop/{left - 1}" if left else "/whole")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path == "/to-file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.status(404)


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Clients that go away are what this is about."""


def main():
    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
