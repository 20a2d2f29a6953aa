#!/usr/bin/env python3
"""`saccade train --finetune`: from a folder of pictures and a model to a model with a report."""
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time

import training
from harness import binary, case, folder, main, need, png, read, run

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


def again(words_, status=0):
    done = subprocess.run(words_, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=200)
    need(done.returncode == status, done.returncode, done.stderr)
    return done


def files_of(base):
    """What is in a folder, byte for byte."""
    return {os.path.join(at, name): read(os.path.join(at, name))
            for at, _, names in os.walk(base) for name in names}


@case("what differs from what a run was begun with is refused by name, and no file changes")
def _():
    data = pictures("mixed", 30)
    out, _ = tune(data, "late", "--epochs", "1")
    before = files_of(out)
    other = pictures("other", 3)
    for more, says in ((["--epochs", "12"], ("--epochs is 12.0", "begun with 1.0")),
                       (["--epochs", "1", "--seed", "7"], ("--seed is 7", "begun with 1")),
                       (["--epochs", "1", "--val", "0.3"], ("--val is 0.3", "begun with 0.1")),
                       (["--epochs", "1", "--data", other], ("--data is", other, data)),
                       (["--epochs", "1", "--from-scratch"], ("--from-scratch is true", "false"))):
        done = again(words(data, out, *more), 1)
        need(all(say in done.stderr for say in says), done.stderr)
        need(files_of(out) == before, more)


@case("pictures that come later do not move between training and test, and spoil no model")
def _():
    data = pictures("growing", 20)
    out, first = tune(data, "grown", "--epochs", "1")
    before = {name: read(os.path.join(out, name)) for name in ("train.txt", "val.txt", "test.txt",
                                                               "labels.txt")}
    pictures("growing", 30, seed=3)
    os.makedirs(os.path.join(data, "black"))
    shutil.copy(os.path.join(data, "cyan", "000.png"), os.path.join(data, "black"))
    done = again(words(data, out, "--epochs", "1"))
    need("3 classes; 42 pictures to train with" in done.stderr, done.stderr)
    need(before == {name: read(os.path.join(out, name)) for name in before})
    need(first.stdout == done.stdout, first.stdout, done.stdout)


@case("--out is a new folder, an empty one or a run, and nothing else is touched")
def _():
    data = pictures("mixed", 30)
    base = base_model()
    foreign = os.path.join(folder(), "foreign")
    shutil.copytree(base, foreign)
    for out, says in ((base, "is what --finetune names"), (data, "is what --data names"),
                      (foreign, "is no run of train --finetune")):
        before = files_of(out)
        done = again(words(data, out), 1)
        need(says in done.stderr and files_of(out) == before, done.stderr)
    empty = os.path.join(folder(), "empty")
    os.mkdir(empty)
    again(words(data, empty, "--epochs", "1"))
    need(os.path.exists(os.path.join(empty, "report.html")))


@case("what is refused leaves no folder behind")
def _():
    data = pictures("mixed", 30)
    one = os.path.join(folder(), "one")
    shutil.copytree(os.path.join(data, "cyan"), os.path.join(one, "cyan"), dirs_exist_ok=True)
    names = os.path.join(folder(), "names.txt")
    with open(names, "w") as file:
        file.write("a\nb\n")
    for more, says in ((["--precision", "f17"], "f17"), (["--labels", "/nothing"], "/nothing"),
                       (["--labels", names], "2 names; the data has 3 classes"),
                       (["--data", "/nothing"], "/nothing"), (["--data", one], "1 class"),
                       (["--frozen", "2"], "2 frozen layers")):
        out, done = tune(data, "typo", *more, status=1)
        need(says in done.stderr and not os.path.exists(out), done.stderr)


@case("a run that is over is tested and reported again, and not trained")
def _():
    data = pictures("mixed", 30)
    out, first = tune(data, "over", "--epochs", "2")
    report = json.loads(read(os.path.join(out, "report.json")))
    for name in ("report.html", "report.json"):
        os.remove(os.path.join(out, name))
    done = again(words(data, out, "--epochs", "2"))
    need("going on from" not in done.stderr and first.stdout == done.stdout, done.stderr)
    second = json.loads(read(os.path.join(out, "report.json")))
    need(second == report, report, second)
    # Killed before it could note that it was over, with the model not yet written.
    run_json = os.path.join(out, "run.json")
    kept = json.loads(read(run_json))
    del kept["trained"]
    with open(run_json, "w") as file:
        json.dump(kept, file)
    for name in ("report.html", "report.json", "deploy.prototxt"):
        os.remove(os.path.join(out, name))
    done = again(words(data, out, "--epochs", "2"))
    need(done.stdout == first.stdout, done.stdout, done.stderr)
    need(json.loads(read(os.path.join(out, "report.json")))["test"] == report["test"])


@case("a run that stopped early is not trained on")
def _():
    data = pictures("mixed", 30)
    more = ["--epochs", "60", "--patience", "1"]
    out, first = tune(data, "patient", *more)
    need("stopped early" in first.stderr, first.stderr)
    curve = json.loads(read(os.path.join(out, "report.json")))["curve"]
    done = again(words(data, out, *more))
    need("stopped early" not in done.stderr and "epoch" not in done.stderr.split("patience")[1]
         .split("\n", 1)[1], done.stderr)
    need(json.loads(read(os.path.join(out, "report.json")))["curve"] == curve)


