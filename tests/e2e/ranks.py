#!/usr/bin/env python3
"""Several ranks train one net: threads, processes that mpirun starts, and what happens
when one of them goes."""
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import time

import training
from harness import SLOW, binary, case, need, read, run_cases, Skip
from parallel import PLAIN, apart, child_of, children, ends, place, wait_for_snapshot, weights

MPI_ENV = dict(os.environ, OMPI_MCA_rmaps_base_oversubscribe="1",
               OMPI_MCA_btl_vader_single_copy_mechanism="none")
# MPI keeps memory to its end.
MPI_ENV["ASAN_OPTIONS"] = MPI_ENV.get("ASAN_OPTIONS", "") + ":detect_leaks=0"


def mpirun(*more):
    """The words for two ranks by MPI."""
    if not shutil.which("mpirun"):
        raise Skip("no mpirun")
    module = os.path.join(os.path.dirname(binary()), "..", "ranks", "saccade_mpi.so")
    if not os.path.exists(module):
        raise Skip("built without MPI")
    return (["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2"] +
            training.words("--threads", "1", "--out", "none", *more))


def start(base, words):
    return subprocess.Popen(words, cwd=base, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, env=MPI_ENV)


def trainers(pid):
    """The processes below mpirun that train, by rank."""
    ranks = {}
    for child in children(pid):
        environment = read("/proc/%d/environ" % child).split(b"\0")
        for word in environment:
            if word.startswith(b"OMPI_COMM_WORLD_RANK="):
                ranks[int(word.split(b"=")[1])] = child
    return ranks


@case("two MPI ranks train to the weights of one with the whole batch")
def _():
    words = mpirun("--batch-rule", "split", "--bucket", "1")
    one = place("one", "max_iter: 50\n", PLAIN)
    two = place("two", "max_iter: 50\n", PLAIN)
    training.finish(one, "--out", "none")
    done = subprocess.run(words, cwd=two, capture_output=True, text=True, timeout=200 * SLOW,
                          env=MPI_ENV)
    need(done.returncode == 0, done.stderr)
    need("2 ranks by MPI, batch rule split: 8 items a rank, 16 an iteration" in done.stderr,
         done.stderr)
    distance = apart(weights(two, 50), weights(one, 50))
    need(distance < 1e-5, distance)
    need(done.stderr.count("Solving small") == 1, "rank 0 alone logs:", done.stderr)


@case("MPI ranks go on from a snapshot as the same run, with batch norm and dropout")
def _():
    whole = place("whole", "max_iter: 40\n")
    parts = place("parts", "max_iter: 20\n")
    for base, more in ((whole, []), (parts, [])):
        done = subprocess.run(mpirun(*more), cwd=base, capture_output=True, text=True,
                              timeout=200 * SLOW, env=MPI_ENV)
        need(done.returncode == 0, done.stderr)
    with open(os.path.join(parts, "solver.prototxt"), "w") as file:
        file.write(training.SOLVER + "max_iter: 40\n")
    done = subprocess.run(mpirun("--snapshot", "auto"), cwd=parts, capture_output=True, text=True,
                          timeout=200 * SLOW, env=MPI_ENV)
    need(done.returncode == 0, done.stderr)
    need(training.snapshot(whole, 40) == training.snapshot(parts, 40), "another end")


@case("kill -9 of either MPI rank ends the other within 10 s, and the last snapshot is whole")
def _():
    for victim in (0, 1):
        base = place("killed", "max_iter: 1000000 snapshot: 20\n")
        process = start(base, mpirun("--keep", "3"))
        wait_for_snapshot(base, process, 20)
        ranks = trainers(process.pid)
        need(sorted(ranks) == [0, 1], ranks)
        os.kill(ranks[victim], signal.SIGKILL)
        began = time.monotonic()
        log = process.communicate(timeout=60)[0]
        seconds = time.monotonic() - began
        need(seconds < 10, "it took", seconds, "s")
        need(process.returncode != 0, log)
        need(re.search("process rank %d with PID" % victim, log), log)
        need(ends(ranks[1 - victim], began + 10), "it lives")
        with open(os.path.join(base, "solver.prototxt"), "w") as file:
            last = max(int(re.search(r"_iter_(\d+)", n).group(1))
                       for n in glob.glob(os.path.join(base, "small_iter_*.solverstate")))
            file.write(training.SOLVER + "max_iter: %d\n" % (last + 2))
        log = training.finish(base, "--snapshot", "auto", "--out", "none")
        need("small_iter_%d.solverstate" % last in log, log)


@case("SIGINT to one MPI rank stops all with a snapshot, whichever it is")
def _():
    for asked in (1, 0):
        base = place("stopped", "max_iter: 1000000 snapshot: 20\n")
        process = start(base, mpirun("--keep", "2"))
        wait_for_snapshot(base, process, 20)
        os.kill(trainers(process.pid)[asked], signal.SIGINT)
        log = process.communicate(timeout=60 * SLOW)[0]
        need(process.returncode == 0, process.returncode, log)
        need("Optimization stopped early." in log, log)
        last = max(int(re.search(r"_iter_(\d+)", n).group(1))
                   for n in glob.glob(os.path.join(base, "small_iter_*.solverstate")))
        need("Snapshotting to binary proto file small_iter_%d.caffemodel" % last in log, last, log)


