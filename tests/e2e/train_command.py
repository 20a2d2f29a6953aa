#!/usr/bin/env python3
"""`saccade train` from outside: a published solverstate, kills, signals, the log."""
import datetime
import json
import lzma
import math
import os
import pty
import re
import shutil
import signal
import subprocess

import training
from harness import binary, case, data, folder, main, need, read, run

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


def parse_log(text):
    """By the rules of Caffe's parse_log.py: what follows an "Iteration N" belongs to it;
    seconds are counted from the line with "Solving", out of the glog prefix."""
    begun = iteration = rate = None
    rows = {"Train": {}, "Test": {}}
    for line in text.splitlines():
        word = line.split()
        try:
            at = datetime.datetime(2000, int(word[0][1:3]), int(word[0][3:]),
                                   *(int(part) for part in re.split("[:.]", word[1])))
        except ValueError:
            continue
        if "Solving" in line:
            begun = at
        found = re.search(r"Iteration (\d+)", line)
        iteration = int(found.group(1)) if found else iteration
        if begun is None or iteration is None:
            continue
        found = re.search(r"lr = ([-+]?[0-9]*\.?[0-9]+([eE]?[-+]?[0-9]+)?)", line)
        rate = float(found.group(1)) if found else rate
        for kind in rows:
            found = re.search(kind + r" net output #(\d+): (\S+) = ([\.\deE+-]+)", line)
            if found:
                row = rows[kind].setdefault(iteration, {"seconds": (at - begun).total_seconds()})
                row[found.group(2)] = float(found.group(3))
    return rows, rate


@case("parse_log's rules find what the log for machines has")
def _():
    base = training.place("parsed", "max_iter: 40 display: 10 test_iter: 2 test_interval: 20\n")
    rows, rate = parse_log(training.finish(base, "--keep-best"))
    events = [json.loads(line) for line in
              training.finish(base, "--log-json", "--out", "none").splitlines()]
    for kind, event in (("Train", "train"), ("Test", "test")):
        expected = {e["iteration"]: {o["name"]: o["value"] for o in e["outputs"]}
                    for e in events if e["event"] == event}
        need(list(rows[kind]) == list(expected), rows[kind], expected)
        for iteration, values in expected.items():
            for name, value in values.items():  # the log has six digits
                need(abs(rows[kind][iteration][name] - value) <= 1e-5 * abs(value), name, value)
        seconds = [row["seconds"] for row in rows[kind].values()]
        need(0 <= seconds[0] <= seconds[-1] < 300 and seconds == sorted(seconds), seconds)
    need(list(rows["Train"]) == [0, 10, 20, 30] and list(rows["Test"]) == [0, 20, 40], rows)
    need(rate == 0.01 and events[-1]["seconds"] > 0 and events[-1]["waited"] >= 0, events[-1])


