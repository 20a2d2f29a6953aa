"""The stages of tools/gpu-check. Each takes the run and the seconds that it has, and returns
what goes into the results; one that raises, or whose program fails, is recorded so."""
import glob
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

from . import cifar, machine, module_build


class Failed(Exception):
    """With what is known all the same."""

    def __init__(self, text, partly=None):
        super().__init__(text)
        self.partly = partly or {}


def call(run, command, seconds, env=None):
    """Runs a program into the log; its status (None: out of time) and what it printed. All
    that it started is ended with it."""
    run.log.write("$ %s\n" % " ".join(map(str, command)))
    run.log.flush()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT,
                                   stdin=subprocess.DEVNULL, start_new_session=True,
                                   env={**os.environ, **run.env, **(env or {})}, cwd=run.root)
        try:
            status = process.wait(max(1, seconds))
        except subprocess.TimeoutExpired:
            status = None
        if status is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        text = out.read()
    run.log.write(text + ("" if text.endswith("\n") else "\n"))
    run.log.flush()
    return status, text


def need(run, command, seconds, partly=None, out=None):
    """What it printed; a failure brings what is known (partly, or the file `out`)."""
    status, text = call(run, command, seconds)
    if status != 0:
        partly = read_json(out) if out else partly
        raise Failed("%s: %s\n%s" % (os.path.basename(command[0]),
                                     "out of time" if status is None else "status %d" % status,
                                     text[-1500:]), partly)
    return text


def read_json(path):
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


# ---- The stages -------------------------------------------------------------

def build(run, seconds):
    """The module from its sources, where there is nothing but CUDA and a C compiler."""
    if not run.bundle:
        return {"built": "by meson, in " + run.build}
    folder = os.path.join(run.work, "module")
    begun = time.monotonic()
    status = module_build.build(run.root, folder, run.libraries, machine.find_headers(), run.log)
    if status != 0:
        raise Failed("the module does not compile here; see the log")
    return {"seconds": round(time.monotonic() - begun, 1)}


def devices(run, seconds):
    text = need(run, [run.program("saccade"), "devices", "--json"], seconds)
    if not machine.works(text):
        raise Failed("no CUDA device works: " + text)
    return {"devices": json.loads(text)}


def probe(run, seconds):
    """The libraries' answers, and where the simulator's differ."""
    sys.path.insert(0, os.path.join(run.root, "tests", "cuda_sim"))
    import probe as compare
    status, text = call(run, [run.program("probe_card")], seconds)
    version = re.search(r"note cudnnGetVersion (\d+)", text)
    path = os.path.join(run.out, "%s-cudnn%s.txt" % (run.card, version.group(1) if version else "0"))
    with open(path, "w") as file:
        file.write(text)
    answers = compare.musts(text)
    result = {"answers": len(answers), "fixture": os.path.basename(path),
              "simulator_differs": list(compare.differences(answers, compare.musts(
                  run.simulated_probe)))[:200] if run.simulated_probe else None}
    if status != 0:
        raise Failed("the probe ended early: " + text[-800:], result)
    for line in result["simulator_differs"] or []:
        run.log.write("differs: %s\n" % line)
    return result


def tap(text):
    """How many passed, failed and were skipped, and which failed."""
    failed = re.findall(r"^not ok \d+ - (.*)$", text, re.M)
    skipped = len(re.findall(r"^ok \d+ .*# SKIP|^1\.\.0 # SKIP", text, re.M))
    return {"passed": len(re.findall(r"^ok ", text, re.M)) - len(re.findall(
        r"^ok \d+ .*# SKIP", text, re.M)), "failed": len(failed), "skipped": skipped,
        "failures": failed}


