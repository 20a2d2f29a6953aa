#!/usr/bin/env python3
"""`saccade train` on several simulated GPUs, in one process and in two: the weights of one
GPU, and what happens when a GPU or a process goes.

SACCADE_SIM_MODULE_DIR is where the module over tests/cuda_sim lies; without it, or without
NCCL's stand-in, all is skipped by name."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import parallel
import training
from harness import SLOW, Skip, case, need, run_cases

SPLIT = ("--out", "none", "--batch-rule", "split", "--bucket", "1")
expected = []


def gpus(count, faults="", seed="0"):
    """The environment in which there are so many."""
    module = os.environ.get("SACCADE_SIM_MODULE_DIR", "")
    simulator = os.path.join(module, "..", "..", "cuda_sim")
    if not os.path.exists(os.path.join(simulator, "libnccl.so.2")):
        raise Skip("no simulated GPUs, or no NCCL for them")
    return dict(os.environ, SACCADE_MODULE_DIR=module, SACCADE_SIM_DEVICES=str(count),
                SACCADE_SIM_FAULT=faults, SACCADE_SIM_SEED=seed, SACCADE_ALGORITHMS="guess",
                LD_LIBRARY_PATH=simulator)


def names(count):
    return "cuda:" + ",".join(map(str, range(count)))


def start(base, count, *more, **how):
    return subprocess.Popen(training.words("--device", names(count), *more), cwd=base,
                            env=gpus(count, **how), stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


class Hosts:
    """Two hosts with a wire between them: network namespaces and a pair of veth."""
    address = "10.77.0.%d"

    def __enter__(self):
        self.folder = tempfile.mkdtemp(dir="/tmp")  # short: an address has 108 bytes
        self.names = ["saccade%d-%s" % (os.getpid(), end) for end in "ab"]
        wires = ["sac%d%s" % (os.getpid() % 100000, end) for end in "ab"]
        self.wire = wires[0]
        self.processes = []
        try:
            for name in self.names:
                self.ip("netns", "add", name)
            self.ip("link", "add", wires[0], "netns", self.names[0], "type", "veth", "peer",
                    "name", wires[1], "netns", self.names[1])
            for at, (name, wire) in enumerate(zip(self.names, wires)):
                self.ip("-n", name, "address", "add", self.address % (at + 1) + "/24", "dev", wire)
                self.ip("-n", name, "link", "set", wire, "up")
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            raise Skip("no hosts of our own: " + str(error)) from error
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
        for name in self.names:
            if shutil.which("ip"):
                subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL,
                               check=False)
        shutil.rmtree(self.folder)

    def cut(self):
        self.ip("-n", self.names[0], "link", "set", self.wire, "down")

    def on(self, rank):
        """What a command begins with on the host of that rank."""
        return ["ip", "netns", "exec", self.names[rank]]

    @staticmethod
    def ip(*words):
        subprocess.run(["ip", *words], check=True, stderr=subprocess.DEVNULL)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def start_two(base, count, *more, faults=("", ""), device=None, old=None, hosts=None):
    """Two processes of `count` GPUs each, which meet at the first."""
    meeting = {"MASTER_ADDR": hosts.address % 1 if hosts else "127.0.0.1",
               "MASTER_PORT": free_port(), "WORLD_SIZE": "2",
               **({"SACCADE_SIM_NCCL_VERSION": old} if old else {}),
               **({"SACCADE_SIM_RINGS": hosts.folder} if hosts else {})}
    processes = [subprocess.Popen(
        (hosts.on(rank) if hosts else [])
        + training.words("--device", device or names(count), *more), cwd=base,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=dict(gpus(count, faults[rank]), RANK=str(rank), LOCAL_RANK=str(rank), **meeting))
                 for rank in range(2)]
    if hosts:
        hosts.processes += processes
    return processes


def log_of(process, status=0):
    log = process.communicate(timeout=100 * SLOW)[1]
    need(process.returncode == status, process.returncode, log)
    return log


def weights_of_one():
    if not expected:
        base = parallel.place("gpu", "max_iter: 50\n", parallel.PLAIN)
        log_of(start(base, 1, "--out", "none"))
        expected.extend(parallel.weights(base, 50))
    return expected


def need_same(base):
    distance = parallel.apart(parallel.weights(base, 50), weights_of_one())
    need(distance < 1e-5, distance)


@case("saccade devices says which NCCL there is, or why none can be used")
def _():
    for version, says in (("22809", "NCCL 2.28.9"), ("2403", "NCCL 2.4.3"),
                          ("2212", "NCCL 2.2.12 is too old: 2.4.3 is the oldest")):
        done = subprocess.run([training.binary(), "devices"], capture_output=True, text=True,
                              env=dict(gpus(2), SACCADE_SIM_NCCL_VERSION=version), timeout=60)
        need(done.returncode == 0 and done.stdout.count("; " + says) == 2, done.stdout)


@case("2, 4 and 8 GPUs train to the weights of one with the whole batch")
def _():
    for count in (2, 4, 8):
        base = parallel.place("gpus", "max_iter: 50\n", parallel.PLAIN)
        log = log_of(start(base, count, *SPLIT))
        need("%d ranks by NCCL, batch rule split: %d items a rank, 16 an iteration" % (
            count, 16 // count) in log, log)
        need_same(base)


@case("one GPU alone that sends its sums through NCCL all the same comes to the same bits")
def _():
    results = []
    for more in ((), ("--communicator",)):
        base = parallel.place("alone", "max_iter: 50\n", parallel.PLAIN)
        log = log_of(start(base, 1, "--out", "none", "--bucket", "1", *more))
        need(("1 ranks by NCCL" in log) == bool(more), log)
        results.append(training.snapshot(base, 50)[0])
    need(results[0] == results[1], "other bits")


@case("time --backward has every operation both ways on a GPU, and the whole with its update")
def _():
    base = parallel.place("timed", "max_iter: 1\n")
    for precision, feed in (("f32", ("--data", "data.bin")), ("f16", ())):
        if not feed:  # its inputs are then zeros, and lie on the device
            net = training.NET.replace('type: "Data"', 'type: "DummyData"')
            net = re.sub(r"data_param \{.*\} \}", """dummy_data_param { shape { dim: 16 dim: 3 dim: 28
              dim: 28 } shape { dim: 16 } } }""", re.sub(r"transform_param \{.*\n", "", net))
            with open(os.path.join(base, "net.prototxt"), "w") as file:
                file.write(net)
        done = subprocess.run([training.binary(), "time", "--net", "net.prototxt", "--backward",
                               "--device", "cuda:0", "--precision", precision, "--iterations", "3",
                               "--json", *feed], cwd=base, env=gpus(1), capture_output=True,
                              text=True, timeout=100 * SLOW)
        need(done.returncode == 0, done.stderr)
        told = json.loads(done.stdout)
        steps = {step["op"]: step for step in told["steps"]}
        for kind in ("convolution", "inner product", "softmax loss"):
            need(steps[kind]["forward_ms"] > 0 and steps[kind]["backward_ms"] > 0, kind, told)
        need(told["batch"] == 16 and told["update_ms"] > 0 and told["pictures_per_second"] > 0, told)


@case("GPUs that run behind at random train to the same bits")
def _():
    results = []
    for seed in ("1", "2"):
        base = parallel.place("late", "max_iter: 50\n", parallel.PLAIN)
        log_of(start(base, 4, *SPLIT, seed=seed))
        need_same(base)
        results.append(training.snapshot(base, 50)[0])
    need(results[0] == results[1], "other bits")


@case("2 processes of 4 GPUs train to the weights of one with the whole batch")
def _():
    base = parallel.place("processes", "max_iter: 50\n", parallel.PLAIN)
    first, second = start_two(base, 4, *SPLIT)
    log = log_of(first)
    need("8 ranks by NCCL" in log, log)
    need("Solving" not in log_of(second), "rank 0 alone logs")
    need_same(base)


@case("processes on two hosts meet at rank 0's address, and a wire that is cut ends both by name")
def _():
    with Hosts() as hosts:
        base = parallel.place("hosts", "max_iter: 50\n", parallel.PLAIN)
        first, second = start_two(base, 2, *SPLIT, hosts=hosts)
        need("4 ranks by NCCL" in log_of(first), "ranks")
        log_of(second)
        need_same(base)
        base = parallel.place("cut", "max_iter: 1000000 snapshot: 20\n")
        processes = start_two(base, 1, *SPLIT, "--keep", "2", hosts=hosts)
        parallel.wait_for_snapshot(base, processes[0], 20)
        hosts.cut()
        began = time.monotonic()
        for rank, process in enumerate(processes):
            log = log_of(process, 3)
            need(re.search(r"rank %d \(.*\) is gone: nothing was heard of it for 7 s" % (1 - rank),
                           log), log)
        need(time.monotonic() - began < 15 * SLOW, "it took", time.monotonic() - began)


@case("GPUs go on from a snapshot as the same run, with batch norm and dropout")
def _():
    more = ("--out", "none")
    whole = parallel.place("whole", "max_iter: 40\n")
    log_of(start(whole, 3, *more))
    base = parallel.place("parts", "max_iter: 20\n")
    log_of(start(base, 3, *more))
    with open(os.path.join(base, "solver.prototxt"), "w") as file:
        file.write(training.SOLVER + "max_iter: 40\n")
    log_of(start(base, 3, *more, "--snapshot", "auto"))
    need(training.snapshot(whole, 40) == training.snapshot(base, 40), "another end")


@case("kill -9 of either process ends the other within 10 s, and the last snapshot is whole")
def _():
    for victim in (0, 1):
        base = parallel.place("killed", "max_iter: 1000000 snapshot: 20\n")
        processes = start_two(base, 2, *SPLIT, "--keep", "3")
        parallel.wait_for_snapshot(base, processes[0], 20)
        os.kill(processes[victim].pid, signal.SIGKILL)
        began = time.monotonic()
        log = log_of(processes[1 - victim], 3)
        need(time.monotonic() - began < 10 * SLOW, "it took", time.monotonic() - began)
        need("ranks %d to %d" % (2 * victim, 2 * victim + 1) in log and "is gone" in log, log)
        processes[victim].communicate()
        last = max(int(re.search(r"_iter_(\d+)", name).group(1)) for name in os.listdir(base)
                   if name.endswith(".solverstate"))
        with open(os.path.join(base, "solver.prototxt"), "w") as file:
            file.write(training.SOLVER + "max_iter: %d\n" % (last + 2))
        log = log_of(start(base, 4, *SPLIT, "--snapshot", "auto"))
        need("small_iter_%d.solverstate" % last in log, log)


@case("a process that dies inside a sum takes the other with it, by name")
def _():
    base = parallel.place("inside", "max_iter: 1000000\n")
    first, second = start_two(base, 2, *SPLIT, faults=("", "kill:1:60"))
    log = log_of(first, 3)
    need("ranks 2 to 3" in log and "is gone" in log, log)
    need(second.wait(60) == -signal.SIGKILL, second.returncode)
    second.communicate()


@case("a GPU that is lost, or cut off from the others, ends all with its name")
def _():
    for fault, says in (("lost:1:3", r"rank 1 \(cuda:1\): .*cuda:1"),  # while the others join
                        ("lost:2:900", r"rank 2 \(cuda:2\): .*cuda:2"),
                        ("cut:1:60", r"rank \d \(cuda:\d\): .*(another rank is gone|NCCL says)")):
        base = parallel.place("lost", "max_iter: 1000000\n")
        log = log_of(start(base, 4, *SPLIT, faults=fault), 3)
        need(re.search(says, log), log)


# Each operation of a GPU takes 16 ms there: a sum, too. How long things take for themselves is
# no speed of any card; on a machine that is busy with other things a run may be spoilt.
@case("the way back hides the sums of all buckets but the last")
def _():
    layers = "".join("""layer { name: "d%d" type: "Convolution" bottom: "c%d" top: "c%d"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "e%d" type: "ReLU" bottom: "c%d" top: "c%d" }