@case("--help and a command without a model say how")
def _():
    done = subprocess.run([binary(), "train", "--finetune", "--help"], capture_output=True, text=True)
    need(done.returncode == 0 and done.stdout.startswith("Usage: saccade train --finetune"), done)
    done = subprocess.run([binary(), "train", "--finetune"], capture_output=True, text=True)
    need(done.returncode == 2 and "--finetune" in done.stderr, done)


@case("a run folder can be moved, and one that was killed goes on there")
def _():
    data = pictures("mixed", 30)
    out, _ = tune(data, "here", "--epochs", "2")
    there = os.path.join(folder(), "there")
    os.rename(out, there)
    kept = json.loads(read(os.path.join(there, "run.json")))
    del kept["trained"]
    with open(os.path.join(there, "run.json"), "w") as file:
        json.dump(kept, file)
    done = again(words(data, there, "--epochs", "2"))
    need("its files now say" in done.stderr and not os.path.exists(out), done.stderr)
    for name in ("solver.prototxt", "train_val.prototxt"):
        text = read(os.path.join(there, name)).decode()
        need('"%s/' % there in text and '"%s/' % out not in text, text)


def part(name, count, classes, seed):
    """A folder of some of the classes, perhaps with an empty one more."""
    base = os.path.join(folder(), name)
    every = pictures(name + "_all", count, seed)
    for word in classes:
        os.makedirs(os.path.join(base, word), exist_ok=True)
        if os.path.exists(os.path.join(every, word)):
            shutil.copytree(os.path.join(every, word), os.path.join(base, word), dirs_exist_ok=True)
    return base


@case("classes of parts are told by their names; a class that is not trained is refused")
def _():
    data = pictures("mixed", 30)
    val = part("some", 4, ["magenta", "yellow"], 5)  # no cyan: the numbers are others
    out, _ = tune(data, "named", "--epochs", "1", "--val-data", val)
    labels = {line.split()[0].split("/")[-2]: line.split()[1]
              for line in read(os.path.join(out, "val.txt")).decode().splitlines()}
    need(labels == {"magenta": "1", "yellow": "2"}, labels)
    strange = part("strange", 2, list(CLASSES), 6)
    os.rename(os.path.join(strange, "cyan"), os.path.join(strange, "azure"))
    out, done = tune(data, "strange_out", "--val-data", strange, status=1)
    need("class azure" in done.stderr and not os.path.exists(out), done.stderr)


@case("a folder with train and val inside is three parts, not two classes")
def _():
    base = os.path.join(folder(), "divided")
    for name, count, seed in (("train", 12, 1), ("val", 4, 7)):
        shutil.copytree(pictures("divided_" + name, count, seed), os.path.join(base, name))
    out, done = tune(base, "undivided", "--epochs", "1", "--test", "0")
    need("3 classes; 36 pictures to train with, 12 to validate, 0 to test" in done.stderr,
         done.stderr)
    need("validation pictures right" in done.stdout and "test pictures" not in done.stdout,
         done.stdout)
    report = json.loads(read(os.path.join(out, "report.json")))
    need(report["tested_on"] == "validation" and report["test_items"] == 0, report["tested_on"])


@case("what dataset create leaves is trained with, in LMDBs as well")
def _():
    made = os.path.join(folder(), "made")
    run("dataset", "create", "--size", "32x32", "--val", "20%", "--test", "20%",
        pictures("mixed", 30), made)
    out, done = tune(made, "from_lmdb", "--epochs", "1", "--decay", "0", "--log-json")
    need(all(line.startswith("{") for line in done.stderr.splitlines()), done.stderr)
    first = [e for e in map(json.loads, done.stderr.splitlines()) if e["event"] == "data"][0]
    need(first == {"event": "data", "classes": 3, "train": 54, "validation": 18, "test": 18}, first)
    need(read(os.path.join(out, "labels.txt")) == b"cyan\nmagenta\nyellow\n")
    need(b"weight_decay: 0\n" in read(os.path.join(out, "solver.prototxt")))


@case("what is reported is what the edited files say")
def _():
    data = pictures("mixed", 30)
    out, _ = tune(data, "rate", "--epochs", "1")
    solver = os.path.join(out, "solver.prototxt")
    text = read(solver).decode()
    with open(solver, "w") as file:
        file.write(text.replace("base_lr: 0.0005", "base_lr: 0.002"))
    again(words(data, out, "--epochs", "1"))
    report = json.loads(read(os.path.join(out, "report.json")))
    rate = [c for c in report["choices"] if c["name"] == "rate"][0]
    need(rate["value"] == "0.002" and "edited" in rate["why"], rate)


def has_snapshot(out):
    snapshots = os.path.join(out, "snapshots")
    return os.path.exists(snapshots) and any(name.endswith(".solverstate")
                                             for name in os.listdir(snapshots))


@case("a run that is killed goes on, and its curve has no gap")
def _():
    data = pictures("mixed", 30)
    out = os.path.join(folder(), "killed")
    process = subprocess.Popen(words(data, out, "--epochs", "80", "--patience", "80"),
                               stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not has_snapshot(out):
        need(time.monotonic() < deadline and process.poll() is None, "no snapshot")
        time.sleep(0.02)
    busy = again(words(data, out, "--epochs", "80", "--patience", "80"), 1)
    need("another process trains in it" in busy.stderr, busy.stderr)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = again(words(data, out, "--epochs", "80", "--patience", "80"))
    need("going on from" in done.stderr, done.stderr)
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
    main()
