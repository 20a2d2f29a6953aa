"""`saccade quantize`, and int8 in the commands that answer. SqueezeNet v1.1 with its
published weights; the 80 samples are labelled by their WNIDs."""
import json
import os
import shutil
import subprocess

from harness import binary, case, data, folder, main, need, read, run, Server, Skip, squeezenet


def devices():
    return json.loads(run("devices", "--json"))[0]["precisions"]


def need_int8():
    if "int8" not in devices():
        raise Skip("no int8 on this CPU")


def samples():
    """A list file of the samples with their classes."""
    path = os.path.join(folder(), "samples.txt")
    base = data("imagenet_samples")
    wnids = [line.split()[0] for line in read(data("ilsvrc12/synset_words.txt")).decode()
             .splitlines()]
    with open(path, "w") as file:
        for name in sorted(os.listdir(base)):
            print(os.path.join(base, name), wnids.index(name.split("_")[0]), file=file)
    return path


def fresh(name):
    """A copy of the model directory that may be written to."""
    path = os.path.join(folder(), name)
    if not os.path.isdir(path):
        shutil.copytree(squeezenet(), path, symlinks=True)
    return path


def refused(part, *words, status=1):
    done = subprocess.run([binary(), *words], stdin=subprocess.DEVNULL, capture_output=True)
    need(done.returncode == status, words, done.returncode, done.stderr)
    need(part in done.stderr.decode(), part, "is not in", done.stderr.decode())


def first_labels(*words):
    """{file: label} of classify."""
    lines = run("classify", "--json", *words, data("imagenet_samples")).splitlines()
    return {answer["file"]: answer["predictions"][0]["label"] for answer in map(json.loads, lines)}


def quantized():
    """A model directory that flowers have calibrated: nothing of the samples is in it."""
    need_int8()
    path = os.path.join(folder(), "quantized")
    if not os.path.isdir(path):
        run("quantize", squeezenet(), "--data", data("flowers17"), "--check", "100", "--out", path)
    return path


@case("int8 is refused where nothing was calibrated")
def _():
    need_int8()
    refused("saccade quantize", "classify", "--model", squeezenet(), "--precision", "int8", data("images/cat.jpg"))
    refused("saccade quantize", "serve", "--model", squeezenet(), "--precision", "int8")
    refused("saccade quantize", "test", "--net", data("squeezenet_v1.1/train_val.prototxt"),
            "--weights", data("squeezenet_v1.1/squeezenet_v1.1.caffemodel"), "--precision", "int8")


@case("top 1 of the samples in int8 is within one picture of f32, calibrated on other pictures")
def _():
    path, listed = quantized(), samples()
    whole = json.loads(run("test", "--json", "--model", path, "--data", listed, "--precision",
                           "f32"))
    eight = json.loads(run("test", "--json", "--model", path, "--data", listed, "--precision",
                           "int8"))
    print("# top 1 of 80: %.0f in f32, %.0f in int8" % (80 * whole["top1"], 80 * eight["top1"]))
    need(abs(80 * eight["top1"] - 80 * whole["top1"]) <= 1.001, eight["top1"], whole["top1"])


@case("int8's first labels are f32's for nine pictures in ten, and it is in 8 bits")
def _():
    path = quantized()
    whole, eight = (first_labels("--model", path, "--precision", p) for p in ("f32", "int8"))
    same = sum(whole[name] == eight[name] for name in whole)
    need(len(whole) == 80 and same >= 72, same)


@case("the report counts what classify says, and auto follows it")
def _():
    need_int8()
    path = fresh("reported")
    out = json.loads(run("quantize", path, "--data", samples(), "--json"))
    need(out["calibrated"] == 20 and out["checked"] == out["labelled"] == 60, out)
    need(out["f32"]["agree"] == 60 and 0.5 < out["f32"]["top1"] / 60 < 0.8, out)
    kept = json.loads(read(os.path.join(path, "precision.json")))
    need(kept["int8"]["agree"] == out["int8"]["agree"], kept["int8"])
    need(kept["int8"]["ranges"]["pool10"][0] == 0, kept["int8"]["ranges"])
    need(kept["int8"]["ranges"]["data"][0] < 0, kept["int8"]["ranges"])
    need(out["auto"] == ("bf16" if out["bf16"]["agree"] >= 59 else "f32"), out)
    with Server("--model", path, model=False) as server:
        models = server.get("/api/models").content.decode()
        need('"precision":"%s"' % out["auto"] in models, models)
        need(any(" in %s: " % out["auto"] in line for line in server.lines), server.lines)


@case("ranges of other weights are refused")
def _():
    path = quantized()
    other = os.path.join(folder(), "other")
    shutil.copytree(path, other)
    name = next(n for n in os.listdir(other) if n.endswith(".caffemodel"))
    with open(os.path.join(other, name), "r+b") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    refused("other weights", "classify", "--model", other, "--precision", "int8", data("images/cat.jpg"))


@case("a server answers in int8, and says so")
def _():
    path = quantized()
    picture = read(data("images/cat.jpg"))
    with Server("--model", path, "--precision", "int8", model=False) as server:
        answer = server.classify(picture)
        need(answer.status == 200 and "cat" in json.loads(answer.content)[0]["label"],
             answer.content)
        need(b'"precision":"int8"' in server.get("/api/models").content)


@case("the command line says how it wants to be called")
def _():
    need(b"Example: saccade quantize" in run("quantize", "--help"))
    refused("expected one model directory", "quantize", "--data", "x", status=2)
    refused("expected --data", "quantize", "x", status=2)
    refused("expected mse or max", "quantize", "x", "--data", "y", "--rule", "luck", status=2)
    refused("are compared", "quantize", "x", "--data", "y", "--precision", "int8", status=2)
    need_int8()
    one = os.path.join(folder(), "one")
    os.mkdir(one)
    shutil.copy(data("images/cat.jpg"), one)
    refused("to calibrate and one to check", "quantize", squeezenet(), "--data", one)


if __name__ == "__main__":
    main()
