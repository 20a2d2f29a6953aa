#!/usr/bin/python3
"""ONNX BATCH CHANNELS HEIGHT WIDTH: passes of a net by OpenCV's DNN module on one
thread. Answers each line N with "WALL CPU", milliseconds a pass of N."""
import sys
import time

import cv2
import numpy


def main():
    cv2.setNumThreads(1)
    shape = [int(n) for n in sys.argv[2:6]]
    net = cv2.dnn.readNetFromONNX(sys.argv[1])
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    count = numpy.prod(shape)
    net.setInput((numpy.arange(count) % 251 / 251).astype(numpy.float32).reshape(shape))
    net.forward()
    print("ready", flush=True)
    for line in sys.stdin:
        times = int(line)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            net.forward()
        print(1e3 * (time.perf_counter() - wall) / times,
              1e3 * (time.process_time() - cpu) / times, flush=True)


main()
