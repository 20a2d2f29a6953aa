"""Open and closed loops of `saccade bench`, for the benches that serve."""
import json
import os
import resource
import statistics
import subprocess
import sys

import common

WAY_MS = 1


def run_json(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(sys.argv[0] + ": %s\n%s" % (" ".join(command[:6]), done.stderr))
    return json.loads(done.stdout)


def wrk(connections, seconds, script, url, more=(), core=None, batch=False):
    """What the script's line says of a run of wrk, and the CPU time that wrk took a second.
    `batch`: it preempts nobody."""
    command = ["taskset", "-c", str(core)] if core is not None else []
    command += ["chrt", "-b", "0"] if batch else []
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


def open_loop(options, url, bodies, rate, slo_ms, connections=800, seed=1):
    """`saccade bench` at a Poisson rate. Several source addresses, for a server
    limits the connections of one."""
    command = [options.bin, "bench", "--poisson", "%g" % rate, "--duration",
               str(options.seconds + 1), "--warmup", "1", "--slo-ms", str(slo_ms),
               "--connections", str(connections), "--seed", str(seed), "--json"]
    for last in range(2, 12):
        command += ["--bind", "127.0.0.%d" % last]
    for path in bodies:
        command += ["--body", path]
    return run_json(command + [url])


def told(options):
    """For the server's command: the objective, less the way there and back, which it does not
    see. What cannot meet it any more is refused, and does not make those behind it late."""
    return ["--timeout-ms", str(max(1, round(options.slo_ms - WAY_MS)))]


def try_share(options, url, bodies, bound, share, seeds):
    """A run of other arrivals a seed, each at that share of what bound() says right before it:
    a shared machine's speed drifts. The median decides. A run meets the objective when p99 of
    what was due does, refusals counted as misses."""
    rates, runs = [], []
    for seed in seeds:
        rates.append(share * bound())
        runs.append(open_loop(options, url, bodies, rates[-1], options.slo_ms, seed=seed))
    shares = [run["good"] / max(1, run["due"]) for run in runs]
    found = {"share": share, "rates": rates, "within": shares,
             "met": statistics.median(shares) >= 0.99,
             "p99_ms": [run["latency_ms"]["p99"] for run in runs],
             "goodput_per_second": statistics.median(run["goodput_per_second"] for run in runs),
             "runs": runs}
    print("  %2.0f %%: %s%s" % (100 * share, "; ".join(
        "at %.1f a second %.2f %% within %g ms, p99 of those answered %.2f" % (
            rate, 100 * good, options.slo_ms, p99)
        for rate, good, p99 in zip(rates, shares, found["p99_ms"])),
        "" if found["met"] else "  (misses)"), flush=True)
    return found


def find_goodput(options, url, bodies, bound, share, seeds=(1, 2, 3)):
    """Whether that share of bound() meets the objective, and then the highest that does,
    above or below it, to 3 % of the bound; None where none does."""
    wanted = try_share(options, url, bodies, bound, share, seeds)
    best = wanted if wanted["met"] else None
    low, high = (share, 1.05) if best else (0.0, share)
    while high - low > 0.03:
        found = try_share(options, url, bodies, bound, (low + high) / 2, seeds)
        if found["met"]:
            low, best = (low + high) / 2, found
        else:
            high = (low + high) / 2
    return wanted, best


def closed_loop(options, url, connections, bodies=()):
    """`saccade bench`, each connection sending when it has its answer."""
    command = [options.bin, "bench", "--closed", "--connections", str(connections), "--duration",
               str(options.seconds + 0.5), "--warmup", "0.5", "--json"]
    for path in bodies:
        command += ["--body", path]
    return run_json(command + [url])