def tests(run, seconds):
    """The CUDA tests on the real libraries."""
    results, begun, bad = {}, time.monotonic(), []
    for name, command in run.tests.items():
        left = seconds - (time.monotonic() - begun)
        if left < 5:
            results[name] = {"status": "no time left"}
            bad.append(name)
            continue
        status, text = call(run, command, left, {"CMOCKA_MESSAGE_OUTPUT": "TAP",
                                                   "SACCADE_TEST_CARD": "1"})
        results[name] = {**tap(text), "status": status}
        if status != 0:
            bad.append(name)
            results[name]["tail"] = text[-3000:]
    if bad or not results:
        raise Failed("failed: %s" % (", ".join(bad) or "there are no tests"), {"programs": results})
    return {"programs": results}


def sanitizer(run, seconds):
    """A part of the tests under compute-sanitizer."""
    tool = next((path for path in ["compute-sanitizer"] + glob.glob(
        "/usr/local/cuda*/bin/compute-sanitizer") if machine.said([path, "--version"])), None)
    if not tool:
        return {"skipped": "no compute-sanitizer"}
    programs = [run.program("probe_card")] + [
        run.tests[name][0] for name in run.tests if "plan" in name]
    results, begun, bad = {}, time.monotonic(), []
    for program in programs:
        left = seconds - (time.monotonic() - begun)
        command = [tool, "--tool", "memcheck", "--target-processes", "all", "--error-exitcode",
                   "99", program]
        status, text = call(run, command, left, {"CMOCKA_MESSAGE_OUTPUT": "TAP"})
        errors = re.search(r"ERROR SUMMARY: (\d+) error", text)
        results[os.path.basename(program)] = {
            "status": "out of time" if status is None else status,
            "errors": int(errors.group(1)) if errors else None}
        bad += [os.path.basename(program)] if status not in (0, None) else []
    if bad:
        raise Failed("found by compute-sanitizer: " + ", ".join(bad), {"programs": results})
    return {"programs": results}


def forward(run, seconds):
    """bench/forward_gpu: four nets beside PyTorch."""
    out = os.path.join(run.work, "forward.json")
    data = os.path.join(run.work, "nets")
    if not os.path.exists(data):
        os.makedirs(data)
        for source in glob.glob(os.path.join(run.data, "nets", "*")):
            os.symlink(os.path.abspath(source), os.path.join(data, os.path.basename(source)))
        os.symlink(os.path.abspath(os.path.join(run.data, "squeezenet_v1.1")),
                   os.path.join(data, "squeezenet"))
    command = ["python3", os.path.join(run.root, "bench", "forward_gpu"), "--data", data,
               "--time-plans", run.program("time_plans"), "--seconds", str(max(5, seconds - 25)),
               "--out", out] + run.forward_options
    need(run, command, seconds, out=out)
    return read_json(out)


def train(run, seconds):
    """bench/train_gpu: three nets beside PyTorch, NCCL with one rank, and JPEGs from disk."""
    out = os.path.join(run.work, "train.json")
    command = ["python3", os.path.join(run.root, "bench", "train_gpu"), "--data",
               os.path.join(run.data, "nets"), "--pictures", run.pictures, "--bin",
               run.program("saccade"), "--seconds", str(max(5, seconds - 15)), "--out", out]
    need(run, command + run.train_options, seconds, out=out)
    return read_json(out)


def accuracy(run, seconds):
    """The CIFAR net, trained on the CPU and on the card, from the same seeds."""
    size = cifar.SMALL if run.card == "simulated" else cifar.USUAL
    folder = cifar.prepare(run.data, os.path.join(run.work, "cifar"), size)
    runs, begun = [], time.monotonic()
    for seed in range(1, size.seeds + 1):
        for device, precision in cifar.WAYS:
            left = seconds - (time.monotonic() - begun)
            if left < 5 or (seed > 1 and left < 1.2 * cifar.seconds_of(runs, device, precision)):
                return cifar.judge(runs)
            words = cifar.words(folder, device, precision, seed)
            text = need(run, [run.program("saccade")] + words, left, cifar.judge(runs))
            runs.append(cifar.read(text, device, precision, seed))
    return cifar.judge(runs)


