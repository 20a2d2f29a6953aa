"""PyTorch's training steps on a GPU, asked line by line: torch_train_gpu.py [DEVICE]

{"do": "open", "net": …, "batch": …, "way": …} makes a step and runs it until it is warm; {"do":
"run", "seconds": …} times steps one behind the other; {"do": "close"}. A line of JSON answers
each; one with "error" says what failed. A way is a precision (fp16 with GradScaler, bf16: by
autocast; tf32), then "compiled" (torch.compile) and "graph" (forward, backward and the update
captured as one CUDA graph) where it is so. All are channels-last with fused SGD."""
import gc
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import torch
import torch_train_nets

WARM = 5


def make_sgd(parameters):
    """The fastest that there is for them, and its name."""
    how = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}
    for kind in ("fused", "foreach"):
        try:
            return torch.optim.SGD(parameters, **how, **{kind: True}), kind
        except (TypeError, RuntimeError):  # an older PyTorch, or a device that it is not for
            pass
    return torch.optim.SGD(parameters, **how), "plain"


def make_scaler():
    new = getattr(torch.amp, "GradScaler", None)
    return new("cuda") if new else torch.cuda.amp.GradScaler()


class Step:
    def __init__(self, device, net, batch, way):
        self.cuda, words = device.startswith("cuda"), way.split()
        self.device, self.kind = device, {"fp16": torch.float16, "bf16": torch.bfloat16,
                                          "tf32": None}[words[0]]
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        torch.manual_seed(1)
        make = torch_train_nets.NETS[net][0]
        model = make().train().to(device, memory_format=torch.channels_last)
        self.optimizer, self.sgd = make_sgd(list(model.parameters()))
        self.scaler = make_scaler() if words[0] == "fp16" else None
        # As our DummyData: numbers that are all alike make a card faster than others do.
        self.x = torch.full((batch, 3, make.size, make.size), 0.5, device=device).to(
            memory_format=torch.channels_last)
        self.labels = torch.zeros(batch, dtype=torch.long, device=device)
        self.model = self.compiled(model) if "compiled" in words else model
        self.graph = None
        if "graph" in words:
            self.capture()
        else:
            for _ in range(WARM):
                self.one()
        self.wait()

    def compiled(self, model):
        torch._dynamo.reset()
        return torch.compile(model)

    def one(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda" if self.cuda else "cpu", self.kind or torch.bfloat16,
                            enabled=self.kind is not None):
            loss = self.model(self.x, self.labels)
        if self.scaler:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            loss.backward()
            self.optimizer.step()
        self.loss = loss.detach()

    def capture(self):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                self.one()
        torch.cuda.current_stream().wait_stream(side)
        self.wait()
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.one()
        self.graph = graph
        for _ in range(WARM):
            graph.replay()

    def wait(self):
        if self.cuda:
            torch.cuda.synchronize()

    def run(self, seconds):
        """Milliseconds a step; pieces of about a fifth of the time, so that the host never
        runs far ahead."""
        step = self.graph.replay if self.graph else self.one
        begun = time.perf_counter()
        step()
        self.wait()
        piece = max(1, int(seconds / 5 / max(1e-4, time.perf_counter() - begun)))
        count, begun = 0, time.perf_counter()
        while count == 0 or time.perf_counter() - begun < seconds:
            for _ in range(piece):
                step()
            self.wait()
            count += piece
        return (time.perf_counter() - begun) * 1e3 / count, count


class Peer:
    def __init__(self, device):
        self.device, self.step = device, None
        if device.startswith("cuda") and not torch.cuda.is_available():
            self.device = None

    def about(self):
        if not self.device:
            return {"error": "torch %s sees no CUDA device" % torch.__version__}
        return {"torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}

    def open(self, net, batch, way):
        begun = time.monotonic()
        self.step = Step(self.device, net, batch, way)
        return {"open_s": round(time.monotonic() - begun, 2), "sgd": self.step.sgd}

    def run(self, seconds):
        ms, count = self.step.run(seconds)
        memory = torch.cuda.max_memory_allocated() if self.step.cuda else None
        return {"ms": ms, "steps": count, "loss": self.step.loss.item(), "memory_bytes": memory}

    def close(self):
        self.step = None
        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return {}

    def answer(self, request):
        do = request.pop("do")
        try:
            return getattr(self, do)(**request)
        except Exception as error:  # of any of its libraries: told, and the next may work
            if do == "open":
                self.step = None
            return {"error": "%s: %s" % (type(error).__name__, str(error)[-600:])}


def main():
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes elsewhere
    os.dup2(2, 1)
    peer = Peer(sys.argv[1] if len(sys.argv) > 1 else "cuda:0")
    for line in sys.stdin:
        answers.write(json.dumps(peer.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