""" % (i, i, i + 1, i, i + 1, i + 1) for i in range(1, 6))
    net = parallel.PLAIN.replace('layer { name: "fc"', layers + 'layer { name: "fc"')
    net = net.replace('InnerProduct" bottom: "c1"', 'InnerProduct" bottom: "c6"')
    base = parallel.place("timeline", "max_iter: 1\n", net)
    slow = ",".join("slow:%d:16" % device for device in range(3))
    for _ in range(3):
        done = subprocess.run([training.binary(), "time", "--net", "net.prototxt", "--timeline",
                               "--device", names(3), "--bucket", "1", "--iterations", "3",
                               "--json"], cwd=base, env=gpus(3, slow), capture_output=True,
                              text=True, timeout=100 * SLOW)
        need(done.returncode == 0, done.stderr)
        told = json.loads(done.stdout)
        if told["hidden"] == len(told["sums"]) - 1:
            break
    need(told["ranks"] == 3 and told["by"] == "NCCL", told)
    back = told["computing"][-1]["ended_ms"]
    need(len(told["sums"]) >= 5, told["sums"])
    need(told["hidden"] == len(told["sums"]) - 1, told["hidden"], told["sums"])
    need(all(told_sum["ended_ms"] < back for told_sum in told["sums"][:-1]), told)


@case("clipping and the scaled losses of f16 are decided by all GPUs alike")
def _():
    more = "max_iter: 30 iter_size: 2 clip_gradients: 0.3\n"
    found = []
    for count in (1, 2):
        base = parallel.place("halves", more, parallel.PLAIN)
        log_of(start(base, count, *SPLIT, "--precision", "f16"))
        found.append(parallel.weights(base, 30))
    distance = parallel.apart(found[1], found[0])
    need(distance < 1e-2, distance)  # halves have 11 bits


@case("what one process meets ends both with its sentence")
def _():
    base = parallel.place("wrong", "max_iter: 100\n")
    with open(os.path.join(base, "data.bin"), "r+b") as file:
        file.seek(40 * 3073)  # of 64, rank 2's
        file.write(b"\x09")
    logs = [log_of(process, status)
            for process, status in zip(start_two(base, 2, "--out", "none"), (1, 1))]
    for log in logs:
        need("rank 2 (cuda:0): iteration 0: " in log and "label 9; the net has" in log, logs)


@case("no rank waits to be connected while rank 0 tests for the first time")
def _():
    base = parallel.place("late", "max_iter: 3 test_iter: 200 test_interval: 100\n",
                          parallel.PLAIN)
    env = dict(gpus(2, "slow:0:5"), SACCADE_SIM_NCCL_CONNECT="2")
    began = time.monotonic()
    done = subprocess.run(training.words("--device", names(2), "--out", "none"), cwd=base, env=env,
                          capture_output=True, text=True, timeout=100 * SLOW)
    need(done.returncode == 0, done.stderr)
    need(time.monotonic() - began > 3, "the test was too short to tell")


@case("with --restarts what would fail again ends both at once")
def _():
    base = parallel.place("for good", "max_iter: 100\n")
    with open(os.path.join(base, "data.bin"), "r+b") as file:
        file.seek(40 * 3073)
        file.write(b"\x09")
    processes = start_two(base, 2, "--out", "none", "--snapshot", "auto", "--restarts", "2")
    for log in [log_of(process, 1) for process in processes]:
        need("restarts are left" not in log, log)


@case("SIGINT to both processes stops both, with a snapshot")
def _():
    base = parallel.place("stopped", "max_iter: 1000000 snapshot: 20\n")
    processes = start_two(base, 2, *SPLIT, "--keep", "2")
    parallel.wait_for_snapshot(base, processes[0], 20)
    for process in reversed(processes):
        process.send_signal(signal.SIGINT)
    logs = [log_of(process) for process in processes]
    need("Optimization stopped early." in logs[0], logs)
    said = [line for line in logs[1].splitlines() if not line.startswith("==")]  # sanitizers do
    need(not said, logs)
    last = max(int(re.search(r"_iter_(\d+)", name).group(1)) for name in os.listdir(base)
               if name.endswith(".solverstate"))
    need("Snapshotting to binary proto file small_iter_%d.caffemodel" % last in logs[0], logs)


@case("a process that stands still is named within 10 s")
def _():
    for victim in (0, 1):
        base = parallel.place("still", "max_iter: 1000000 snapshot: 20\n")
        processes = start_two(base, 1, *SPLIT, "--keep", "2")
        parallel.wait_for_snapshot(base, processes[0], 20)
        processes[victim].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        log = log_of(processes[1 - victim], 3)
        need(time.monotonic() - began < 10 * SLOW, "it took", time.monotonic() - began)
        processes[victim].kill()
        processes[victim].communicate()
        need(re.search(r"rank %d \(.*\) is gone: nothing was heard of it for 7 s" % victim, log),
             log)


@case("two processes with an NCCL that cannot be ended are refused")
def _():
    base = parallel.place("old", "max_iter: 10\n")
    processes = start_two(base, 1, "--out", "none", old="2403")
    for log in [log_of(process, 1) for process in processes]:
        need("2 processes: NCCL 2.4.3 waits for others" in log and "2.14 is the oldest" in log, log)


@case("--device cuda is the GPU of a process's place, of those that it is shown")
def _():
    base = parallel.place("shown", "max_iter: 4\n", parallel.PLAIN)
    first, second = start_two(base, 1, "--out", "none", device="cuda")
    need("2 ranks by NCCL" in log_of(first), "ranks")
    log_of(second)


@case("a test net repeats itself with --deterministic: nothing is measured for it")
def _():
    base = parallel.place("repeats", "max_iter: 2 test_iter: 1 test_interval: 1\n",
                          parallel.PLAIN)
    for more, measures in (((), True), (("--deterministic",), False)):
        cache = os.path.join(base, "cache" + str(measures))
        env = dict(gpus(1), XDG_CACHE_HOME=cache)
        del env["SACCADE_ALGORITHMS"]
        done = subprocess.run(training.words("--device", "cuda:0", "--out", "none", *more),
                              cwd=base, env=env, capture_output=True, text=True,
                              timeout=100 * SLOW)
        need(done.returncode == 0, done.stderr)
        found = [name for _, _, names_ in os.walk(cache) for name in names_]
        need(bool(found) == measures, more, found)


@case("with --restarts a killed process comes again, and the run ends as one that was not killed")
def _():
    more = "max_iter: 200 snapshot: 20\n"
    flags = ("--out", "none", "--deterministic", "--snapshot", "auto", "--restarts", "3")
    whole, base = parallel.place("whole", more), parallel.place("restarted", more)
    for process in start_two(whole, 1, *flags):
        log_of(process)
    processes = start_two(base, 1, *flags)
    for victim, iteration in ((1, 20), (0, 60)):
        parallel.wait_for_snapshot(base, processes[0], iteration)
        os.kill(parallel.child_of(processes[victim]), signal.SIGKILL)
        time.sleep(.5)
    logs = [log_of(process) for process in processes]
    need("Restoring previous solver status" in logs[0], logs)
    need("was ended by signal 9" in logs[1] and "lost a device or a process" in logs[0], logs)
    need(training.snapshot(whole, 200) == training.snapshot(base, 200), "another end")


if __name__ == "__main__":
    raise SystemExit(run_cases())
