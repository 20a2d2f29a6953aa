"""What the end-to-end tests share: the program, a server that runs it, TAP.

The program is $SACCADE_BIN; test data is $SACCADE_TEST_DATA, else ../shared/data
beside the source tree. A case is a function decorated with @case("sentence"); it
fails by an exception and skips with Skip("why").
"""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SLOW = float(os.environ.get("SACCADE_TEST_SLOWNESS", "1"))  # 4 under a sanitizer, say
cases = []


class Skip(Exception):
    pass


def case(name):
    def keep(function):
        cases.append((name, function))
        return function
    return keep


def run_cases():
    """Runs every case, writes TAP, and returns the exit status."""
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [c for c in cases if only in c[0]]
    failed = 0
    print("1..%d" % len(chosen), flush=True)
    for number, (name, function) in enumerate(chosen, 1):
        try:
            function()
            print("ok %d - %s" % (number, name), flush=True)
        except Skip as why:
            print("ok %d - %s # SKIP %s" % (number, name, why), flush=True)
        except Exception:
            failed += 1
            print("not ok %d - %s" % (number, name), flush=True)
            for line in traceback.format_exc().splitlines():
                print("# " + line, flush=True)
    return 1 if failed else 0


def main():
    """What every file of cases ends in; without a program to test, all of it is skipped."""
    try:
        binary()
    except Skip as why:
        print("1..0 # SKIP %s" % why)
        sys.exit(0)
    sys.exit(run_cases())


def need(condition, *say):
    """An assertion that says what came instead."""
    if not condition:
        raise AssertionError(" ".join(str(s) for s in say) or "it does not hold")


def binary():
    path = os.environ.get("SACCADE_BIN", os.path.join(ROOT, "build", "src", "cli", "saccade"))
    if not os.path.exists(path):
        raise Skip("no program at " + path)
    return os.path.abspath(path)


def data(name):
    base = os.environ.get("SACCADE_TEST_DATA", os.path.join(ROOT, "..", "shared", "data"))
    path = os.path.abspath(os.path.join(base, name))
    if not os.path.exists(path):
        raise Skip("no " + path)
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


_folder = None


def folder():
    """A folder that lasts as long as the program."""
    global _folder
    if _folder is None:
        _folder = tempfile.mkdtemp(prefix="saccade-e2e-")
        import atexit
        atexit.register(shutil.rmtree, _folder, True)
    return _folder


def squeezenet():
    """SqueezeNet v1.1 as a model directory."""
    path = os.path.join(folder(), "squeezenet")
    if not os.path.isdir(path):
        files = {"deploy.prototxt": data("squeezenet_v1.1/deploy.prototxt"),
                 "squeezenet.caffemodel": data("squeezenet_v1.1/squeezenet_v1.1.caffemodel"),
                 "labels.txt": data("ilsvrc12/synset_words.txt")}
        os.mkdir(path)
        for name, target in files.items():
            os.symlink(target, os.path.join(path, name))
        with open(os.path.join(path, "model.json"), "w") as file:
            json.dump({"name": "squeezenet", "preprocess": {"mean": [104, 117, 123]}}, file)
    return path


def png(width, height, pixels):
    """A PNG of R, G, B pixels."""
    def chunk(kind, content):
        return (struct.pack(">I", len(content)) + kind + content +
                struct.pack(">I", zlib.crc32(kind + content)))
    row = 3 * width
    rows = b"".join(b"\0" + pixels[y * row:(y + 1) * row] for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" +
            chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def run(*words, status=0):
    """Runs the program; its standard output."""
    done = subprocess.run([binary()] + list(words), stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=600)
    need(done.returncode == status, words, "ended with", done.returncode, done.stderr[-2000:])
    return done.stdout


class Server:
    """`saccade serve` on a free port, ready to be asked. A context manager: at the
    end it must still be alive, and leave by SIGTERM with status 0."""

    def __init__(self, *words, port=0, cwd=None, model=True):
        words = ["serve"] + (["--model", squeezenet()] if model else []) + list(words)
        self.lines = []
        self.port = None
        self.ended = False
        self.process = subprocess.Popen(
            [binary()] + words + ["--listen", "127.0.0.1:%d" % port], cwd=cwd,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self._wait_until_ready(60 * SLOW)

    def _read(self):
        for line in self.process.stderr:
            line = line.decode(errors="replace").rstrip()
            self.lines.append(line)
            found = re.search(r"serving on http://\S+:(\d+)", line)
            if found:
                self.port = int(found.group(1))

    def _wait_until_ready(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                self.reader.join(5)
                raise AssertionError("the server ended: " + "\n".join(self.lines[-20:]))
            if self.port and self._ready():
                return
            time.sleep(0.05)
        self.process.kill()
        raise AssertionError("the server was not ready in time: " + "\n".join(self.lines[-20:]))

    def _ready(self):
        try:
            return self.get("/readyz").status == 200
        except OSError:
            return False

    def connect(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout * SLOW)

    def ask(self, method, path, body=None, headers=None):
        connection = self.connect()
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        answer.content = answer.read()
        connection.close()
        return answer

    def get(self, path):
        return self.ask("GET", path)

    def classify(self, picture, headers=None):
        return self.ask("POST", "/api/classify", picture, headers)

    def url(self, path):
        return "http://127.0.0.1:%d%s" % (self.port, path)

    def metric(self, name):
        """The sum over all labels of a metric."""
        total, seen = 0.0, False
        for line in self.get("/metrics").content.decode().splitlines():
            if line.startswith("#"):
                continue
            key, _, value = line.rpartition(" ")
            if key.partition("{")[0] == name:
                total += float(value)
                seen = True
        need(seen, "no metric", name)
        return total

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def stop(self, number=signal.SIGTERM, seconds=60):
        """Sends a signal and waits; the exit status."""
        self.ended = True
        self.process.send_signal(number)
        status = self.process.wait(seconds * SLOW)
        self.reader.join(5)
        return status

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.ended:
            return
        if kind is not None:
            self.process.kill()
            self.process.wait()
            print("# " + "\n# ".join(self.lines[-20:]), flush=True)
            return
        alive = self.process.poll() is None
        status = self.stop() if alive else self.process.returncode
        need(alive and status == 0, "the server ended with", status, "\n".join(self.lines[-40:]))


def multipart(parts):
    """(content type, body) of [(field, filename, bytes)]."""
    boundary = "saccade-e2e-7d91"
    body = b""
    for field, filename, content in parts:
        body += ("--%s\r\nContent-Disposition: form-data; name=\"%s\"; filename=\"%s\"\r\n"
                 "Content-Type: application/octet-stream\r\n\r\n"
                 % (boundary, field, filename)).encode() + content + b"\r\n"
    return "multipart/form-data; boundary=" + boundary, body + ("--%s--\r\n" % boundary).encode()


def raw_connection(port, timeout=30):
    return socket.create_connection(("127.0.0.1", port), timeout=timeout * SLOW)


def post_head(path, size):
    return ("POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
            % (path, size)).encode()
