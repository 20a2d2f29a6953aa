#!/usr/bin/env python3
"""The long end-to-end tests: many pictures, many connections, kills, load."""
import json
import lzma
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time

import training
from harness import (binary, case, data, folder, main, multipart, need, post_head, raw_connection,
                     read, run, Server, SLOW, squeezenet)


@case("memory does not grow with 100,000 pictures")
def _():
    """Peak memory of 100,000 is within 12 MB of that of 10,000: the list's paths and
    labels are some 60 bytes a picture."""
    base = folder()
    sizes = [os.path.join(data("imagenet_samples"), name)
             for name in sorted(os.listdir(data("imagenet_samples")))]
    small = os.path.join(base, "small")
    os.mkdir(small)
    with open(os.path.join(base, "samples.txt"), "w") as out:
        out.write("".join("%s %d\n" % (path, i % 5) for i, path in enumerate(sizes[:40])))
    run("dataset", "create", "--to", "list", "--size", "64x64", "--encoding", "jpg",
        os.path.join(base, "samples.txt"), os.path.join(small, "set"))
    pictures = sorted(os.path.join(at, name)
                      for at, _, names in os.walk(os.path.join(small, "set"))
                      for name in names if name.endswith(".jpg"))
    need(len(pictures) == 40, pictures)
    peaks = []
    for count in (10000, 100000):
        listing = os.path.join(base, "list%d.txt" % count)
        with open(listing, "w") as out:
            out.writelines("%s %d\n" % (pictures[i * 7 % 40], i % 5) for i in range(count))
        process = subprocess.Popen(
            [binary(), "dataset", "create", "--to", "lmdb", "--encoding", "jpg", "--size", "32x32",
             "--threads", "2", listing, os.path.join(base, "memory%d" % count)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        need(status == 0, status)
        peaks.append(usage.ru_maxrss)
    print("# peak RSS: %d KB for 10,000, %d KB for 100,000" % tuple(peaks))
    if SLOW == 1:  # a sanitizer's quarantine grows
        need(peaks[1] - peaks[0] < 12 * 1024, peaks)


@case("each of the 80 samples through the server gives what classify gives")
def _():
    base = data("imagenet_samples")
    pictures = sorted(os.path.join(base, name) for name in os.listdir(base))
    need(len(pictures) == 80)
    lines = run("classify", "--model", squeezenet(), "--json", *pictures).splitlines()
    with Server() as server:
        for path, line in zip(pictures, lines):
            expected = json.loads(line)["predictions"]
            kind, body = multipart([("image", os.path.basename(path), read(path))])
            for answer in (server.classify(read(path)),
                           server.classify(body, {"Content-Type": kind})):
                need(answer.status == 200 and json.loads(answer.content) == expected, path,
                     answer.content, expected)


def one_answer(*words):
    # All 64 fit into the queue, however slow the machine is: none is refused.
    with Server("--queue", "512", *words) as server:
        out = json.loads(run("bench", "--closed", "--connections", "64", "--requests", "10000",
                             "--duration", "3600", "--timeout-ms", "60000", "--header",
                             "X-Timeout-Ms: 60000", "--json", "--body", data("images/cat.jpg"),
                             server.url("/api/classify")))
        need(out["ok"] == 10000 and out["different"] == 0, out)


@case("one picture 10,000 times over 64 connections gives one answer")
def _():
    one_answer()


@case("and so it does with every batch size allowed, in --deterministic")
def _():
    one_answer("--deterministic", "--batch", "32")


@case("kill -9 under load, ten times: each next start serves")
def _():
    cat = read(data("images/cat.jpg"))
    port = 0
    for _ in range(10):
        server = Server(port=port)
        port = server.port
        clients = [raw_connection(port) for _ in range(16)]
        for client in clients:
            client.sendall(post_head("/api/classify", len(cat)) + cat)
        need(server.stop(signal.SIGKILL) == -9)
        for client in clients:
            client.close()
    with Server(port=port) as server:
        need(server.classify(cat).status == 200)


def read_answer(client):
    """The status of one answer on a raw connection; None when it breaks off."""
    answer = b""
    try:
        while b"\r\n\r\n" not in answer:
            more = client.recv(65536)
            if not more:
                return None
            answer += more
    except OSError:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    size = [int(line.split(b":")[1]) for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")]
    while size and len(body) < size[0]:
        more = client.recv(65536)
        if not more:
            return None
        body += more
    return int(head.split()[1])


@case("SIGTERM under load: every accepted request is answered, and the exit status is 0")
def _():
    cat = read(data("images/cat.jpg"))
    head = ("POST /api/classify HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Timeout-Ms: 60000\r\n"
            "Content-Length: %d\r\n\r\n" % len(cat)).encode()
    count = 96
    with Server("--queue", "256", "--drain-ms", str(int(60000 * SLOW))) as server:
        before = server.metric("nv_inference_request_success")
        clients = [raw_connection(server.port, 120) for _ in range(count)]
        for client in clients:
            client.sendall(head + cat)
        # Accepted: answered already, or counted as pending.
        end = time.monotonic() + 60 * SLOW
        while time.monotonic() < end:
            accepted = (server.metric("nv_inference_request_success") - before +
                        server.metric("nv_inference_pending_request_count"))
            if accepted >= count:
                break
        need(accepted >= count, accepted)
        status = []
        stopper = threading.Thread(target=lambda: status.append(server.stop(seconds=90)))
        stopper.start()
        answers = [read_answer(client) for client in clients]
        stopper.join()
        need(answers == [200] * count, answers)
        need(status == [0], status)


def abort_connection(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@case("1,000 clients that go away leave descriptors and the in-flight count as before")
def _():
    cat = read(data("images/cat.jpg"))
    whole = post_head("/api/classify", len(cat)) + cat
    with Server() as server:
        server.classify(cat)
        time.sleep(0.2)
        before = server.descriptors()
        for number in range(1000):
            client = raw_connection(server.port)
            # After connecting, within the head, within the body, after the request.
            client.sendall(whole[:(0, 20, len(whole) // 2, len(whole))[number % 4]])
            if number % 2:
                client.close()
            else:
                abort_connection(client)
        end = time.monotonic() + 60 * SLOW
        while time.monotonic() < end:
            left = server.metric("nv_inference_pending_request_count")
            if left == 0 and server.descriptors() <= before:
                break
            time.sleep(0.1)
        need(left == 0 and server.descriptors() <= before, left, before, server.descriptors())
        need(server.classify(cat).status == 200)


@case("at four times the capacity there is no 500, and refusals say when to come back")
def _():
    cat = data("images/cat.jpg")
    sources = [word for last in range(2, 10) for word in ("--bind", "127.0.0.%d" % last)]
    with Server() as server:
        closed = json.loads(run("bench", "--closed", "--connections", "8", "--duration", "5",
                                "--json", "--body", cat, server.url("/api/classify")))
        capacity = closed["answered_per_second"]
        need(closed["ok"] == closed["due"] > 0, closed)
        out = json.loads(run("bench", "--poisson", str(4 * capacity), "--duration", "10",
                             "--connections", "800", "--json", "--body", cat, *sources,
                             server.url("/api/classify")))
        need(set(out["status"]) <= {"200", "503"}, out)
        need(out["ok"] > 0 and out["refused"] > 0, out)
        print("# capacity %.1f a second; at 4x: %.1f answered 2xx a second, %d refused, p50 %.2f ms"
              % (capacity, out["ok"] / 10, out["refused"], out["refused_latency_ms"]["p50"]))
        need(server.classify(read(cat)).status == 200)


def killed(form):
    moved = training.survive(50, 1500, form)
    print("# the run stood elsewhere at %d of 50 kills" % moved)
    need(moved >= 10, moved)  # else the moments were no test


@case("fifty kills of a training run at random moments change no byte")
def _():
    killed("BINARYPROTO")


@case("nor do fifty where the snapshots are HDF5")
def _():
    killed("HDF5")


def cifar10_full(form):
    """300 iterations of the published net and solver, whole and in two halves, each in a
    folder of its own: all three files are the same bytes."""
    models = "cifar10_models/"
    text = read(data(models + "cifar10_full_solver.prototxt")).decode()
    text = re.sub("net: .*", 'net: "%s"' % data(models + "cifar10_full_train_test.prototxt"), text)
    text = re.sub("(max_iter|snapshot_prefix|snapshot|snapshot_format|test_interval): .*", "", text)
    train = os.path.join(folder(), "train10000.bin")
    with lzma.open(data("cifar10/train.bin.xz")) as file, open(train, "wb") as out:
        out.write(file.read(10000 * 3073))

    def go(name, iterations, *more):
        base = os.path.join(folder(), name + form)
        os.makedirs(base, exist_ok=True)
        with open(os.path.join(base, "solver.prototxt"), "w") as file:
            file.write(text + 'max_iter: %d test_interval: 1000 snapshot_format: %s '
                       'snapshot_prefix: "small" random_seed: 7\n' % (iterations, form))
        done = subprocess.run(
            [binary(), "train", "--solver", "solver.prototxt", "--data", train, "--test-data",
             train, "--mean", data(models + "cifar10_mean.binaryproto"), "--out", "none",
             "--log-json"] + list(more), cwd=base, capture_output=True, text=True)
        need(done.returncode == 0, done.stderr)
        end = json.loads(done.stderr.splitlines()[-1])
        print("# of %.1f s, %.3f were waited for batches" % (end["seconds"], end["waited"]))
        need(end["event"] == "done" and end["waited"] < 0.02 * end["seconds"], end)
        return training.snapshot(base, iterations, form)
    whole = go("whole", 300)
    go("half", 150)
    need(go("half", 300, "--snapshot", "auto") == whole, form)
    need(all(len(content) > 300000 for content in whole[:2]))  # 89,578 numbers


@case("cifar10_full: 300 iterations equal 150 and another 150, bit for bit")
def _():
    cifar10_full("BINARYPROTO")


@case("and so they do in HDF5")
def _():
    cifar10_full("HDF5")


if __name__ == "__main__":
    main()
