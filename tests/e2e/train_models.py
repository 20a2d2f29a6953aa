#!/usr/bin/env python3
"""The model directory that `saccade train` ends in: it serves what was tested, other
programs read it, and it holds the best weights where that is asked for."""
import json
import lzma
import os
import re
import shutil
import subprocess
import sys

import training
from harness import case, data, folder, main, need, png, read, run, Server, Skip

MODELS = "cifar10_models/"
CV_PYTHON = "/usr/bin/python3"  # Debian's python3-opencv is for Debian's Python


def records(base, count):
    content = read(os.path.join(base, "data.bin"))
    return [content[i * 3073:(i + 1) * 3073] for i in range(count)]


def pictures(base, count):
    """The first records as PNGs in a folder of a folder a class, in that order by name."""
    paths = []
    for i, record in enumerate(records(base, count)):
        planes = [record[1 + 1024 * c:1025 + 1024 * c] for c in range(3)]
        path = os.path.join(base, "pictures", "class%d" % record[0], "%04d.png" % i)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(png(32, 32, bytes(v for pixel in zip(*planes) for v in pixel)))
        paths.append(path)
    return paths


def tested(base, weights, *more):
    """What `test` says of each of the data's items: its probabilities, likeliest first."""
    path = os.path.join(base, "predictions")
    out = json.loads(run("test", "--json", "--net", os.path.join(base, "net.prototxt"), "--weights",
                         os.path.join(base, weights), "--data", os.path.join(base, "data.bin"),
                         "--predictions", path, *more))
    lines = [json.loads(line) for line in read(path).splitlines()]
    return out, sorted(lines, key=lambda line: line["index"])


def names(line):
    return [p["label"] for p in line["predictions"]]


def confidences(line):
    return [p["confidence"] for p in line["predictions"]]


def small(name, *words):
    """Little training, so that not all is certain."""
    base = training.place(name, "max_iter: 2 test_iter: 2 test_interval: 2\n")
    with open(os.path.join(base, "labels"), "w") as file:
        file.write("red\ngreen\nblue\nwhite\n")
    return base, training.finish(base, "--labels", "labels", *words)


@case("classify and serve answer from the directory what test says of the snapshot")
def _():
    base, log = small("served")
    need("Model directory small_model has the weights of iteration 2" in log, log)
    model = os.path.join(base, "small_model")
    need(sorted(os.listdir(model)) == ["deploy.prototxt", "labels.txt", "model.json",
                                       "small.caffemodel"], os.listdir(model))
    _, expected = tested(base, "small_iter_2.caffemodel", "--labels", os.path.join(base, "labels"))
    paths = pictures(base, 40)
    lines = [json.loads(line) for line in
             run("classify", "--json", "--device", "cpu", "--model", model, *paths).splitlines()]
    need(len(lines) == 40 and len({names(e)[0] for e in expected}) > 1, lines[:2])
    for line, one in zip(lines, expected):
        need(names(line)[:4] == names(one)[:4], line, one)
        need(max(abs(a - b) for a, b in zip(confidences(line), confidences(one))) < 2e-4, line, one)
    with Server("--model", model, model=False) as server:
        for path, line in zip(paths[:5], lines):
            answer = json.loads(server.classify(read(path)).content)
            need(answer == line["predictions"], answer, line)


@case("test --model on a folder of the pictures counts what test --net counts")
def _():
    base, _ = small("counted", "--out", "model")
    pictures(base, 256)
    whole, _ = tested(base, "small_iter_2.caffemodel")
    # Classes of the folder are class0 … class3, the labels' colours: by number.
    out = json.loads(run("test", "--json", "--device", "cpu", "--model",
                         os.path.join(base, "model"), "--data", os.path.join(base, "pictures")))
    need(out["confusion"] == whole["confusion"], out["confusion"], whole["confusion"])


