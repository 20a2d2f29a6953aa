"""What the benches and tools/gpu-check judge by, without a card and without the program."""
import http.server
import json
import os
import sys
import tempfile
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, name) for name in ("bench", "tools", "tests/e2e")]
import common  # noqa: E402
from gpu_check import bundle, cifar, criteria, machine, module_build  # noqa: E402
from harness import case, run_cases  # noqa: E402


class Server:
    """Answers 503 on every path until it has been asked `late` times."""

    def __init__(self, late):
        self.asked = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked += 1
                self.send_response(200 if outer.asked > late else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *words):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.http.shutdown()
        self.http.server_close()


@case("a bench waits until its server is ready, not until its port is open")
def _():
    with Server(3) as server:
        with common.Process(["sleep", "60"], server.port, ready="/readyz"):
            assert server.asked == 4, server.asked


@case("a bench waits for a peer's port alone")
def _():
    with Server(1000) as server:
        with common.Process(["sleep", "60"], server.port):
            assert server.asked == 0


@case("a card that is listed with the reason why it is missing does not work")
def _():
    cpu = '{"name":"cpu","streams":2}'
    assert machine.works("[%s,{\"name\":\"cuda:0\",\"streams\":2}]" % cpu)
    assert not machine.works("[%s,{\"name\":\"cuda:0\",\"missing\":\"lost\"}]" % cpu)
    assert not machine.works("[%s]" % cpu)
    assert not machine.works("cuda:0   none: lost")


@case("a program that was built on the machine takes the bundle's place")
def _():
    with tempfile.TemporaryDirectory() as top:
        os.makedirs(os.path.join(top, "programs"))
        with open(os.path.join(top, "manifest.json"), "w") as file:
            json.dump({"glibc": machine.glibc_version()}, file)
        for name in ("saccade", "probe_card"):
            open(os.path.join(top, "programs", name), "w").close()
        own = os.path.join(top, "own")
        with open(own, "w") as file:
            file.write("#!/bin/sh\necho own\n")
        os.chmod(own, 0o755)
        bundle.write_starters(top, os.path.join(top, "bin"), top, {}, {"probe_card": own})
        assert machine.said([os.path.join(top, "bin", "probe_card")]) == "own"
        with open(os.path.join(top, "bin", "saccade")) as file:
            assert os.path.join(top, "programs", "saccade") in file.read()


@case("what is built on the machine has all that the build has: the module's sources, the probe's")
def _():
    module, common_, probe = module_build.sources(ROOT)
    names = {os.path.basename(path) for path in module + common_}
    with open(os.path.join(ROOT, "src/device/cuda/meson.build")) as file:
        listed = file.read()
    assert all("'%s'" % name in listed for name in names if os.path.exists(
        os.path.join(ROOT, "src/device/cuda", name)) and name.endswith(".c")), names
    assert {os.path.basename(path) for path in probe} == {
        "probe.c", "probe_cublas.c", "probe_cudnn.c", "probe_nccl.c", "probe_runtime.c"}


def trained(accuracies):
    """Runs of seeds 1, 2 … by the accuracies of the CPU, and of the card in f32 and f16."""
    return [{"device": device, "precision": precision, "seed": seed, "accuracy": value}
            for seed, row in enumerate(accuracies, 1)
            for (device, precision), value in zip(cifar.WAYS, row)]


@case("accuracies are compared over the seeds that all have run, in points, chance beside them")
def _():
    found = cifar.judge(trained([(.6, .61, .59), (.6, .63, .6), (.6, .7)]))
    assert found["seeds"] == 2 and found["points_apart"] == {"f32": 2, "f16": -.5}, found
    # Differences of 1 and 3: a deviation of the square root of 2, by that of 2 of them.
    assert found["points_by_chance"] == {"f32": 1, "f16": .5}, found
    assert "points_apart" not in cifar.judge(trained([(.6, .61)]))


@case("a net that was not measured beside PyTorch leaves its line open")
def _():
    side = {"per_second": 20., "how": "f16", "batch": 256}
    best = [{"net": "resnet50", "ours": side, "torch": side, "ratio": .99},
            {"net": "googlenet", "ours": side, "torch": side, "ratio": 1.},
            {"net": "caffenet", "ours": side, "torch": None}]
    found = criteria.train_lines({"stages": {"train": {"result": {"best": best}}}})
    assert [row["verdict"] for row in found[:3]] == ["misses", "holds", "open"], found


sys.exit(run_cases())
