"""What the end-to-end tests of several ranks share: nets and their weights, waiting for
snapshots, and the processes below one."""
import glob
import os
import re
import struct
import time

import training
from harness import SLOW, need, read

# No dropout, no batch statistics.
PLAIN = re.sub(r'layer \{ name: "(b1|d1|s1)".*\n', "", training.NET).replace('"b1"', '"c1"')


def place(name, more, net=training.NET):
    base = training.place(name, more)
    with open(os.path.join(base, "net.prototxt"), "w") as file:
        file.write(net)
    return base


def fields(bytes_):
    """(number, content) of a protobuf message; content: bytes, or a number."""
    at = 0

    def varint():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = bytes_[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(bytes_):
        key = varint()
        kind = key & 7
        size = varint() if kind in (0, 2) else {1: 8, 5: 4}[kind]
        if kind == 0:
            yield key >> 3, size
            continue
        yield key >> 3, bytes_[at:at + size]
        at += size


def weights(base, iteration):
    """All numbers of a caffemodel: layer 100, blobs 7, data 5."""
    out = []
    for number, layer in fields(read(training.paths(base, iteration)[0])):
        if number != 100:
            continue
        for inner, blob in fields(layer):
            if inner == 7:
                for k, content in fields(blob):
                    if k == 5:
                        out += struct.unpack("<%df" % (len(content) // 4), content)
    return out


def apart(a, b):
    """|a − b| / |b|."""
    need(len(a) == len(b) and len(b) > 1000, len(a), len(b))
    return (sum((x - y) ** 2 for x, y in zip(a, b)) / sum(y * y for y in b)) ** .5


def wait_for_snapshot(base, process, iteration):
    """Until a snapshot of that iteration or a later one is there."""
    until = time.monotonic() + 120 * SLOW
    while time.monotonic() < until and process.poll() is None:
        at = [int(re.search(r"_iter_(\d+)", n).group(1))
              for n in glob.glob(os.path.join(base, "small_iter_*.solverstate"))]
        if at and max(at) >= iteration:
            return
        time.sleep(.02)
    ended = process.poll()
    process.kill()
    need(False, "no snapshot:", ended, process.communicate()[0])


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
        return [int(word) for word in file.read().split()]


def child_of(process):
    until = time.monotonic() + 60
    while not children(process.pid) and time.monotonic() < until:
        time.sleep(.02)
    return children(process.pid)[0]


def ends(pid, until):
    while os.path.exists("/proc/%d" % pid) and time.monotonic() < until:
        time.sleep(.05)
    return not os.path.exists("/proc/%d" % pid)
