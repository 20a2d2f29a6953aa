"""The CUDA module from its sources, with nothing but nvcc, a C compiler and CUDA's headers
and libraries: what a machine can do that has none of the program's other libraries."""
import concurrent.futures
import glob
import os
import subprocess

from . import machine

GRAPH = ("comm.c", "forms.c", "fuse.c", "graph.c", "precision.c", "tensor.c")


def sources(root):
    return (sorted(glob.glob(os.path.join(root, "src/device/cuda/*.c"))) +
            [os.path.join(root, "src/device", name) for name in GRAPH] +
            sorted(glob.glob(os.path.join(root, "src/base/*.c"))),
            sorted(glob.glob(os.path.join(root, "kernels/*.cu"))))


def command_of(source, target, root, headers):
    ours = ["-I" + os.path.join(root, folder) for folder in ("", "src", "include")]
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
    """0 and a module in `folder`, or not 0; what the compilers say goes to the log."""
    if not machine.find_nvcc() or not {"cudnn.h", "cublasLt.h"} <= set(headers):
        log.write("no nvcc, or no headers of cuDNN and cuBLAS: %s\n" % headers)
        return 1
    os.makedirs(folder, exist_ok=True)
    jobs, objects = [], []
    for number, source in enumerate(sum(sources(root), [])):
        objects.append(os.path.join(folder, "%d.o" % number))
        jobs.append((command_of(source, objects[-1], root, headers), source))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(compile_one, jobs))
    for source, status, text in results:
        if status or text:
            log.write("%s: %d\n%s" % (source, status, text))
    if any(status for _, status, _ in results):
        return 1
    named = [path for name, path in libraries.items() if name != "libcublas.so"]
    link = ["cc", "-shared", "-Wl,--gc-sections", "-Wl,--as-needed", "-o",
            os.path.join(folder, "saccade_cuda.so"), *objects, *named, "-lstdc++", "-lpthread", "-ldl",
            "-lm"]
    done = subprocess.run(link, capture_output=True, text=True)
    log.write(done.stdout + done.stderr)
    return done.returncode
