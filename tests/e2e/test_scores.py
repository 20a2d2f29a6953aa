#!/usr/bin/env python3
"""What `saccade test` prints is what the net's own layers give, as `train`'s tests are; its
weights and means are found where Caffe's users have them. A small net over pictures made
here."""
import json
import os
import re
import shutil
import struct
import subprocess

import training
from harness import binary, case, folder, main, need, png, Skip

# Without `display`: Caffe's last one is a forward pass in training between the snapshot and
# the last test, and BatchNorm's statistics follow it.
WHOLE = "max_iter: 2 test_iter: 8 test_interval: 2 test_initialization: false\n"


def done(base, *words, status=0):
    out = subprocess.run([binary()] + list(words), cwd=base, stdin=subprocess.DEVNULL,
                         capture_output=True, text=True, timeout=300)
    need(out.returncode == status, words, out.returncode, out.stdout, out.stderr)
    return out


def trained(name, more, head=None):
    """A folder with a run of two iterations whose last test went over all pictures once;
    `head` takes the place of the net's last two layers. The folder and the test's lines."""
    base = training.place(name, more)
    if head:
        with open(os.path.join(base, "net.prototxt"), "w") as file:
            file.write(training.NET[:training.NET.index('layer { name: "acc"')] + head)
    log = training.finish(base, "--out", "none")
    return base, [(n, float(v)) for n, v in re.findall(r"Test net output #\d+: (\S+) = (\S+)", log)]


def scores(base, *words):
    """The lines behind "Loss:", and what that says."""
    out = done(base, "test", "--net", "net.prototxt", "--weights", "small_iter_2.caffemodel",
               "--data", "data.bin", "--precision", "f32", *words)
    loss = float(re.search(r"^Loss: (\S+)$", out.stdout, re.M).group(1))
    lines = out.stdout[out.stdout.index("Loss: "):].split("\n\n")[0].splitlines()[1:]
    return [(n, float(v)) for n, v in re.findall(r"^(\S+) = (\S+)", "\n".join(lines), re.M)], \
        loss, out


def agree(ours, theirs):
    need([n for n, _ in ours] == [n for n, _ in theirs], ours[:9], theirs[:9])
    for (name, a), (_, b) in zip(ours, theirs):
        need(abs(a - b) <= 2e-5 * max(1, abs(b)), name, a, b)


# The expected values are those of the trainer's own test, over the same pictures.

@case("test prints what the trainer's test printed, smoothed labels and weights of losses too")
def _():
    base, theirs = trained("smooth", WHOLE, """
        layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc" }
        layer { name: "p" type: "Power" bottom: "acc" top: "error"
          power_param { scale: -1 shift: 1 } include { phase: TEST } }
        layer { name: "sum" type: "Eltwise" bottom: "fc" bottom: "fc" top: "sum"
          loss_weight: 0.001 }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss"
          loss_weight: 3 loss_param { label_smoothing: 0.3 } }
        """)
    need(len(theirs) == 2 + 32 * 4 and theirs[0][0] == "error", theirs[:4])
    ours, loss, out = scores(base)
    agree(ours, theirs)
    weighted = sum(v * {"error": 0, "loss": 3, "sum": 0.001}[n] for n, v in theirs)
    need(abs(loss - weighted) < 1e-4 * abs(weighted), loss, weighted)
    need("256 items, 4 classes" in out.stdout, out.stdout[-900:])
    report = json.loads(done(base, "test", "--json", "--net", "net.prototxt", "--weights",
                             "small_iter_2.caffemodel", "--data", "data.bin").stdout)
    need(len(report["outputs"]["sum"]) == 128 and
         abs(report["outputs"]["error"] - (1 - report["top1"])) < 1e-6, report["top1"])
    need(abs(report["weighted_loss"] - loss) < 1e-4, report["weighted_loss"], loss)