@case("an MPI rank that stands still is named within 10 s, and ends the other")
def _():
    for victim in (0, 1):
        base = place("still", "max_iter: 1000000 snapshot: 20\n")
        process = start(base, mpirun("--keep", "2"))
        wait_for_snapshot(base, process, 20)
        ranks = trainers(process.pid)
        os.kill(ranks[victim], signal.SIGSTOP)
        began = time.monotonic()
        need(ends(ranks[1 - victim], began + 10 * SLOW), "it lives")
        log = process.communicate(timeout=60 * SLOW)[0]
        need(process.returncode != 0, log)
        need(re.search(r"rank %d \(.*\) is gone: nothing was heard of it for 7 s" % victim, log),
             log)


@case("what fails on one MPI rank is said once with its name, and ends all")
def _():
    base = place("wrong", "max_iter: 100\n")
    with open(os.path.join(base, "data.bin"), "r+b") as file:
        file.seek(20 * 3073)  # of 32, the second rank's
        file.write(b"\x09")
    process = start(base, mpirun())
    log = process.communicate(timeout=100)[0]
    need(process.returncode != 0, log)
    need("rank 1 (cpu): iteration 0: " in log and "label 9; the net has classes 0 to 3" in log, log)


@case("ranks on the CPU without MPI say what they need")
def _():
    base = place("alone", "max_iter: 2\n")
    env = dict(MPI_ENV, RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    done = subprocess.run(training.words(), cwd=base, capture_output=True, text=True, env=env,
                          timeout=100)
    need(done.returncode in (1, 3), done.returncode, done.stderr)
    need("2 processes on the CPU need MPI: there is no saccade_mpi.so" in done.stderr or
         "the environment says rank 0 of 2, and MPI rank 0 of 1" in done.stderr, done.stderr)


@case("--ranks train in one process, and say so in both logs")
def _():
    base = place("threads", "max_iter: 5 display: 1\n")
    log = training.finish(base, "--ranks", "4", "--out", "none")
    need("Data parallel: 4 ranks by threads, batch rule per-gpu: 16 items a rank, 64 an iteration"
         in log, log)
    log = training.finish(base, "--ranks", "2", "--batch-rule", "split", "--out", "none",
                          "--log-json")
    told = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    texts = [event["text"] for event in told if event["event"] == "parallel"]
    need(len(texts) == 1 and "2 ranks by threads, batch rule split: 8 items" in texts[0], log)


@case("a run with --restarts that is killed comes to the end of one that is not")
def _():
    more = "max_iter: 400 snapshot: 20\n"
    whole = place("whole", more)
    training.finish(whole, "--ranks", "2", "--threads", "1", "--out", "none")
    base = place("restarted", more)
    process = start(base, training.words("--ranks", "2", "--threads", "1", "--out", "none",
                                         "--snapshot", "auto", "--restarts", "2"))
    for iteration in (20, 200):
        wait_for_snapshot(base, process, iteration)
        for child in children(process.pid):
            os.kill(child, signal.SIGKILL)
    log = process.communicate(timeout=200 * SLOW)[0]
    need(process.returncode == 0, process.returncode, log)
    need("was ended by signal 9 (Killed); 2 restarts are left" in log, log)
    need("Restoring previous solver status" in log, log)
    need(training.snapshot(whole, 400) == training.snapshot(base, 400), "another end")


@case("a run with --restarts gives up when none is left, and dies with its parent")
def _():
    base = place("lost", "max_iter: 1000000 snapshot: 20\n")
    words = training.words("--out", "none", "--snapshot", "auto", "--keep", "2", "--restarts", "1")
    process = start(base, words)
    wait_for_snapshot(base, process, 20)
    for _ in range(2):
        os.kill(child_of(process), signal.SIGKILL)
        time.sleep(.3)
    log = process.communicate(timeout=60)[0]
    need(process.returncode == 137, process.returncode, log)
    process = start(base, words)
    child = child_of(process)
    process.kill()
    process.communicate(timeout=60)
    need(ends(child, time.monotonic() + 10), "the child lives on")


@case("SIGINT to a run with --restarts stops all ranks with a snapshot, for good")
def _():
    base = place("stopped", "max_iter: 1000000 snapshot: 20\n")
    process = start(base, training.words("--ranks", "3", "--out", "none", "--snapshot", "auto",
                                         "--restarts", "3", "--keep", "2"))
    wait_for_snapshot(base, process, 20)
    process.send_signal(signal.SIGINT)
    log = process.communicate(timeout=60 * SLOW)[0]
    need(process.returncode == 0, process.returncode, log)
    need("Optimization stopped early." in log, log)


@case("flags that do not go together are refused")
def _():
    base = place("flags", "max_iter: 2\n")
    for more, says in ((["--restarts", "2"], "expected --snapshot auto"),
                       (["--ranks", "2", "--device", "cuda"], "--ranks is for the CPU"),
                       (["--ranks", "65"], "--ranks"),
                       (["--batch-rule", "even"], "expected per-gpu or split")):
        log = training.finish(base, *more, status=2)
        need(says in log, more, log)


if __name__ == "__main__":
    raise SystemExit(run_cases())
