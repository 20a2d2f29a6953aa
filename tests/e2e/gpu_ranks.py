#!/usr/bin/env python3
"""Simulated GPUs that train one net together, in one process and over several: this proves
logic, never speed."""
import glob
import json
import os
import re
import signal
import subprocess
import time

import training
from harness import ROOT, SLOW, binary, case, need, run_cases, Skip
from parallel import PLAIN, apart, child_of, place, wait_for_snapshot, weights

port = 23000 + os.getpid() % 8000


def environment(**more):
    modules = os.environ.get("SACCADE_SIM_MODULE_DIR",
                             os.path.join(ROOT, "build", "tests", "device", "cuda"))
    nccl = os.path.join(modules, "..", "..", "cuda_sim")
    if not os.path.exists(os.path.join(nccl, "libnccl.so.2")):
        raise Skip("no simulated NCCL")
    return dict(os.environ, SACCADE_MODULE_DIR=modules, LD_LIBRARY_PATH=nccl,
                SACCADE_SIM_DEVICES="8", SACCADE_ALGORITHMS="guess", **more)


def train(device, *more):
    return training.words("--threads", "1", "--out", "none", "--bucket", "1", "--device", device,
                          *more)


def finish(base, words):
    done = subprocess.run(words, cwd=base, capture_output=True, text=True, env=environment(),
                          timeout=100 * SLOW)
    need(done.returncode == 0, done.returncode, done.stderr)
    return done.stderr


def start(base, devices, *more):
    """A process for each of the devices, as torchrun would start them."""
    global port
    port += 1
    return [subprocess.Popen(
        train(device, *more), cwd=base, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
        env=environment(RANK=str(rank), WORLD_SIZE=str(len(devices)), LOCAL_RANK=str(rank),
                        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)))
        for rank, device in enumerate(devices)]


def join(processes, status=0):
    """Their logs; all end with that status."""
    logs = [p.communicate(timeout=100 * SLOW)[1] for p in processes]
    for process, log in zip(processes, logs):
        need(process.returncode == status, process.returncode, log)
    return logs


@case("2, 4 and 8 GPUs, and 2 processes of 4, train to the weights of one with the whole batch")
def _():
    environment()
    one = place("one", "max_iter: 50\n", PLAIN)
    finish(one, train("cuda:0"))
    expected = weights(one, 50)
    together = {}
    for devices in ("cuda:0,1", "cuda:0,1,2,3", "cuda"):
        base = place("several", "max_iter: 50\n", PLAIN)
        log = finish(base, train(devices, "--batch-rule", "split"))
        need("ranks by NCCL, batch rule split" in log, log)
        together[devices] = weights(base, 50)
        distance = apart(together[devices], expected)
        need(distance < 1e-5, devices, distance)
    base = place("several", "max_iter: 50\n", PLAIN)
    logs = join(start(base, ["cuda:0,1,2,3", "cuda:4,5,6,7"], "--batch-rule", "split"))
    need("8 ranks by NCCL" in logs[0] and logs[1] == "", logs)
    distance = apart(weights(base, 50), expected)
    need(distance < 1e-5, "2 x 4", distance)


@case("clipping and scaled losses of f16 are decided by all GPUs alike")
def _():
    more = "max_iter: 30 iter_size: 2 clip_gradients: 0.3\n"
    one, two = place("one", more, PLAIN), place("two", more, PLAIN)
    finish(one, train("cuda:0", "--precision", "f16"))
    finish(two, train("cuda:0,1", "--precision", "f16", "--batch-rule", "split"))
    distance = apart(weights(two, 30), weights(one, 30))
    need(distance < 1e-2, distance)  # halves have 11 bits


@case("kill -9 of any of three processes is named by the others within 10 s")
def _():
    for victim in range(3):
        base = place("killed", "max_iter: 1000000 snapshot: 20\n")
        processes = start(base, ["cuda"] * 3, "--keep", "3")
        wait_for_snapshot(base, processes[0], 20)
        processes[victim].kill()
        began = time.monotonic()
        rest = [p for rank, p in enumerate(processes) if rank != victim]
        for log in join(rest, status=3):
            said = [line for line in log.splitlines() if line.startswith("saccade: ")]
            need(len(said) == 1 and re.search(r"rank %d \(.*\) is gone" % victim, said[0]), log)
        need(time.monotonic() - began < 10, "it took", time.monotonic() - began, "s")
        processes[victim].communicate()
        last = max(int(re.search(r"_iter_(\d+)", n).group(1))
                   for n in glob.glob(os.path.join(base, "small_iter_*.solverstate")))
        with open(os.path.join(base, "solver.prototxt"), "w") as file:
            file.write(training.SOLVER + "max_iter: %d\n" % (last + 2))
        log = finish(base, train("cuda:0", "--snapshot", "auto"))
        need("small_iter_%d.solverstate" % last in log, log)


@case("what one process meets ends all with its sentence")
def _():
    base = place("wrong", "max_iter: 100\n")
    with open(os.path.join(base, "data.bin"), "r+b") as file:
        file.seek(20 * 3073)  # of 32, the second rank's
        file.write(b"\x09")
    processes = start(base, ["cuda"] * 2)
    logs = [p.communicate(timeout=100 * SLOW)[1] for p in processes]
    for log in logs:
        need("rank 1 (cuda:1): iteration 0: " in log and "label 9; the net has" in log, logs)
    need([p.returncode for p in processes] == [3, 1], [p.returncode for p in processes])


@case("with --restarts a killed rank comes again, and the run ends as one that was not killed")
def _():
    more = "max_iter: 200 snapshot: 20\n"
    flags = ["--deterministic", "--snapshot", "auto", "--restarts", "3"]
    whole, base = place("whole", more), place("restarted", more)
    join(start(whole, ["cuda"] * 2, *flags))
    processes = start(base, ["cuda"] * 2, *flags)
    for victim, iteration in ((1, 20), (0, 60)):
        wait_for_snapshot(base, processes[0], iteration)
        os.kill(child_of(processes[victim]), signal.SIGKILL)
        time.sleep(.5)
    logs = join(processes)
    need("Restoring previous solver status" in logs[0], logs)
    need("was ended by signal 9" in logs[1] and "lost a device or a process" in logs[0], logs)
    need(training.snapshot(whole, 200) == training.snapshot(base, 200), "another end")


@case("all sums but the last are hidden behind the way back")
def _():
    hidden = []
    for _ in range(3):  # the machine may have other things to do
        done = subprocess.run(
            [binary(), "time", "--net", os.path.join(ROOT, "models", "squeezenet", "train_val.prototxt"),
             "--timeline", "--batch", "1", "--iterations", "1", "--device", "cuda:0,1", "--bucket",
             "512", "--json"], capture_output=True, text=True, env=environment(),
            timeout=200 * SLOW)
        need(done.returncode == 0, done.stderr)
        out = json.loads(done.stdout)
        need(out["by"] == "NCCL" and len(out["sums"]) > 3, out)
        for line in out["sums"] + out["computing"]:
            need(line["ended_ms"] >= line["began_ms"], line)
        hidden.append(out["hidden"])
        if out["hidden"] >= len(out["sums"]) - 1:
            return
    need(False, hidden)


if __name__ == "__main__":
    raise SystemExit(run_cases())