@case("trained on a folder, the directory has the folders' names as labels")
def _():
    base = training.place("folder", "max_iter: 4 test_iter: 1 test_interval: 4")
    pictures(base, 64)
    training.finish(base, "--data", "pictures", "--test-data", "pictures", "--out", "model",
                    "--resize", "squash:32")
    need(read(os.path.join(base, "model", "labels.txt")) == b"class0\nclass1\nclass2\nclass3\n")
    how = json.loads(read(os.path.join(base, "model", "model.json")))["preprocess"]
    need(how == {"resize": "squash", "resize_size": [32, 32], "mean": [128.0], "scale": 0.0078125,
                 "decode": "exact", "channels": "bgr"}, how)
    out = json.loads(run("test", "--json", "--device", "cpu", "--model",
                         os.path.join(base, "model"), "--data", os.path.join(base, "pictures")))
    direct = json.loads(run("test", "--json", "--net", os.path.join(base, "net.prototxt"),
                            "--weights", os.path.join(base, "small_iter_4.caffemodel"), "--data",
                            os.path.join(base, "pictures")))
    need(out["confusion"] == direct["confusion"], out["confusion"], direct["confusion"])


def cifar(name, count):
    path = os.path.join(folder(), "%s%d.bin" % (name, count))
    if not os.path.exists(path):
        with lzma.open(data("cifar10/%s.bin.xz" % name)) as file, open(path, "wb") as out:
            out.write(file.read(count * 3073))
    return path


OPENCV = """
import sys, json, struct, cv2, numpy as np
base, records, mean = sys.argv[1:]
raw = np.fromfile(records, np.uint8).reshape(-1, 3073)
mean = np.fromfile(mean, np.float32).reshape(3, 32, 32)
net = cv2.dnn.readNetFromCaffe(base + "/deploy.prototxt", sys.argv[1] + "/%s")
net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
for record in raw:
    net.setInput((record[1:].reshape(1, 3, 32, 32).astype(np.float32) - mean))
    print(json.dumps([float(v) for v in net.forward().reshape(-1)]))
"""


def mean_values(path):
    """The floats of a .binaryproto: field 5, packed or one by one, after the four sizes."""
    content, at, out = read(path), 0, b""
    while at < len(content):
        tag, at = content[at], at + 1
        if tag == 0x2d:
            out, at = out + content[at:at + 4], at + 4
            continue
        value = shift = 0
        while True:
            byte, at = content[at], at + 1
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        if tag == 0x2a:
            out, at = out + content[at:at + value], at + value
    return out


@case("OpenCV reads the deploy net and the weights, and agrees within 1e-4")
def _():
    if subprocess.run([CV_PYTHON, "-c", "import cv2, numpy"], capture_output=True).returncode:
        raise Skip("no python3-opencv")
    base = os.path.join(folder(), "opencv")
    os.makedirs(base, exist_ok=True)
    net = shutil.copy(data(MODELS + "cifar10_full_train_test.prototxt"), base)
    solver = os.path.join(base, "solver.prototxt")
    with open(solver, "w") as file:
        file.write('net: "%s" base_lr: 0.0001 lr_policy: "fixed" momentum: 0.9 max_iter: 3 '
                   'test_iter: 1 test_interval: 3 snapshot_prefix: "%s/full" random_seed: 1\n'
                   % (net, base))
    mean = data(MODELS + "cifar10_mean.binaryproto")
    model, test = os.path.join(base, "model"), cifar("test", 32)
    run("train", "--solver", solver, "--data", cifar("train", 1000), "--test-data", test, "--mean",
        mean, "--weights", data(MODELS + "cifar10_full_iter_70000.caffemodel"), "--out", model)
    values = os.path.join(base, "mean")
    with open(values, "wb") as file:
        file.write(mean_values(os.path.join(model, "mean.binaryproto")))
    need(read(values) == mean_values(mean) and os.path.getsize(values) == 4 * 3072)
    weights = [n for n in os.listdir(model) if n.endswith(".caffemodel")]
    done = subprocess.run([CV_PYTHON, "-c", OPENCV % weights[0], model, test, values],
                          capture_output=True, text=True)
    need(done.returncode == 0, done.stderr)
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    lines = os.path.join(base, "predictions")
    run("test", "--json", "--net", net, "--weights", os.path.join(base, "full_iter_3.caffemodel"),
        "--mean", mean, "--data", test, "--predictions", lines)
    ours = sorted((json.loads(line) for line in read(lines).splitlines()),
                  key=lambda line: line["index"])
    labels = read(data("cifar10/class_names.txt")).decode().split()
    need(len(theirs) == len(ours) == 32)
    for scores, line in zip(theirs, ours):
        for p in line["predictions"]:
            word = p["label"]
            at = labels.index(word) if word in labels else int(word.split()[-1])
            need(abs(scores[at] - p["confidence"]) < 1e-4, scores, line)


