#!/usr/bin/python3
"""PROTOTXT BATCH MODE: passes of a net by PyTorch on one thread. MODE: f32, f32-last
(channels last) or bf16-last; or onnx:FILE, which only writes that, or products:FILE, the
list for forward_onednn. Says its GMAC a
picture, then answers each line N with "WALL CPU", milliseconds a pass of N."""
import math
import os
import sys
import time
import warnings

os.environ["OMP_NUM_THREADS"] = "1"
warnings.filterwarnings("ignore")

import torch  # noqa: E402

import caffe_net  # noqa: E402


def main():
    path, batch, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    net = caffe_net.CaffeNet(path)
    print(net.macs / 1e9, flush=True)
    if mode.startswith("onnx:"):
        caffe_net.export(path, net, mode[5:], batch)
        return
    if mode.startswith("products:"):
        with open(mode[9:], "w") as file:
            for product in net.products:
                print(*product, file=file)
        return
    shape = (batch, *net.shape)
    x = (torch.arange(math.prod(shape)) % 251 / 251).float().reshape(shape)
    if mode.endswith("last"):
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    if mode.startswith("bf16"):
        net, x = net.bfloat16(), x.bfloat16()
    with torch.inference_mode():
        net(x)
        for line in sys.stdin:
            times = int(line)
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(times):
                net(x)
            print(1e3 * (time.perf_counter() - wall) / times,
                  1e3 * (time.process_time() - cpu) / times, flush=True)


main()