@case("a terminal gets a line of progress: loss, rate, time left")
def _():
    base = training.place("terminal", "max_iter: 1000000\n")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(training.words("--out", "none"), cwd=base, stderr=theirs,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    os.close(theirs)
    seen = b""
    while seen.count(b" left") < 3:
        seen += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    try:
        while True:
            more = os.read(ours, 4096)
            if not more:
                break
            seen += more
    except OSError:  # the terminal is gone with its last writer
        pass
    need(process.wait(60) == 0, seen)
    os.close(ours)
    lines = re.findall(rb"\r\x1b\[K(\d+) of 1000000, loss ([\d.e+-]+), ([\d.e+-]+) iterations a "
                       rb"second, (\d+):(\d\d):(\d\d) left", seen)
    need(len(lines) >= 3, seen)
    at, rate = int(lines[2][0]), float(lines[2][2])
    left = int(lines[2][3]) * 3600 + int(lines[2][4]) * 60 + int(lines[2][5])
    need(abs(left - (1000000 - at) / rate) <= 2 + 0.001 * left, lines[2])
    need(b"\x1b[K" in seen.split(b" left")[-1], seen)  # it is taken away at the end


@case("the log for machines is JSON, a line an event")
def _():
    base = training.place("json", "max_iter: 4 display: 2 test_iter: 2 test_interval: 4\n")
    events = [json.loads(line) for line in training.finish(base, "--log-json").splitlines()]
    kinds = [e["event"] for e in events]
    need(kinds == ["start", "test", "train", "train", "saving", "last_loss", "test",
                   "written", "done"], kinds)
    need(events[1]["outputs"][0]["name"] == "acc", events[1])


PAIRS = """name: "pairs"
layer { name: "in" type: "Data" top: "data" transform_param { scale: 0.00390625 }
  data_param { source: "none" batch_size: 64 backend: LMDB } }
layer { name: "flat" type: "Flatten" bottom: "data" top: "flat" }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 3072 bias_filler { type: "constant" value: 0.5 } } }
layer { name: "square" type: "EuclideanLoss" bottom: "fc" bottom: "flat" top: "square" }
layer { name: "cross" type: "SigmoidCrossEntropyLoss" bottom: "fc" bottom: "flat" top: "cross"
  loss_weight: 2 }
"""


@case("losses of pairs: train and test give what the formulas give")
def _():
    base = training.place("pairs", "test_iter: 4 test_interval: 1 max_iter: 1\n")
    with open(os.path.join(base, "net.prototxt"), "w") as file:
        file.write(PAIRS)
    log = training.finish(base, "--out", "none")
    square = cross = 0.0
    content = read(os.path.join(base, "data.bin"))
    for i, byte in enumerate(content):
        if i % 3073:
            square += (0.5 - byte / 256) ** 2  # without weights each output is the bias
            cross += math.log(1 + math.exp(0.5)) - 0.5 * byte / 256
    square, cross = square / (2 * 256), cross / 256
    found = [float(v) for v in re.findall(r"Test net output #\d: \w+ = ([\d.e+-]+)", log)][:2]
    need(abs(found[0] / cross - 1) < 1e-5 and abs(found[1] / square - 1) < 1e-5, found, square)
    # And test, on weights that have learned a step, in batches of which one is partial.
    words = ["test", "--net", os.path.join(base, "net.prototxt"), "--weights",
             os.path.join(base, "small_iter_1.caffemodel"), "--data",
             os.path.join(base, "data.bin"), "--json"]
    out = json.loads(run(*words))
    last = [float(v) for v in re.findall(r"Test net output #\d: \w+ = ([\d.e+-]+)", log)][-2:]
    need(out["items"] == 256 and "confusion" not in out, out)
    for name, value in zip(("cross", "square"), last):
        need(abs(out["outputs"][name] / value - 1) < 1e-5, out, last)
    other = json.loads(run(*words, "--batch", "100"))["outputs"]
    need(all(abs(other[n] / out["outputs"][n] - 1) < 1e-5 for n in other), other, out)


STATES = """name: "states"
layer { name: "in" type: "Data" top: "data" top: "label"
  data_param { source: "none" batch_size: 16 backend: LMDB } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 4 } param { lr_mult: 0 } param { lr_mult: 0 } }
layer { name: "a" type: "Accuracy" bottom: "fc" bottom: "label" top: "of-a"
  include { phase: TEST stage: "a" } }
layer { name: "b" type: "Accuracy" bottom: "fc" bottom: "label" top: "of-b"
  include { phase: TEST stage: "b" not_stage: "a" } }
layer { name: "deep" type: "Accuracy" bottom: "fc" bottom: "label" top: "deep"
  include { phase: TEST min_level: 2 } }
layer { name: "more" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "more"
  include { phase: TRAIN stage: "more" min_level: 1 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


@case("two test nets have states of their own; --level and --stage are the training net's")
def _():
    base = training.place("states", """max_iter: 1 display: 1 test_iter: 1 test_iter: 2
        test_interval: 1 test_state { stage: "a" } test_state { stage: "b" level: 2 }\n""")
    with open(os.path.join(base, "net.prototxt"), "w") as file:
        file.write(STATES)

    def outputs(*more):
        log = training.finish(base, *more)
        return [re.findall(what + r" net output #\d: ([\w-]+) =", log.split("Testing net (#0)")[1])
                for what in ("Test", "Train")]
    tests, train = outputs()
    need(tests == ["loss", "of-a", "deep", "loss", "of-b"] and train == ["loss"], tests, train)
    need(outputs("--stage", "more")[1] == ["loss"])
    need(outputs("--stage", "x,more", "--level", "1") == [tests, ["loss", "more"]])
    names = json.loads(run("test", "--json", "--net", os.path.join(base, "net.prototxt"),
                           "--weights", os.path.join(base, "small_iter_1.caffemodel"), "--data",
                           os.path.join(base, "data.bin"), "--stage", "b", "--level", "2"))
    need(sorted(names["outputs"]) == ["deep", "loss", "of-b"], names["outputs"])


@case("SIGHUP saves and goes on; either signal does what its flag says")
def _():
    base = training.place("signals", "max_iter: 1000000 display: 1\n")

    def begin(*more):
        process = training.start(base, *more)
        for line in process.stderr:
            if "Iteration 3 " in line:
                return process

    def saved():
        return [n for n in os.listdir(base) if n.endswith(".solverstate")]

    def wait_for(process, words):
        for line in process.stderr:
            if words in line:
                return
        raise AssertionError("ended without: " + words)
    process = begin()
    process.send_signal(signal.SIGHUP)
    wait_for(process, "Snapshotting solver state")
    wait_for(process, "Iteration")
    need(process.poll() is None and len(saved()) == 1, saved())
    process.send_signal(signal.SIGINT)
    wait_for(process, "Optimization stopped early.")
    process.communicate()
    need(process.returncode == 0 and len(saved()) == 2, saved())
    process = begin("--sigint_effect", "none", "--sighup_effect", "stop")
    process.send_signal(signal.SIGINT)
    wait_for(process, "Iteration 50 ")  # none that was saved before
    need(process.poll() is None and len(saved()) == 2, saved())
    process.send_signal(signal.SIGHUP)
    wait_for(process, "Optimization stopped early.")
    process.communicate()
    need(process.returncode == 0 and len(saved()) == 3, saved())


@case("an interrupt is heeded in the middle of a test")
def _():
    base = training.place("untested", "max_iter: 9 test_iter: 100000000 test_interval: 5\n")
    process = training.start(base)
    for line in process.stderr:
        if "Testing net" in line:
            break
    process.send_signal(signal.SIGINT)
    log = process.communicate(timeout=120)[1]
    need(process.returncode == 0 and "Test interrupted." in log, log)
    need("Optimization stopped early." in log and "net output" not in log, log)
    need(os.path.exists(os.path.join(base, "small_iter_0.solverstate")), os.listdir(base))


@case("smoothed labels raise the first loss as the formula says; augmentation changes the data")
def _():
    base = training.place("smooth", "max_iter: 1 display: 1\n")

    def first(*more):
        log = training.finish(base, "--out", "none", *more)
        return float(re.search(r"Iteration 0 \(.*loss = ([\d.e+-]+)", log).group(1))
    # Zero weights: every class has 1/4, whatever the label; ln 4 stays ln 4.
    net = training.NET.replace('weight_filler { type: "xavier" } ', "")
    with open(os.path.join(base, "net.prototxt"), "w") as file:
        file.write(net)
    need(abs(first("--smoothing", "0.3") - math.log(4)) < 1e-5)
    # A bias of ln 9 for class 0: log p0 = ln 9/12, the others ln 1/12.
    text = net.replace("num_output: 4 ", 'num_output: 4 bias_term: true '
                       'bias_filler { type: "uniform" min: -2 max: 2 } ')
    with open(os.path.join(base, "net.prototxt"), "w") as file:
        file.write(text)
    plain, half, most = first(), first("--smoothing", "0.3"), first("--smoothing", "0.6")
    # Linear in the smoothing: (1 - s) * plain + s * mean over the classes.
    need(abs((half - plain) * 2 - (most - plain)) < 1e-4 and abs(half - plain) > 1e-3, plain, half)
    training.place("smooth", "max_iter: 1 display: 1\n")
    plain = first()
    for word in ("flip", "pad=4", "area=0.3", "rotation=20", "brightness=0.5", "contrast=0.5",
                 "saturation=0.9", "hue=0.5", "noise=20", "cutout=12"):
        need(first("--augment", word) != plain, word)
    need(first("--augment", "noise=0") == plain)
    log = training.finish(base, "--augment", "noise=20,twist=3", status=2)
    need("twist=3" in log, log)


def exploding(name, net, more="", *words):
    base = training.place(name, "max_iter: 50 snapshot: 1 " + more)
    with open(os.path.join(base, "net.prototxt"), "w") as file:
        file.write(net)
    return training.finish(base, "--out", "none", *words, status=1)


@case("a number that is not finite is named where it first was, with the last snapshot")
def _():
    # e^x by a power of a large number: the blob is infinite, all parameters are well.
    net = training.NET.replace('layer { name: "fc"', '''
        layer { name: "up" type: "Power" bottom: "b1" top: "up" power_param { scale: 1e30 } }
        layer { name: "square" type: "Eltwise" bottom: "up" bottom: "up" top: "square"
          eltwise_param { operation: PROD } }
        layer { name: "fc"''').replace('bottom: "b1" top: "fc"', 'bottom: "square" top: "fc"')
    log = exploding("infinite", net)
    need('iteration 0: blob "square" of layer "square" is the first that is infinite' in log and
         "no snapshot was saved before" in log, log)
    net = training.NET.replace('name: "fc" type', 'name: "fc" param { lr_mult: 1e36 } type')
    log = exploding("parameter", net)
    need(re.search(r"saccade: iteration \d+: the (parameter|gradient) of fc/0 is", log), log)


@case("time --backward has every operation both ways, and the whole with its update")
def _():
    base = training.place("timed", "max_iter: 1\n")
    words = ["time", "--net", os.path.join(base, "net.prototxt"), "--backward", "--data",
             os.path.join(base, "data.bin"), "--iterations", "5", "--device", "cpu"]
    out = json.loads(run(*words, "--json", "--batch", "24"))
    need(out["batch"] == 24, out["batch"])
    steps = {s["op"]: s for s in out["steps"]}
    need(all(s["forward_ms"] >= 0 for s in out["steps"]), out)
    for kind in ("convolution", "inner product", "softmax loss"):
        need(steps[kind]["forward_ms"] > 0 and steps[kind]["backward_ms"] > 0, kind, out)
    whole = out["forward_ms"] + out["backward_ms"] + out["update_ms"]
    need(out["update_ms"] > 0 and abs(out["pictures_per_second"] * whole / 24000 - 1) < 1e-3, out)
    need(re.search(rb"\nwhole: forward [\d.]+ ms, backward [\d.]+ ms, update [\d.]+ ms for a batch "
                   rb"of 16 \(medians of 5\)", run(*words)))
    done = subprocess.run([binary(), "time", "--backward", "--net",
                           data(MODELS + "cifar10_full.prototxt")], capture_output=True, text=True)
    need(done.returncode == 1 and "no loss to go back from" in done.stderr, done)


@case("tests between change no weight, though their batches are larger")
def _():
    ends = []
    for more in ("", "test_iter: 2 test_interval: 2"):
        base = training.place("between", "max_iter: 6 %s\n" % more)
        training.finish(base, "--out", "none")
        ends.append(training.snapshot(base, 6)[0])
    need(ends[0] == ends[1])


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
    main()