@case("labels that went through a layer are scored, and the report is left out by a sentence")
def _():
    base, theirs = trained("through", WHOLE, """
        layer { name: "p" type: "Power" bottom: "label" top: "same" }
        layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "same" top: "acc" }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "same" top: "loss" }
        """)
    ours, loss, out = scores(base)
    agree(ours, theirs)
    need(abs(loss - dict(theirs)["loss"]) < 2e-5, loss)
    need("no report on classes: layer \"acc\" (Accuracy): its labels, \"same\"" in out.stderr,
         out.stderr)
    need("classes" not in out.stdout, out.stdout)
    done(base, "test", "--net", "net.prototxt", "--weights", "small_iter_2.caffemodel", "--data",
         "data.bin", "--predictions", "p.jsonl", status=1)


@case("a last batch that is smaller is judged by what is in it")
def _():
    base, _ = trained("partial", WHOLE)
    whole, loss, _ = scores(base)
    parts, part_loss, _ = scores(base, "--batch", "100")
    agree(parts, whole)
    need(abs(loss - part_loss) < 2e-5, loss, part_loss)


@case("weights in HDF5 are read by test, time, classify and a model directory as binary ones")
def _():
    base = training.place("hdf5", WHOLE)
    done(base, "train", "--solver", "solver.prototxt", "--data", "data.bin", "--test-data",
         "data.bin", "--out", "model")
    h5 = training.place("hdf5-too", WHOLE + "snapshot_format: HDF5\n")
    log = training.finish(h5, "--out", "none")
    if not os.path.exists(os.path.join(h5, "small_iter_2.caffemodel.h5")):
        raise Skip("built without HDF5: " + log)
    shutil.copy(os.path.join(h5, "small_iter_2.caffemodel.h5"), base)
    reports = []
    for end in ("", ".h5"):
        words = ["--net", "net.prototxt", "--weights", "small_iter_2.caffemodel" + end]
        report = json.loads(done(base, "test", "--json", *words, "--data", "data.bin").stdout)
        del report["seconds"]
        reports.append(report)
    need(reports[0] == reports[1], reports)
    done(base, "time", "--net", "model/deploy.prototxt", "--weights",
         "small_iter_2.caffemodel.h5", "--iterations", "1")
    picture = os.path.join(base, "a.png")
    with open(picture, "wb") as file:
        file.write(png(28, 28, bytes(range(98)) * 24))
    said = [done(base, "classify", "--json", "--model", "model", picture).stdout]
    for name in os.listdir(os.path.join(base, "model")):
        if name.endswith(".caffemodel"):
            os.remove(os.path.join(base, "model", name))
    shutil.copy(os.path.join(h5, "small_iter_2.caffemodel.h5"), os.path.join(base, "model"))
    said.append(done(base, "classify", "--json", "--model", "model", picture).stdout)
    need(said[0] == said[1] and "confidence" in said[0], said)
    with open(os.path.join(base, "cut.h5"), "wb") as cut, \
            open(os.path.join(h5, "small_iter_2.caffemodel.h5"), "rb") as whole:
        cut.write(whole.read()[:3000])
    bad = done(base, "test", "--net", "net.prototxt", "--weights", "cut.h5", "--data", "data.bin",
               status=1)
    need("cut.h5: " in bad.stderr and len(bad.stderr.strip().splitlines()) == 1, bad.stderr)


