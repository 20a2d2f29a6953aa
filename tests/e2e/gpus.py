#!/usr/bin/env python3
"""`saccade serve` on simulated GPUs: SqueezeNet answers as on the CPU, and a device
that is lost takes no request with it. `gpus.py long`: more devices, more load.

SACCADE_SIM_MODULE_DIR is where the module over tests/cuda_sim lies; without it all
is skipped by name."""
import json
import os
import sys
import threading
import time

from harness import (SLOW, Server, Skip, case, cases, data, folder, need, read, run_cases)

PICTURES = ["images/cat.jpg", "images/fish-bike.jpg", "images/cat_gray.jpg"]
expected = {}


def module():
    path = os.environ.get("SACCADE_SIM_MODULE_DIR", "")
    if not os.path.exists(os.path.join(path, "saccade_cuda.so")):
        raise Skip("no simulated CUDA module")
    return path


def from_cpu():
    """What the CPU answers; the reference."""
    if not expected:
        with Server("--device", "cpu", "--timeout-ms", "600000") as server:
            for name in PICTURES:
                answer = server.classify(read(data(name)))
                need(answer.status == 200, answer.content)
                expected[name] = json.loads(answer.content)
    return expected


def same(got, want):
    """The same labels in the same order, unless neighbours are equal to 2e-4; four
    decimals are printed, so 1e-4 is one unit of the last."""
    values = {item["label"]: item["confidence"] for item in want}
    return len(got) == len(want) and all(
        abs(item["confidence"] - values.get(item["label"], -1)) <= 2e-4 for item in got)


class Gpus(Server):
    """A server on simulated GPUs."""

    def __init__(self, devices, *words):
        Gpus.count = getattr(Gpus, "count", 0) + 1
        self.faults = os.path.join(folder(), "faults-%d" % Gpus.count)
        names = {"SACCADE_MODULE_DIR": module(), "SACCADE_SIM_DEVICES": str(devices),
                 "SACCADE_SIM_FAULT_FILE": self.faults,
                 "XDG_CACHE_HOME": os.path.join(folder(), "cache")}
        before = {name: os.environ.get(name) for name in names}
        os.environ.update(names)
        try:
            super().__init__("--device", "cuda", "--timeout-ms", "600000", *words)
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value

    def fault(self, words):
        """In sim_fault_set's words; counted from the next call on."""
        with open(self.faults + "~", "w") as file:
            file.write(words)
        os.rename(self.faults + "~", self.faults)


def load(server, clients, times):
    """Every client's every answer must be the CPU's; the number of answers."""
    wrong, done = [], []

    def ask(first):
        connection = server.connect(600)
        for i in range(times):
            name = PICTURES[(first + i) % len(PICTURES)]
            connection.request("POST", "/api/classify", read(data(name)))
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200 or not same(json.loads(body), from_cpu()[name]):
                wrong.append((name, answer.status, body))
            done.append(name)
        connection.close()

    threads = [threading.Thread(target=ask, args=[i]) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    need(not wrong, len(wrong), "wrong answers, such as", wrong[:2])
    need(len(done) == clients * times, len(done), "answers of", clients * times)


def wait_for(server, what, seconds, every=0.1):
    end = time.monotonic() + seconds * SLOW
    while not what():
        need(time.monotonic() < end, "it did not happen in time:", "\n".join(server.lines[-10:]))
        time.sleep(every)


def logged(server, text):
    return any(text in line for line in server.lines)


@case("on one simulated GPU the answers are the CPU's, under load")
def _():
    from_cpu()
    with Gpus(1, "--batch", "4") as server:
        load(server, 4, 3)
        need(server.metric("saccade_lanes_up") == 1)
        need(server.metric("nv_inference_count") == 12)


@case("on eight simulated GPUs the answers are the CPU's, under load")
def _():
    from_cpu()
    with Gpus(8, "--batch", "1") as server:
        load(server, 8, 3)
        need(server.metric("saccade_lanes_up") == 8)


def lose_one(server, device, clients, times):
    """Loads the server until the device has been lost and the loss was seen."""
    down = "device cuda:%d is down" % device
    seen = sum(down in line for line in server.lines)
    server.fault("lost:%d:%d" % (device, 9))
    for _ in range(20):
        load(server, clients, times)
        if sum(down in line for line in server.lines) > seen:
            return
    need(False, "it was never lost:", server.lines)


def is_whole(server, lanes):
    return lambda: server.metric("saccade_lanes_up") == lanes


@case("of two GPUs one is lost under load: every request is answered, and it comes back")
def _():
    from_cpu()
    with Gpus(2, "--batch", "1") as server:
        lose_one(server, 1, 4, 3)
        wait_for(server, is_whole(server, 2), 60)
        need(logged(server, "(cuda:1): works again"), server.lines)
        need(server.metric("saccade_lost_total") == 0)
        load(server, 4, 1)


@case("without a GPU that works the server is not ready, and says so, until one does")
def _():
    with Gpus(1, "--batch", "1") as server:
        cat = read(data("images/cat.jpg"))
        need(server.classify(cat).status == 200)
        server.fault("gone:0:0")
        statuses = [server.classify(cat).status for _ in range(3)]
        need(statuses == [503, 503, 503], statuses)
        answer = server.get("/readyz")
        need(answer.status == 503 and b"no device" in answer.content, answer.content)
        need(server.get("/healthz").status == 200)
        wait_for(server, lambda: logged(server, "still down"), 20)
        need(server.metric("saccade_device_lanes_up") == 0)
        server.fault("slow:0:0")  # the loss is taken back: a new context helps
        wait_for(server, lambda: server.get("/readyz").status == 200, 60)
        need(server.classify(cat).status == 200)


@case("long: eight GPUs, each lost in its turn under load")
def _():
    from_cpu()
    with Gpus(8, "--batch", "2") as server:
        for device in range(8):
            lose_one(server, device, 12, 3)
            wait_for(server, is_whole(server, 8), 60)  # the next may be lost sooner than this is back
        need(server.metric("saccade_lost_total") == 0)
        need(server.metric("saccade_device_recoveries_total") == 8)


@case("long: SIGTERM while one GPU is lost answers what was accepted")
def _():
    from_cpu()
    for turn in range(5):
        server = Gpus(3, "--batch", "1")
        server.fault("gone:%d:%d" % (turn % 3, turn * 2))
        answers = []

        def ask():
            answers.append(server.classify(read(data(PICTURES[0]))).status)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        # Six, and the one that asks: for as long as it takes to answer the first of them.
        wait_for(server, lambda: server.metric("saccade_http_requests_in_flight") >= 7, 20, 0.002)
        status = server.stop()
        for thread in threads:
            thread.join()
        need(status == 0 and answers == [200] * 6, status, answers, server.lines[-10:])


if __name__ == "__main__":
    wanted = "long:" if "long" in sys.argv[1:] else ""
    cases[:] = [c for c in cases if c[0].startswith("long:") == bool(wanted)]
    del sys.argv[1:]
    sys.exit(run_cases())
