"""What the benches share: processes, cores, results."""
import datetime
import http.client
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TICK = os.sysconf("SC_CLK_TCK")


def default_binary():
    for build in ("build-release", "build"):
        path = os.path.join(ROOT, build, "src", "cli", "saccade")
        if os.path.exists(path):
            return path
    return os.path.join(ROOT, "build-release", "src", "cli", "saccade")


def test_data():
    return os.environ.get("SACCADE_TEST_DATA", os.path.join(ROOT, "..", "shared", "data"))


def install(*packages):
    sudo = [] if os.getuid() == 0 else ["sudo"]
    subprocess.run(sudo + ["apt-get", "update", "-q"], check=True)
    subprocess.run(sudo + ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-q",
                           "-y", "--no-install-recommends", *packages], check=True)


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            sys.exit("%s: skipped: no %s (--install has it installed)" % (sys.argv[0], program))


def cpu_seconds(pid):
    """User and system time of a process, all its threads, so far. From schedstat,
    in nanoseconds, where the kernel has it; else in ticks."""
    total = 0
    try:
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/schedstat" % (pid, task)) as file:
                total += int(file.read().split()[0])
        return total / 1e9
    except (OSError, ValueError, IndexError):
        with open("/proc/%d/stat" % pid) as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK


def memory_mb(pid, field):
    """VmRSS or VmHWM of a process, in MB of 1,000,000 bytes."""
    with open("/proc/%d/status" % pid) as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024 / 1e6
    return None


def is_up(port, ready):
    """Whether a server takes requests: `ready` (a path) answers 200, or, without one, the
    port is open. Our own opens it before its models are warm."""
    if not ready:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    with urllib.request.urlopen("http://127.0.0.1:%d%s" % (port, ready), timeout=5) as answer:
        return answer.status == 200


class Process:
    """A server; a context manager that waits until it takes requests (is_up)."""

    def __init__(self, command, port, env=None, seconds=60, ready=None):
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.pid = self.process.pid
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if is_up(port, ready):
                    return
            except (OSError, http.client.HTTPException):  # other answers too
                pass
            time.sleep(0.05)
        self.process.kill()
        sys.exit("%s: %s did not start" % (sys.argv[0], " ".join(command)))

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


PROBE = """
import time
end = time.perf_counter() + 0.3
count = 0
while time.perf_counter() < end:
    for i in range(1000):
        pass
    count += 1
print(count)
"""


def probe_cores():
    """How much of a fixed loop each of the first two cores does in 0.3 s: shows
    whether something else ran beside the measurement."""
    found = []
    for core in range(min(2, os.cpu_count())):
        out = subprocess.run(["taskset", "-c", str(core), sys.executable, "-c", PROBE],
                             capture_output=True, text=True)
        found.append(int(out.stdout))
    return found


def print_probe(before, after):
    print("\ncores, before and after: %s, %s%s" % (
        before, after,
        "" if all(0.9 < b / a < 1.1 for a, b in zip(before, after))
        else "  (they differ: something else ran; measure again)"))


def cpu_name():
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def write_results(name, results):
    folder = os.path.join(ROOT, "bench", "results")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "%s-%s.json" % (name, datetime.date.today().isoformat()))
    results = {"date": datetime.datetime.now().isoformat(timespec="seconds"),
               "cpu": cpu_name(), "cores": os.cpu_count(), "kernel": platform.release(), **results}
    with open(path, "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    print("written: " + os.path.relpath(path))
