"""Open and closed loops of `saccade bench`, for the benches that serve."""
import json
import os
import resource
import subprocess
import sys

import common


def run_json(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(sys.argv[0] + ": %s\n%s" % (" ".join(command[:6]), done.stderr))
    return json.loads(done.stdout)


def wrk(connections, seconds, script, url, more=(), core=None):
    """What the script's line says of a run of wrk, and the CPU time that wrk took a second."""
    command = ["taskset", "-c", str(core)] if core is not None else []
    command += ["wrk", "-t1", "-c%d" % connections, "-d%ds" % max(1, round(seconds)), "--timeout",
                "30s", "-s", os.path.join(common.ROOT, "bench", script), url, *more]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(command, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    _, marked, line = out.rpartition("RESULT ")
    if not marked:
        sys.exit("%s: wrk said: %s" % (sys.argv[0], out))
    found = json.loads(line)
    found["client_cpu"] = (after.ru_utime + after.ru_stime - before.ru_utime
                           - before.ru_stime) / found["seconds"]
    return found


def open_loop(options, url, bodies, rate, slo_ms, connections=800):
    """`saccade bench` at a Poisson rate. Several source addresses, for a server
    limits the connections of one."""
    command = [options.bin, "bench", "--poisson", "%g" % rate, "--duration",
               str(options.seconds + 1), "--warmup", "1", "--slo-ms", str(slo_ms),
               "--connections", str(connections), "--json"]
    for last in range(2, 12):
        command += ["--bind", "127.0.0.%d" % last]
    for path in bodies:
        command += ["--body", path]
    return run_json(command + [url])


def find_goodput(options, url, bodies, capacity):
    """The highest rate that meets the objective, to 3 % of the capacity. A rate
    meets it when p99 of what was due does, refusals counted as misses."""
    low, high, best = 0.0, 1.05 * capacity, None
    while high - low > 0.03 * capacity:
        rate = (low + high) / 2
        out = open_loop(options, url, bodies, rate, options.slo_ms)
        met = out["due"] > 0 and out["good"] >= 0.99 * out["due"]
        print("  at %7.1f a second: %.2f %% within %g ms, p99 %.2f ms%s" % (
            rate, 100 * out["good"] / max(1, out["due"]), options.slo_ms,
            out["latency_ms"]["p99"], "" if met else "  (misses)"), flush=True)
        if met:
            low, best = rate, out
        else:
            high = rate
    return best


def closed_loop(options, url, connections, bodies=()):
    """`saccade bench`, each connection sending when it has its answer."""
    command = [options.bin, "bench", "--closed", "--connections", str(connections), "--duration",
               str(options.seconds + 0.5), "--warmup", "0.5", "--json"]
    for path in bodies:
        command += ["--body", path]
    return run_json(command + [url])
