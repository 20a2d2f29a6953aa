#!/usr/bin/env python3
"""`saccade test` from outside: published accuracies, sources, agreement with classify."""
import json
import lzma
import os
import shutil
import subprocess

from harness import binary, case, data, folder, main, need, png, read, ROOT, run, Skip, squeezenet

MODELS = "cifar10_models/"
MEAN = MODELS + "cifar10_mean.binaryproto"
FULL = ("cifar10_full_train_test.prototxt", "cifar10_full_iter_70000.caffemodel")
QUICK = ("cifar10_quick_train_test.prototxt", "cifar10_quick_iter_5000.caffemodel")


def cifar(records=None):
    """CIFAR-10's test set as its binary file, or its first records, names beside it."""
    base = os.path.join(folder(), "cifar")
    path = os.path.join(base, "test.bin" if records is None else "first%d.bin" % records)
    if not os.path.exists(path):
        packed = data("cifar10/test.bin.xz")
        os.makedirs(base, exist_ok=True)
        shutil.copy(data("cifar10/class_names.txt"), base)
        content = lzma.decompress(read(packed))
        with open(path, "wb") as file:
            file.write(content if records is None else content[:records * 3073])
    return path


def net(names):
    return ["--net", data(MODELS + names[0]), "--weights", data(MODELS + names[1]),
            "--mean", data(MEAN)]


def report(*words):
    return json.loads(run("test", "--json", *words))


def written(name, text):
    path = os.path.join(folder(), name)
    with open(path, "w") as file:
        file.write(text)
    return path


def refused(status, part, *words):
    done = subprocess.run([binary(), "test"] + list(words), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=600)
    need(done.returncode == status and part in done.stderr, words, done)
    if status == 1:
        need(len(done.stderr.strip().splitlines()) == 1, done.stderr)
    return done


# The accuracies and the loss are those that were published with the weights.

@case("cifar10_full's weights of iteration 70000 give 0.8211")
def _():
    out = report(*net(FULL), "--data", cifar())
    need("%.4f" % out["outputs"]["accuracy"] == "0.8211", out["outputs"])
    need(out["items"] == 10000 and abs(out["top1"] - out["outputs"]["accuracy"]) < 1e-6, out["top1"])
    need(abs(out["loss"] - out["outputs"]["loss"]) < 1e-6, out["loss"], out["outputs"])
    need([sum(row) for row in out["confusion"]] == [1000] * 10, out["confusion"])
    need(sum(out["confusion"][i][i] for i in range(10)) == 8211)
    need([c["name"] for c in out["classes"]] ==
         read(data("cifar10/class_names.txt")).decode().split(), out["classes"])
    need(sum(b["items"] for b in out["calibration"]["bins"]) == 10000)


@case("a set that was converted gives the accuracy of the original")
def _():
    base, source = os.path.join(folder(), "converted"), cifar(1000)
    os.makedirs(base)
    first = report(*net(FULL), "--data", source)
    for kind, name in (("lmdb", "a"), ("hdf5", "b.h5")):
        out = os.path.join(base, name)
        run("dataset", "convert", "--to", kind, source, out)
        there = report(*net(FULL), "--data", out)
        need(there["outputs"] == first["outputs"], name, there["outputs"], first["outputs"])
        need(there["confusion"] == first["confusion"], name)
        source = out


@case("cifar10_quick's weights of iteration 5000 give 0.7491 and the loss 0.7482")
def _():
    out = report(*net(QUICK), "--data", cifar())
    need("%.4f" % out["outputs"]["accuracy"] == "0.7491", out["outputs"])
    need("%.4f" % out["outputs"]["loss"] == "0.7482", out["outputs"])


@case("ResNet-20's weights give 0.9223")
def _():
    out = report("--net", data(MODELS + "resnet20/test_ResNet_20.prototxt"), "--weights",
                 data(MODELS + "resnet20/cifar10_ResNet_20_iter_53500.caffemodel"), "--data",
                 cifar())
    need("%.4f" % out["outputs"]["prob"] == "0.9223", out["outputs"])


