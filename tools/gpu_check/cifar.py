"""The CIFAR net of Caffe's examples (quick; no dropout), trained on several devices from the
same seeds: its data, its solver, and how far the accuracies lie apart. Rounding alone moves one
run's accuracy by half a point (on a CPU 58.4 % with one thread, 57.8 % with two, after 600
iterations), so that means over several seeds are compared, and what chance does stands beside."""
import collections
import json
import lzma
import os
import re
import statistics

NET = "cifar10_models/cifar10_quick_train_test.prototxt"
MEAN = "cifar10_models/cifar10_mean.binaryproto"
RECORD, TRAIN, TEST = 3073, 4000, 3000
WAYS = (("cpu", "f32"), ("cuda:0", "f32"), ("cuda:0", "f16"))
Size = collections.namedtuple("Size", "train test batch iterations seeds")
USUAL = Size(TRAIN, TEST, 100, 1000, 5)
SMALL = Size(40, 20, 4, 5, 1)  # for the simulator
# The rate falls in the last fifth, so that where a run ends depends less on chance.
SOLVER = """net: "net.prototxt" base_lr: 0.001 momentum: 0.9 weight_decay: 0.004
lr_policy: "multistep" stepvalue: %d gamma: 0.1 max_iter: %d test_iter: %d test_interval: %d
test_initialization: false snapshot_after_train: false snapshot_prefix: "quick"
"""


def take(folder, name, count, target):
    """`count` records of NAME.bin, or NAME.bin.xz, evenly from all."""
    path = os.path.join(folder, name + ".bin")
    with open(path, "rb") if os.path.exists(path) else lzma.open(path + ".xz") as file:
        data = file.read()
    there = len(data) // RECORD
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "wb") as file:
        for i in range(min(count, there)):
            at = i * there // min(count, there) * RECORD
            file.write(data[at:at + RECORD])


def prepare(data, folder, size):
    """A folder with all that `words` name."""
    for name, count in (("train", size.train), ("test", size.test)):
        take(os.path.join(data, "cifar10"), name, count, os.path.join(folder, name + ".bin"))
    with open(os.path.join(data, NET)) as file:
        net = re.sub(r"batch_size: \d+", "batch_size: %d" % size.batch, file.read())
    net = net.replace("examples/cifar10/mean.binaryproto", os.path.abspath(os.path.join(data, MEAN)))
    with open(os.path.join(folder, "net.prototxt"), "w") as file:
        file.write(net)
    with open(os.path.join(folder, "solver.prototxt"), "w") as file:
        file.write(SOLVER % (size.iterations * 4 // 5, size.iterations, size.test // size.batch,
                             size.iterations))
    return folder


def words(folder, device, precision, seed):
    return ["train", "--solver", os.path.join(folder, "solver.prototxt"), "--data",
            os.path.join(folder, "train.bin"), "--test-data", os.path.join(folder, "test.bin"),
            "--device", device, "--precision", precision, "--seed", str(seed), "--out", "none",
            "--log-json"]


def read(text, device, precision, seed):
    """One run, by its last test and its end."""
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    tests = [event for event in events if event["event"] == "test"]
    accuracy = [o["value"] for o in tests[-1]["outputs"] if o["name"] == "accuracy"]
    return {"device": device, "precision": precision, "seed": seed, "accuracy": accuracy[0],
            "seconds": round(events[-1]["seconds"], 2)}


def seconds_of(runs, device, precision):
    return max([row["seconds"] for row in runs
                if (row["device"], row["precision"]) == (device, precision)] or [0])


def chance(points):
    """The standard error of a mean of differences; None: of one it is not known."""
    return round(statistics.stdev(points) / len(points) ** 0.5, 3) if len(points) > 1 else None


def judge(runs):
    """Means over the seeds that all have run, and their distance from the CPU's in points."""
    by = {(row["device"], row["precision"], row["seed"]): row["accuracy"] for row in runs}
    seeds = [seed for seed in sorted({row["seed"] for row in runs})
             if all((*way, seed) in by for way in WAYS)]
    result = {"runs": runs, "seeds": len(seeds)}
    if seeds:
        apart = {way[1]: [100 * (by[(*way, seed)] - by[(*WAYS[0], seed)]) for seed in seeds]
                 for way in WAYS[1:]}
        result["accuracy"] = {" ".join(way): round(statistics.mean(
            by[(*way, seed)] for seed in seeds), 5) for way in WAYS}
        result["points_apart"] = {key: round(statistics.mean(points), 3)
                                  for key, points in apart.items()}
        result["points_by_chance"] = {key: chance(points) for key, points in apart.items()}
    return result