def http(run, seconds):
    """bench/serve_gpu: what HTTP adds, and pictures to answers."""
    out = os.path.join(run.work, "http.json")
    slice_ = max(0.3, min(4, (seconds - 40) / 11))
    command = ["python3", os.path.join(run.root, "bench", "serve_gpu"), "--model",
               os.path.join(run.data, "squeezenet_v1.1"), "--pictures", run.pictures,
               "--bin", run.program("saccade"), "--time-plans", run.program("time_plans"),
               "--seconds", "%.2f" % slice_, "--precision", "f16", "--out", out]
    need(run, command, seconds, out=out)
    return read_json(out)


def steps(run, seconds):
    """Where the time goes, operation by operation, fp16."""
    nets = {"resnet50": "nets/resnet50/ResNet-50-deploy.prototxt",
            "googlenet": "nets/bvlc_googlenet/deploy.prototxt",
            "squeezenet": "squeezenet_v1.1/deploy.prototxt",
            "caffenet": "nets/bvlc_reference_caffenet/deploy.prototxt"}
    results, begun = {}, time.monotonic()
    for name in run.forward_nets:
        left = seconds - (time.monotonic() - begun)
        if left < 5:
            break
        text = need(run, [run.program("saccade"), "time", "--net", os.path.join(run.data, nets[name]),
                          "--device", "cuda:0", "--precision", "f16", "--batch", run.steps_batch,
                          "--iterations", run.steps_iterations, "--json"], left,
                    {"nets": results})
        found = json.loads(text[text.index("{"):])
        rows = sorted(found["steps"], key=lambda step: -step["ms"])[:20]
        results[name] = {"batch": found["batch"], "median_ms": found["median_ms"], "longest": [
            [step["name"], step["kernel"], round(step["ms"], 4)] for step in rows]}
    return {"nets": results, "training": training_steps(run, seconds - (time.monotonic() - begun),
                                                        results)}


def training_steps(run, seconds, forward):
    """The same of a step of training: both ways of each operation."""
    sys.path.insert(0, os.path.join(run.root, "bench"))
    import train_gpu_nets
    results, begun = {}, time.monotonic()
    for name in run.training_nets:
        left = seconds - (time.monotonic() - begun)
        if left < 5:
            break
        path = os.path.join(run.work, name + ".prototxt")
        with open(path, "w") as file:
            file.write(train_gpu_nets.prototxt(name, os.path.join(run.data, "nets"),
                                               int(run.steps_batch)))
        text = need(run, [run.program("saccade"), "time", "--net", path, "--backward", "--device",
                          "cuda:0", "--precision", "f16", "--iterations", run.steps_iterations,
                          "--json"], left,
                    {"nets": forward, "training": results})
        found = json.loads(text[text.index("{"):])
        rows = sorted(found["steps"], key=lambda s: -s["forward_ms"] - s["backward_ms"])[:20]
        results[name] = {key: found[key] for key in ("batch", "forward_ms", "backward_ms",
                                                     "update_ms")}
        results[name]["longest"] = [[step["name"], step["kernel"], round(step["forward_ms"], 4),
                                     round(step["backward_ms"], 4)] for step in rows]
    return results


def ranks(run, seconds):
    """NCCL with one rank: what a sum over ranks costs at least."""
    text = need(run, [run.program("time_comm")], seconds)
    return json.loads(text[text.index("{"):])


# In the order of running; seconds as shares of what there is. What is worth most comes first.
STAGES = [("build", build, 60), ("devices", devices, 20), ("probe", probe, 40),
          ("tests", tests, 110), ("forward", forward, 200), ("train", train, 120),
          ("http", http, 75), ("accuracy", accuracy, 40), ("ranks", ranks, 10),
          ("steps", steps, 55), ("sanitizer", sanitizer, 40)]