@case("the default model is as its own report says, and its classes are the data's")
def _():
    model = os.path.join(ROOT, "models", "cifar10")
    said = json.loads(read(os.path.join(model, "test.json")))
    out = report("--model", model, "--data", cifar())
    need(abs(out["top1"] - said["top1"]) <= 0.0005 and out["top1"] >= 0.935, out["top1"])
    need([c["name"] for c in out["classes"]] ==
         read(data("cifar10/class_names.txt")).decode().split(), out["classes"])
    need(os.path.getsize(os.path.join(model, "cifar10.caffemodel")) <= 8 << 20)


@case("text ends in Caffe's lines and the report")
def _():
    out = run("test", *net(QUICK), "--data", cifar(250)).decode()
    lines = out.splitlines()
    batches = [l.split(" = ") for l in lines if l.startswith("Batch ")]
    need([b[0] for b in batches] == ["Batch %d, %s" % (i, n) for i in range(3)
                                     for n in ("accuracy", "loss")], batches)
    values = [float(b[1]) for b in batches]
    whole = report(*net(QUICK), "--data", cifar(250))
    # Three batches of 100, 100 and 50, the last partial.
    for name, at in (("accuracy", 0), ("loss", 1)):
        mean = (100 * values[at] + 100 * values[at + 2] + 50 * values[at + 4]) / 250
        need(abs(mean - whole["outputs"][name]) < 1e-5, name, mean, whole["outputs"])
    accuracy, loss = whole["outputs"]["accuracy"], whole["outputs"]["loss"]
    need("accuracy = %g" % accuracy in lines, lines[-90:])
    need("loss = %g (* 1 = %g loss)" % (loss, loss) in lines and "Loss: %g" % loss in lines)
    need("250 items, 10 classes" in lines, lines)


@case("the answer does not depend on the number of workers")
def _():
    words = net(FULL) + ["--data", cifar(1050), "--deterministic"]
    one, two = (report(*words, "--workers", n) for n in ("1", "5"))
    del one["seconds"], two["seconds"]
    need(one == two, one["outputs"], two["outputs"])


@case("iterations stop it, and another batch size changes nothing but the batches")
def _():
    out = report(*net(QUICK), "--data", cifar(1000), "--iterations", "3")
    need(out["items"] == 300 and out["batches"] == 3, out["items"], out["batches"])
    whole = report(*net(QUICK), "--data", cifar(1000))
    other = report(*net(QUICK), "--data", cifar(1000), "--batch", "64")
    need(other["batches"] == 16 and whole["batches"] == 10, other["batches"])
    need(other["confusion"] == whole["confusion"])
    need(abs(other["loss"] - whole["loss"]) < 1e-5, other["loss"], whole["loss"])


@case("a deploy prototxt takes its mean from flags and agrees with train_test")
def _():
    whole = report(*net(QUICK), "--data", cifar(1000))
    deploy = report("--net", data(MODELS + "cifar10_quick.prototxt"), "--weights",
                    data(MODELS + QUICK[1]), "--mean", data(MEAN), "--data", cifar(1000))
    need(deploy["confusion"] == whole["confusion"], deploy["top1"], whole["top1"])
    need(abs(deploy["loss"] - whole["loss"]) < 1e-5, deploy["loss"], whole["loss"])


def cifar_list(count):
    """The first pictures as PNGs and a list of them. Caffe's CIFAR nets took planes R,
    G, B, and pictures become B, G, R: the PNGs have red and blue swapped."""
    content = read(cifar(1000))
    lines = []
    for i in range(count):
        record = content[i * 3073:(i + 1) * 3073]
        red, green, blue = record[1:1025], record[1025:2049], record[2049:3073]
        path = os.path.join(folder(), "cifar-%d.png" % i)
        with open(path, "wb") as file:
            file.write(png(32, 32, bytes(v for pixel in zip(blue, green, red) for v in pixel)))
        lines.append("%s %d\n" % (path, record[0]))
    return written("cifar.txt", "".join(lines))


@case("a list of the same pictures gives the same, whatever the data layer was")
def _():
    of_list = report(*net(QUICK), "--data", cifar_list(100))
    of_file = report(*net(QUICK), "--data", cifar(100))
    need(of_list["confusion"] == of_file["confusion"] and of_list["loss"] == of_file["loss"],
         of_list["loss"], of_file["loss"])