@case("of a run that gets worse, the directory has the weights of the best test")
def _():
    # The rate jumps after iteration 12: what was learned is lost again.
    more = ('max_iter: 40 test_iter: 8 test_interval: 4 snapshot: 100 lr_policy: "multistep" '
            'stepvalue: 13 gamma: 3000 ')
    base = training.place("worse", "")
    solver = training.SOLVER.replace('lr_policy: "step" stepsize: 200 gamma: 0.5', more)
    with open(os.path.join(base, "solver.prototxt"), "w") as file:
        file.write(solver.replace("base_lr: 0.01", "base_lr: 0.0003"))
    log = training.finish(base, "--keep-best", "--metric", "acc")
    accuracy = {}
    for at, value in re.findall(r"Iteration (\d+), Testing net.*\n.*acc = ([\d.e-]+)", log):
        accuracy[int(at)] = float(value)
    best = max((a for a in accuracy if a > 0), key=lambda a: (accuracy[a], -a))
    need(accuracy[best] > accuracy[40] and best < 40, accuracy)
    need("Model directory small_model has the weights of iteration %d\n" % best in log, log)
    kept = sorted(int(re.search(r"iter_(\d+)\.", n).group(1)) for n in os.listdir(base)
                  if n.endswith(".solverstate"))
    need(kept == [best, 40], kept)  # those of former bests are gone
    pictures(base, 256)
    out = json.loads(run("test", "--json", "--device", "cpu", "--model",
                         os.path.join(base, "small_model"), "--data",
                         os.path.join(base, "pictures")))
    need(abs(out["top1"] - accuracy[best]) < 0.005, out["top1"], accuracy)


@case("patience ends a run that does not get better, and it may go on")
def _():
    base = training.place("patient", "max_iter: 400 test_iter: 8 test_interval: 5\n")
    log = training.finish(base, "--patience", "3", "--data", "data.bin")
    need("3 tests without a better acc than 1, of iteration" in log, log)
    need("Optimization stopped early." in log and "Optimization Done." not in log, log)
    at = max(int(n) for n in re.findall(r"Iteration (\d+), Testing", log))
    best = int(re.search(r"of iteration (\d+)\n", log).group(1))
    need(at == best + 15, at, best)
    # It goes on where it stopped, without the test that it had; and stops where that says.
    log = training.finish(base, "--patience", "4", "--snapshot", "auto")
    need("Iteration %d, Testing" % at not in log and "Iteration %d, Testing" % (at + 5) in log, log)


@case("a directory with another model's weights is refused before training")
def _():
    base = training.place("taken", "max_iter: 2\n")
    os.mkdir(os.path.join(base, "model"))
    with open(os.path.join(base, "model", "other.caffemodel"), "w") as file:
        file.write("weights")
    log = training.finish(base, "--out", "model", status=1)
    need("model has other.caffemodel already" in log and "Iteration" not in log, log)
    need(os.listdir(os.path.join(base, "model")) == ["other.caffemodel"])


@case("a directory that nobody asked for and that cannot be written fails no run")
def _():
    base = training.place("again", "max_iter: 2\n")
    training.finish(base)
    net = os.path.join(base, "net.prototxt")
    text = read(net).replace(b'name: "small"', b'name: "other"', 1)
    with open(net, "wb") as file:
        file.write(text)
    log = training.finish(base)
    need("no model directory will be written" in log and "small.caffemodel" in log, log)
    need("Optimization Done." in log, log)


@case("a run that ended without its directory makes it when it is started again")
def _():
    base = training.place("owed", "max_iter: 2\n")
    training.finish(base)
    before = read(os.path.join(base, "small_model", "small.caffemodel"))
    shutil.rmtree(os.path.join(base, "small_model"))
    log = training.finish(base, "--snapshot", "auto")
    need("nothing is left to train" in log and "Optimization Done." in log, log)
    need(read(os.path.join(base, "small_model", "small.caffemodel")) == before)


if __name__ == "__main__":
    main()