@case("of several files of weights one may have no layer of the net, but not all")
def _():
    base, _ = trained("several", WHOLE)
    with open(os.path.join(base, "net.prototxt")) as file:
        text = file.read()
    with open(os.path.join(base, "other.prototxt"), "w") as file:
        file.write(re.sub(r'name: "(\w+)" type', r'name: "my-\1" type', text))
    with open(os.path.join(base, "solver.prototxt")) as file:
        solver = file.read().replace("net.prototxt", "other.prototxt")
    with open(os.path.join(base, "other_solver.prototxt"), "w") as file:
        file.write(solver.replace('snapshot_prefix: "small"', 'snapshot_prefix: "other"'))
    done(base, "train", "--solver", "other_solver.prototxt", "--data", "data.bin", "--test-data",
         "data.bin", "--out", "none")
    alone = scores(base)[0]
    both = done(base, "test", "--net", "net.prototxt", "--weights",
                "small_iter_2.caffemodel,other_iter_2.caffemodel", "--data", "data.bin", "--precision", "f32")
    need("other_iter_2.caffemodel: no layer of net.prototxt is in it" in both.stderr, both.stderr)
    need("loss = %g " % dict(alone)["loss"] in both.stdout, alone, both.stdout[-500:])
    bad = done(base, "test", "--net", "net.prototxt", "--weights", "other_iter_2.caffemodel",
               "--data", "data.bin", status=1)
    need("not this net's weights" in bad.stderr, bad.stderr)


def mean_of(channels, side, value):
    """A BlobProto: num, channels, height, width, data."""
    numbers = struct.pack("<f", value) * (channels * side * side)
    size, head = len(numbers), b""
    while size > 127:
        head, size = head + bytes([size & 127 | 128]), size >> 7
    return bytes([8, 1, 16, channels, 24, side, 32, side, 0x2a]) + head + bytes([size]) + numbers


@case("a mean file is looked for beside the prototxt too, and one that does not fit is named")
def _():
    base, plain = trained("mean", WHOLE)
    path = os.path.join(base, "net.prototxt")
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text.replace("mean_value: 128", 'mean_file: "examples/far/away.binaryproto"'))
    with open(os.path.join(base, "away.binaryproto"), "wb") as file:
        file.write(mean_of(3, 32, 128))
    elsewhere = os.path.join(folder(), "elsewhere")
    os.makedirs(elsewhere)
    words = ["test", "--precision", "f32", "--net", path, "--weights", os.path.join(base, "small_iter_2.caffemodel"),
             "--data", os.path.join(base, "data.bin")]
    out = done(elsewhere, *words)
    for name, value in plain:
        found = float(re.search(r"^%s = (\S+)" % name, out.stdout, re.M).group(1))
        need(abs(found - value) < 2e-5, name, found, value)
    training.finish(base, "--out", "none")
    with open(os.path.join(base, "away.binaryproto"), "wb") as file:
        file.write(mean_of(3, 30, 128))
    bad = done(elsewhere, *words, status=1)
    need("away.binaryproto" in bad.stderr and "3 × 30 × 30" in bad.stderr, bad.stderr)
    os.remove(os.path.join(base, "away.binaryproto"))
    need("examples/far/away.binaryproto" in done(elsewhere, *words, status=1).stderr)


@case("time --backward opens the data layer's own source, and says so where there is none")
def _():
    base = training.place("time", WHOLE)
    words = ["time", "--net", "net.prototxt", "--backward", "--iterations", "2", "--json"]
    bad = done(base, *words, status=1)
    need("layer \"in\"" in bad.stderr and "none" in bad.stderr and "--data" in bad.stderr,
         bad.stderr)
    fed = json.loads(done(base, *words, "--data", "data.bin").stdout)
    read_list(base)
    own = json.loads(done(base, *words).stdout)
    need([s["name"] for s in own["steps"]] == [s["name"] for s in fed["steps"]], own["steps"])


def read_list(base):
    """The data layer reads a list of pictures made here."""
    with open(os.path.join(base, "list.txt"), "w") as listed:
        for i in range(20):
            path = os.path.join(base, "%d.png" % i)
            with open(path, "wb") as file:
                file.write(png(32, 32, bytes([i] * 3072)))
            listed.write("%s %d\n" % (path, i % 4))
    path = os.path.join(base, "net.prototxt")
    with open(path) as file:
        text = file.read()
    text = text.replace('type: "Data"', 'type: "ImageData"')
    text = re.sub(r'data_param \{ source: "none" batch_size: (\d+) backend: LMDB \}',
                  r'image_data_param { source: "list.txt" batch_size: \1 }', text)
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main()
