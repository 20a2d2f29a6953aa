"""What the end-to-end tests of `saccade train` share: a small net over pictures made
here, runs of it, and kills at random moments."""
import os
import random
import re
import shutil
import signal
import subprocess
import time

from harness import binary, folder, need, read

NET = """name: "small"
layer { name: "in" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { mirror: true crop_size: 28 scale: 0.0078125 mean_value: 128 }
  data_param { source: "none" batch_size: 16 backend: LMDB } }
layer { name: "in" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 28 scale: 0.0078125 mean_value: 128 }
  data_param { source: "none" batch_size: 32 backend: LMDB } }
layer { name: "c1" type: "Convolution" bottom: "data" top: "c1"
  convolution_param { num_output: 8 kernel_size: 5 stride: 2 weight_filler { type: "msra" } } }
layer { name: "b1" type: "BatchNorm" bottom: "c1" top: "b1" }
layer { name: "s1" type: "Scale" bottom: "b1" top: "b1" scale_param { bias_term: true } }
layer { name: "r1" type: "ReLU" bottom: "b1" top: "b1" }
layer { name: "d1" type: "Dropout" bottom: "b1" top: "b1" dropout_param { dropout_ratio: 0.3 } }
layer { name: "fc" type: "InnerProduct" bottom: "b1" top: "fc"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.01 lr_policy: "step" stepsize: 200 gamma: 0.5
momentum: 0.9 weight_decay: 0.001 random_seed: 5 snapshot_prefix: "small"
"""
FORMATS = {"BINARYPROTO": ("caffemodel", "solverstate", "saccade"),
           "HDF5": ("caffemodel.h5", "solverstate.h5", "saccade")}


def place(name, more):
    """A fresh folder with the net, its solver and 256 pictures of 4 colours."""
    base = os.path.join(folder(), name)
    shutil.rmtree(base, ignore_errors=True)
    os.makedirs(base)
    noise = random.Random(3)
    with open(os.path.join(base, "data.bin"), "wb") as file:
        for _ in range(256):
            label = noise.randrange(4)
            planes = [60 + 70 * (plane == label or label == 3) for plane in range(3)]
            file.write(bytes([label]))
            for level in planes:
                file.write(bytes(level + b % 60 for b in noise.randbytes(1024)))
    for file, text in (("net.prototxt", NET), ("solver.prototxt", SOLVER + more)):
        with open(os.path.join(base, file), "w") as out:
            out.write(text)
    return base


def words(*more):
    return [binary(), "train", "--solver", "solver.prototxt", "--data", "data.bin",
            "--test-data", "data.bin", "--workers", "1"] + list(more)


def start(base, *more):
    return subprocess.Popen(words(*more), cwd=base, stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(base, *more, status=0):
    done = subprocess.run(words(*more), cwd=base, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=300)
    need(done.returncode == status, done.returncode, done.stderr)
    return done.stderr


def paths(base, iteration, form="BINARYPROTO"):
    return [os.path.join(base, "small_iter_%d.%s" % (iteration, end)) for end in FORMATS[form]]


def snapshot(base, iteration, form="BINARYPROTO"):
    return [read(path) for path in paths(base, iteration, form)]


def remove_snapshots(base):
    for name in os.listdir(base):
        if name.startswith("small_iter_"):
            os.remove(os.path.join(base, name))


def survive(kills, iterations, form="BINARYPROTO"):
    """A run that is killed so often at random moments ends as one that never was: the
    same bytes. Returns at how many of the kills it stood elsewhere than at the last."""
    more = "max_iter: %d snapshot: 5 snapshot_format: %s\n" % (iterations, form)
    whole = place("whole", more)

    def check():
        need(snapshot(whole, iterations, form) == snapshot(base, iterations, form), "another end")
    began = time.monotonic()
    finish(whole, "--out", "none")
    seconds = time.monotonic() - began
    base = place("killed", more)
    moment = random.Random()
    killed, stands = 0, []
    while killed < kills:
        process = start(base, "--snapshot", "auto", "--keep", "3", "--out", "none")
        time.sleep(moment.uniform(0, min(seconds, 1.0)))
        if process.poll() is not None:  # it came to the end: all is to be done again
            log = process.communicate()[1]
            need(process.returncode == 0, log)
            check()
            remove_snapshots(base)
            continue
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += 1
        stands.append(max([0] + [int(re.search(r"_iter_(\d+)", n).group(1))
                                 for n in os.listdir(base) if n.endswith(FORMATS[form][1])]))
    finish(base, "--snapshot", "auto", "--keep", "3", "--out", "none")
    check()
    return sum(a != b for a, b in zip(stands, [0] + stands))
