#!/usr/bin/env python3
"""`saccade train` from outside: a published solverstate, kills, signals, the log."""
import json
import lzma
import os
import re
import shutil
import signal
import subprocess
import sys

import training
from harness import binary, case, data, folder, need, run, run_cases, Skip

MODELS = "cifar10_models/"


def cifar(name, records=-1):
    path = os.path.join(folder(), "%s%d.bin" % (name, records))
    if not os.path.exists(path):
        with lzma.open(data("cifar10/%s.bin.xz" % name)) as file, open(path, "wb") as out:
            out.write(file.read(records if records < 0 else records * 3073))
    return path


@case("cifar10_full goes on from its published solverstate, and test takes what it saved")
def _():
    base = os.path.join(folder(), "full")
    os.makedirs(base, exist_ok=True)
    shutil.copy(data(MODELS + "cifar10_full_train_test.prototxt"), base)
    with open(data(MODELS + "cifar10_full_solver_lr2.prototxt")) as file:
        text = file.read()
    text = re.sub("max_iter: .*", "max_iter: 70004", text)
    text = re.sub("snapshot_prefix: .*", 'snapshot_prefix: "%s/full"' % base, text)
    solver = os.path.join(base, "solver.prototxt")
    with open(solver, "w") as file:
        file.write(text)
    mean = data(MODELS + "cifar10_mean.binaryproto")
    done = subprocess.run([binary(), "train", "--solver", solver, "--data", cifar("train", 1000), "--test-data",
        cifar("test"), "--mean", mean, "--snapshot",
        data(MODELS + "cifar10_full_iter_70000.solverstate")], capture_output=True, text=True)
    need(done.returncode == 0, done.stderr)
    # As published; the first test comes before the first update.
    need("Test net output #0: accuracy = 0.8211\n" in done.stderr, done.stderr)
    out = json.loads(run("test", "--json", "--net",
                         os.path.join(base, "cifar10_full_train_test.prototxt"), "--weights",
                         os.path.join(base, "full_iter_70004.caffemodel"), "--mean", mean,
                         "--data", cifar("test", 1000)))
    need(out["top1"] > 0.79, out["top1"])  # 0.815 of these before


@case("three kills at random moments change nothing")
def _():
    training.survive(3, 60)


@case("an interrupt stops after a snapshot, from which the run goes on")
def _():
    base = training.place("stopped", "max_iter: 1000000 display: 1\n")
    process = training.start(base)
    for line in process.stderr:
        if "Iteration 3 " in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[0], process.returncode
    need(process.returncode == 0, rest)
    state = [n for n in os.listdir(base) if n.endswith(".solverstate")]
    need(len(state) == 1, state)
    iteration = int(re.search(r"_iter_(\d+)\.", state[0]).group(1))
    with open(os.path.join(base, "solver.prototxt"), "w") as file:
        file.write(training.SOLVER + "display: 1 max_iter: %d\n" % (iteration + 2))
    log = training.finish(base, "--snapshot", state[0])
    need("Iteration %d " % iteration in log and "Optimization Done." in log, log)


@case("the log has the lines that Caffe's parsers look for")
def _():
    base = training.place("log", "max_iter: 4 display: 2 test_iter: 2 test_interval: 4\n")
    log = training.finish(base)
    glog = r"^I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ (sgd_)?solver\.cpp:\d+\] "
    for part in (r"Solving small$", r"Iteration 0, Testing net \(#0\)$",
                 r"    Test net output #0: acc = [\d.e-]+$",
                 r"    Test net output #1: loss = [\d.e-]+ \(\* 1 = [\d.e-]+ loss\)$",
                 r"Iteration 2 \([\d.e-]+ iter/s, [\d.e-]+s/2 iters\), loss = [\d.e-]+$",
                 r"    Train net output #0: loss = [\d.e-]+ \(\* 1 = [\d.e-]+ loss\)$",
                 r"Iteration 2, lr = 0\.01$",
                 r"Snapshotting to binary proto file small_iter_4\.caffemodel$",
                 r"Snapshotting solver state to binary proto file small_iter_4\.solverstate$",
                 r"Iteration 4, loss = [\d.e-]+$", r"Iteration 4, Testing net \(#0\)$",
                 r"Optimization Done\.$"):
        need(re.search(glog + part, log, re.M), part, log)


@case("the log for machines is JSON, a line an event")
def _():
    base = training.place("json", "max_iter: 4 display: 2 test_iter: 2 test_interval: 4\n")
    events = [json.loads(line) for line in training.finish(base, "--log-json").splitlines()]
    kinds = [e["event"] for e in events]
    need(kinds == ["start", "test", "train", "train", "saving", "last_loss", "test",
                   "written", "done"], kinds)
    need(events[1]["outputs"][0]["name"] == "acc", events[1])


@case("what cannot be trained is one sentence")
def _():
    base = training.place("wrong", "max_iter: 2\n")
    for more, part in ((["--data", "nowhere.bin"], "nowhere.bin"),
                       (["--snapshot", "nowhere.solverstate"], "nowhere.solverstate"),
                       (["--weights", "nowhere.caffemodel"], "nowhere.caffemodel"),
                       (["--net", "nowhere.prototxt"], "nowhere.prototxt")):
        log = training.finish(base, *more, status=1)
        need(part in log and len(log.strip().splitlines()) == 1, log)
    done = subprocess.run([binary(), "train"], capture_output=True, text=True)
    need(done.returncode == 2 and "--solver" in done.stderr, done)


if __name__ == "__main__":
    try:
        binary()
    except Skip as why:
        print("1..0 # SKIP %s" % why)
        sys.exit(0)
    sys.exit(run_cases())
