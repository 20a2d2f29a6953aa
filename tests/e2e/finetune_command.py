#!/usr/bin/env python3
"""`saccade train --finetune`: from a folder of pictures and a model to a model with a report."""
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import training
from harness import binary, case, folder, need, png, read, run, run_cases, Skip

CLASSES = {"cyan": (0, 1, 1), "magenta": (1, 0, 1), "yellow": (1, 1, 0)}


def base_model():
    """The four colours' model, once."""
    model = os.path.join(folder(), "colours", "small_model")
    if not os.path.exists(model):
        base = training.place("colours", "max_iter: 40 test_iter: 4 test_interval: 40\n")
        training.finish(base)
    return model


def pictures(name, count, seed=1):
    """Mixed colours with noise: a folder of a folder a class."""
    base = os.path.join(folder(), name)
    noise = random.Random(seed)
    for word, planes in CLASSES.items():
        os.makedirs(os.path.join(base, word), exist_ok=True)
        for i in range(count):
            pixels = bytes(60 + 70 * plane + noise.randrange(60)
                           for _ in range(40 * 40) for plane in planes)
            with open(os.path.join(base, word, "%03d.png" % i), "wb") as file:
                file.write(png(40, 40, pixels))
    return base


def words(data, out, *more):
    return [binary(), "train", "--finetune", base_model(), "--data", data, "--out", out, "--epochs",
            "12", "--batch", "8", "--rate", "0.0005", "--scaled-to", "32", "--light", "0",
            "--frozen", "0", "--patience", "12"] + list(more)


def tune(data, name, *more, status=0):
    out = os.path.join(folder(), name)
    shutil.rmtree(out, ignore_errors=True)
    done = subprocess.run(words(data, out, *more), stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=200)
    need(done.returncode == status, done.returncode, done.stderr)
    return out, done


@case("a folder of pictures becomes a model that tells them apart, with a report")
def _():
    data = pictures("mixed", 30)
    out, done = tune(data, "tuned")
    need("3 classes; 63 pictures to train with, 9 to validate, 18 to test" in done.stderr,
         done.stderr)
    need(re.search(r"frozen layers +0 of 2 +as given", done.stderr), done.stderr)
    need(re.search(r"last layer +10x +it starts from nothing", done.stderr), done.stderr)
    need(read(os.path.join(out, "labels.txt")) == b"cyan\nmagenta\nyellow\n")
    report = json.loads(read(os.path.join(out, "report.json")))
    need(report["test_items"] == 18 and report["test"]["top1"] >= 0.9, report["test"])
    need(len(report["curve"]) >= 12 and report["curve"][-1]["accuracy"] is not None)
    page = read(os.path.join(out, "report.html")).decode()
    need("magenta" in page and "http" not in page and "<script" not in page)
    fresh = pictures("fresh", 2, seed=2)
    for word in CLASSES:
        lines = run("classify", "--json", "--device", "cpu", "--model", out,
                    os.path.join(fresh, word)).splitlines()
        for line in map(json.loads, lines):
            need(line["predictions"][0]["label"] == word, word, line)


@case("what it wrote can be edited and run by train itself")
def _():
    out, _ = tune(pictures("mixed", 30), "edited", "--epochs", "1")
    solver = os.path.join(out, "solver.prototxt")
    text = read(solver).decode()
    with open(solver, "w") as file:
        file.write(re.sub(r"max_iter: \d+", "max_iter: 3", text))
    shutil.rmtree(os.path.join(out, "snapshots"))
    os.mkdir(os.path.join(out, "snapshots"))
    weights = os.path.join(base_model(), "small.caffemodel")
    done = subprocess.run([binary(), "train", "--solver", solver, "--weights", weights, "--out",
                           "none"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    need(done.returncode == 0 and "Iteration 3" in done.stderr, done.stderr)


@case("a choice that comes too late is refused, and no file changes")
def _():
    data = pictures("mixed", 30)
    out, _ = tune(data, "late", "--epochs", "1")
    solver = read(os.path.join(out, "solver.prototxt"))
    done = subprocess.run(words(data, out), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    need(done.returncode == 1 and "is there already and says how to train" in done.stderr,
         done.stderr)
    need(read(os.path.join(out, "solver.prototxt")) == solver)


def has_snapshot(out):
    snapshots = os.path.join(out, "snapshots")
    return os.path.exists(snapshots) and any(name.endswith(".solverstate")
                                             for name in os.listdir(snapshots))


@case("a run that is killed goes on, and its curve has no gap")
def _():
    data = pictures("mixed", 30)
    out = os.path.join(folder(), "killed")
    process = subprocess.Popen(words(data, out, "--epochs", "400", "--patience", "400"),
                               stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not has_snapshot(out):
        need(time.monotonic() < deadline and process.poll() is None, "no snapshot")
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    plain = words(data, out)
    plain = plain[:plain.index("--epochs")]  # the choices are in the files now
    done = subprocess.run(plain, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=200)
    need(done.returncode == 0 and "going on from" in done.stderr, done.stderr)
    curve = json.loads(read(os.path.join(out, "report.json")))["curve"]
    steps = [b["iteration"] - a["iteration"] for a, b in zip(curve, curve[1:])]
    need(set(steps) == {8}, steps)  # 63 / 8 pictures: 8 iterations an epoch


@case("what cannot be is one sentence")
def _():
    data = pictures("mixed", 30)
    for more, says in ((["--frozen", "2"], "2 frozen layers"), (["--flip", "maybe"], "yes or no"),
                       (["--scaled-to", "20"], "the net takes 28"),
                       (["--data", "/nothing"], "/nothing"), (["--val", "0.8"], "leave nothing")):
        _, done = tune(data, "refused", *more, status=2 if more[0] in ("--flip", "--val") else 1)
        need(says in done.stderr and len(re.findall(r"(?m)^saccade[ :]", done.stderr)) == 1,
             done.stderr)


if __name__ == "__main__":
    try:
        binary()
    except Skip as why:
        print("1..0 # SKIP %s" % why)
        sys.exit(0)
    sys.exit(run_cases())
