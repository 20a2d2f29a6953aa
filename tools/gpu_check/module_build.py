"""The CUDA module, and the probe of its libraries, from their sources, with nothing but nvcc, a
C compiler and CUDA's headers and libraries: what a machine can do that has none of the
program's other libraries."""
import concurrent.futures
import glob
import os
import subprocess

from . import machine

GRAPH = ("comm.c", "forms.c", "fuse.c", "graph.c", "precision.c", "tensor.c")


def sources(root):
    """Of the module, of both, and of the probe."""
    inside = lambda pattern: sorted(glob.glob(os.path.join(root, pattern)))
    common = ([os.path.join(root, "src/device", name) for name in GRAPH] +
              inside("src/base/*.c") + inside("kernels/*.cu") +
              [os.path.join(root, "src/device/cuda/nccl.c")])
    module = [path for path in inside("src/device/cuda/*.c") if path not in common]
    return module, common, inside("tests/cuda_sim/probe*.c")


def command_of(source, target, root, headers):
    ours = ["-I" + os.path.join(root, folder) for folder in ("", "src", "include", "tests")]
    theirs = ["-isystem" + folder for folder in dict.fromkeys(headers.values())]
    if source.endswith(".cu"):
        return [machine.find_nvcc(), "-std=c++17", "-O3", "-arch=native", "-Xcompiler",
                "-fPIC,-fvisibility=hidden,-Wall,-Wextra", *ours,
                "-c", source, "-o", target]
    return ["cc", "-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra",
            "-Wno-missing-field-initializers", "-D_GNU_SOURCE", "-ffunction-sections",
            '-DSACCADE_VERSION="0"', *ours, *theirs, "-c", source, "-o", target]


def compile_one(job):
    command, source = job
    done = subprocess.run(command, capture_output=True, text=True)
    return source, done.returncode, done.stdout + done.stderr


def build(root, folder, libraries, headers, log):
    """0 and a module in `folder`, or not 0; what the compilers say goes to the log. Beside it
    the probe, where that can be had."""
    if not machine.find_nvcc() or not {"cudnn.h", "cublasLt.h"} <= set(headers):
        log.write("no nvcc, or no headers of cuDNN and cuBLAS: %s\n" % headers)
        return 1
    os.makedirs(folder, exist_ok=True)
    module, common, probe = sources(root)
    targets = {source: os.path.join(folder, "%d.o" % number)
               for number, source in enumerate(module + common + probe)}
    jobs = [(command_of(source, target, root, headers), source)
            for source, target in targets.items()]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(compile_one, jobs))
    for source, status, text in results:
        if status or text:
            log.write("%s: %d\n%s" % (source, status, text))
    failed = {source for source, status, _ in results if status}
    if failed & {*module, *common}:
        return 1
    link(os.path.join(folder, "probe_card"), [], [targets[source] for source in probe + common],
         libraries, log)
    return link(os.path.join(folder, "saccade_cuda.so"), ["-shared"],
                [targets[source] for source in module + common], libraries, log)


def link(target, options, objects, libraries, log):
    named = [path for name, path in libraries.items() if name != "libcublas.so"]
    done = subprocess.run(["cc", *options, "-Wl,--gc-sections", "-Wl,--as-needed", "-o", target,
                           *objects, *named, "-lstdc++", "-lpthread", "-ldl", "-lm"],
                          capture_output=True, text=True)
    log.write(done.stdout + done.stderr)
    return done.returncode