@case("without --data the net's own source is gone round for 50 batches, as Caffe does")
def _():
    text = read(data(MODELS + QUICK[0])).decode()
    layers = text.split("layers {")
    need("phase: TEST" in layers[2] and "DATA" in layers[2], layers[2])
    layers[2] = """ name: "d" type: IMAGE_DATA top: "data" top: "label"
        image_data_param { source: "%s" batch_size: 7 } include: { phase: TEST }
        transform_param { mean_file: "%s" } }
        """ % (cifar_list(100), data(MEAN))
    proto = written("own.prototxt", "layers {".join(layers))
    lines_file = os.path.join(folder(), "round.jsonl")
    out = report("--net", proto, "--weights", data(MODELS + QUICK[1]), "--predictions", lines_file)
    lines = [json.loads(line) for line in read(lines_file).splitlines()]
    need(out["items"] == 350 and out["batches"] == 50, out["items"], out["batches"])
    need([line["index"] for line in lines] == [i % 100 for i in range(350)])
    right = sum(line["class"] == line["predicted"] for line in lines)
    need(abs(out["outputs"]["accuracy"] - right / 350) < 1e-6, out["outputs"], right)
    need(lines[100]["predictions"] == lines[0]["predictions"], lines[0], lines[100])
    other = written("other.prototxt", "layers {".join(layers).replace('name: "', 'name: "my-'))
    refused(1, "not this net's weights", "--net", other, "--weights", data(MODELS + QUICK[1]))


def samples_list():
    """(list file, classes) of the 80 samples, labelled by their WNIDs."""
    base = data("imagenet_samples")
    wnids = [line.split()[0] for line in read(data("ilsvrc12/synset_words.txt")).decode()
             .splitlines()]
    names = sorted(os.listdir(base))
    classes = [wnids.index(name.split("_")[0]) for name in names]
    text = "".join("%s %d\n" % (os.path.join(base, n), c) for n, c in zip(names, classes))
    return written("samples.txt", text), classes


@case("test and classify agree to the picture by one model.json")
def _():
    path, classes = samples_list()
    out_file = os.path.join(folder(), "predictions.jsonl")
    out = report("--model", squeezenet(), "--data", path, "--predictions", out_file)
    tested = [json.loads(line) for line in read(out_file).splitlines()]
    named = [json.loads(line) for line in run("classify", "--json", "--model", squeezenet(),
                                              path).splitlines()]
    need(len(tested) == len(named) == out["items"] == 80, len(tested), len(named))
    for a, b in zip(tested, named):
        need(a["file"] == b["file"] and a["predictions"] == b["predictions"], a, b)
    need([t["class"] for t in tested] == classes)
    labels = read(data("ilsvrc12/synset_words.txt")).decode().splitlines()
    right = sum(n["predictions"][0]["label"] == labels[c] for n, c in zip(named, classes))
    need(round(out["top1"] * 80) == right, out["top1"], right)
    right5 = sum(labels[c] in [p["label"] for p in n["predictions"]]
                 for n, c in zip(named, classes))
    need(round(out["topk"] * 80) == right5, out["topk"], right5)


@case("folders that are named after classes are those classes")
def _():
    path, classes = samples_list()
    whole = report("--model", squeezenet(), "--data", path)
    base = os.path.join(folder(), "by-wnid")
    for line in read(path).decode().splitlines():
        picture = line.rsplit(" ", 1)[0]
        name = os.path.basename(picture)
        os.makedirs(os.path.join(base, name.split("_")[0]))
        os.symlink(picture, os.path.join(base, name.split("_")[0], name))
    out = report("--model", squeezenet(), "--data", base)
    need(out["items"] == 80 and out["top1"] == whole["top1"] and out["topk"] == whole["topk"],
         out["top1"], whole["top1"])
    os.rename(os.path.join(base, sorted(os.listdir(base))[7]), os.path.join(base, "fish"))
    refused(1, "no class that is called \"fish\"", "--model", squeezenet(), "--data", base)


@case("a model directory over CIFAR's file gives what its net gives")
def _():
    base = os.path.join(folder(), "quick")
    os.makedirs(base)
    shutil.copy(data(MODELS + "cifar10_quick.prototxt"), os.path.join(base, "deploy.prototxt"))
    shutil.copy(data(MODELS + QUICK[1]), base)
    shutil.copy(data(MEAN), os.path.join(base, "mean.binaryproto"))
    shutil.copy(data("cifar10/class_names.txt"), os.path.join(base, "labels.txt"))
    # Caffe's CIFAR nets take the planes as the file has them: R, G, B.
    with open(os.path.join(base, "model.json"), "w") as file:
        json.dump({"preprocess": {"mean": "image", "channels": "rgb"}}, file)
    model = report("--model", base, "--data", cifar(1000))
    whole = report(*net(QUICK), "--data", cifar(1000))
    need(model["confusion"] == whole["confusion"], model["top1"], whole["top1"])
    need(abs(model["loss"] - whole["loss"]) < 1e-5, model["loss"], whole["loss"])


@case("a corrupt picture is counted, named and skipped; a missing one is an error")
def _():
    path, _ = samples_list()
    bad = written("bad.jpg", "this is no picture")
    lines = read(path).decode().splitlines()[:3]
    listed = written("bad.txt", "\n".join([lines[0], bad + " 5", lines[1]]) + "\n")
    done = subprocess.run([binary(), "test", "--json", "--model", squeezenet(), "--data", listed],
                          capture_output=True, text=True, timeout=600)
    need(done.returncode == 0, done)
    out = json.loads(done.stdout)
    need(out["items"] == 2 and out["corrupt"] == 1, out["items"], out["corrupt"])
    need(done.stderr.count("bad.jpg") == 1, done.stderr)
    gone = written("gone.txt", lines[0] + "\n/no/such/picture.jpg 3\n")
    refused(1, "/no/such/picture.jpg", "--model", squeezenet(), "--data", gone)


@case("what cannot be meant is one sentence")
def _():
    path, _ = samples_list()
    wrong = written("label.txt", read(path).decode().splitlines()[0].rsplit(" ", 1)[0] + " 1000\n")
    refused(1, "label 1000; expected 0 to 999", "--model", squeezenet(), "--data", wrong)
    refused(1, "none.txt", "--model", squeezenet(), "--data", "/no/none.txt")
    refused(1, "LEVELDB", *net(FULL))
    refused(1, "examples/cifar10/mean.binaryproto", "--net", data(MODELS + FULL[0]), "--weights",
            data(MODELS + FULL[1]), "--data", cifar(100))
    refused(1, "--resize", *net(FULL), "--data", cifar(100), "--resize", "short")
    refused(1, "--mean", "--net", data(MODELS + FULL[0]), "--weights", data(MODELS + FULL[1]),
            "--data", cifar(100), "--mean", "1,2,")
    refused(1, "--data", "--net", data(MODELS + "cifar10_quick.prototxt"), "--weights",
            data(MODELS + QUICK[1]))
    refused(1, "expected auto, f32, tf32, f16 or bf16", *net(FULL), "--data", cifar(100), "--precision", "f8")


@case("the command line says how it wants to be called")
def _():
    need(b"Example: saccade test" in run("test", "--help"))
    refused(2, "expected --net PROTOTXT or one --model DIR")
    refused(2, "needs --weights", "--net", "x.prototxt")
    refused(2, "needs --data", "--model", "x")
    refused(2, "goes with --net", "--model", "x", "--data", "y", "--iterations", "3")
    refused(2, "--batch", "--net", "x", "--weights", "y", "--batch", "0")


@case("bf16 is within a percent of fp32")
def _():
    words = net(QUICK)
    if "bf16" not in json.loads(run("devices", "--json"))[0]["precisions"]:
        raise Skip("no bf16 here")
    whole = report(*words, "--data", cifar(1000))
    half = report(*net(QUICK), "--data", cifar(1000), "--precision", "bf16")
    need(abs(half["top1"] - whole["top1"]) <= 0.01, half["top1"], whole["top1"])


if __name__ == "__main__":
    main()
