"""Programs built here, with all that they need elsewhere but CUDA: packed and unpacked."""
import glob
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile

from . import cifar, machine

GLIBC = re.compile(r"(ld-linux.*|lib(c|m|pthread|dl|rt|resolv|util|anl|nsl|mvec))\.so(\..*)?$")
CUDA = re.compile(r"lib(cuda|cudnn|cublas|nccl|nvrtc|nvidia).*\.so")
PICTURES = 24


def run(command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


# ---- Packing ----------------------------------------------------------------

def card_tests(build):
    """The tests that run on a card: {"device/cuda/ops": [program, argument …]}."""
    tests = json.loads(run(["meson", "introspect", "--tests", build]))
    return {test["name"].replace(" on a card", ""): test["cmd"] for test in tests
            if test["name"].endswith(" on a card")}


def programs_of(build):
    inside = {"saccade": "src/cli/saccade", "time_plans": "tests/device/cuda/time_plans",
              "time_comm": "tests/device/cuda/time_comm",
              "probe_card": "tests/cuda_sim/probe_card"}
    found = {name: os.path.join(build, path) for name, path in inside.items()}
    for command in card_tests(build).values():
        found[os.path.basename(command[0])] = command[0]
    return found


def needed_libraries(programs):
    """{file name: path} of all that the loader would load, glibc's and the others apart."""
    glibc, others = {}, {}
    for path in programs:
        for name, found in re.findall(r"^\s*(\S+)(?: => (\S+))? \(0x", run(["ldd", path]), re.M):
            base, real = os.path.basename(name), found or name
            if not os.path.exists(real) or CUDA.match(base):
                continue
            (glibc if GLIBC.match(base) else others)[base] = real
    return glibc, others


def copy_stripped(source, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(os.path.realpath(source), target)
    os.chmod(target, 0o755)
    subprocess.run(["strip", "--strip-unneeded", target], capture_output=True)


def picture_size(path):
    """Width and height of a JPEG, by its frame header; None for others."""
    with open(path, "rb") as file:
        data = file.read()
    at = 2
    while at + 9 < len(data) and data[at] == 0xff:
        if 0xc0 <= data[at + 1] <= 0xc2:
            return (data[at + 7] << 8 | data[at + 8], data[at + 5] << 8 | data[at + 6])
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None


def copy_data(source, target):
    """Nets, one small model, pictures of 500 x 375, and of CIFAR-10 what the check trains."""
    shutil.copytree(os.path.join(source, "nets"), os.path.join(target, "nets"))
    model = os.path.join(source, "squeezenet_v1.1")
    shutil.copytree(model, os.path.join(target, "squeezenet_v1.1"))
    labels = os.path.join(target, "squeezenet_v1.1", "labels.txt")
    words = os.path.join(source, "ilsvrc12", "synset_words.txt")
    if not glob.glob(os.path.join(model, "*.txt")) and os.path.exists(words):
        shutil.copyfile(words, labels)
    os.makedirs(os.path.join(target, "pictures"))
    usual = [path for path in sorted(glob.glob(os.path.join(source, "imagenet_samples", "*.JPEG")))
             if picture_size(path) == (500, 375)]
    for path in usual[:PICTURES]:
        shutil.copy(path, os.path.join(target, "pictures"))
    for name, count in (("train", cifar.TRAIN), ("test", cifar.TEST)):
        cifar.take(os.path.join(source, "cifar10"), name, count,
                   os.path.join(target, "cifar10", name + ".bin"))
    for name in (cifar.NET, cifar.MEAN):
        os.makedirs(os.path.dirname(os.path.join(target, name)), exist_ok=True)
        shutil.copy(os.path.join(source, name), os.path.join(target, name))
    subprocess.run(["chmod", "-R", "u+w", target])


def manifest_of(build, commit, probe):
    return {"commit": commit, "glibc": machine.glibc_version(), "tests": {
        name: [os.path.basename(command[0])] + command[1:]
        for name, command in card_tests(build).items()},
        "simulated_probe": run([probe]) if os.path.exists(probe) else ""}


def pack(build, data, path, commit, simulated=False):
    """With `simulated`, the simulator's module and probe in place of the real ones: to check
    that the programs start elsewhere, without a card."""
    module = "tests/device/cuda" if simulated else "src/device/cuda"
    with tempfile.TemporaryDirectory() as folder:
        top = os.path.join(folder, "bundle")
        programs = programs_of(build)
        if simulated:
            programs["probe_card"] = os.path.join(build, "tests/cuda_sim/probe")
        for name, source in programs.items():
            copy_stripped(source, os.path.join(top, "programs", name))
        copy_stripped(os.path.join(build, module, "saccade_cuda.so"),
                      os.path.join(top, "module", "saccade_cuda.so"))
        glibc, others = needed_libraries(programs.values())
        for names, where in ((glibc, "glibc"), (others, "lib")):
            for name, source in names.items():
                copy_stripped(source, os.path.join(top, where, name))
        copy_data(data, os.path.join(top, "data"))
        with open(os.path.join(top, "manifest.json"), "w") as file:
            json.dump(manifest_of(build, commit, os.path.join(build, "tests/cuda_sim/probe")), file)
        with tarfile.open(path, "w:xz") as tar:
            tar.add(top, "bundle")
    return os.path.getsize(path)


# ---- Using ------------------------------------------------------------------

def unpack(source, folder):
    """A bundle's folder from the tar, or from a folder that holds it unpacked."""
    if os.path.isdir(source):
        inner = os.path.join(source, "bundle")
        return inner if os.path.isdir(inner) else source
    with tarfile.open(source) as tar:
        tar.extractall(folder)
    return os.path.join(folder, "bundle")


def write_starters(top, bin_folder, module, libraries, built_here=None):
    """A script a program, so that others start it by its name alone. Where this machine's
    C library is older than the bundle's, the bundle's own and its loader are used; not for
    programs that were built here ({name: path})."""
    with open(os.path.join(top, "manifest.json")) as file:
        manifest = json.load(file)
    folders = [os.path.join(top, "lib")] + machine.library_path(libraries)
    start = ""
    if machine.older(machine.glibc_version(), manifest["glibc"]):
        folders = [os.path.join(top, "glibc")] + folders + ["/usr/lib/x86_64-linux-gnu", "/usr/lib64"]
        loader = glob.glob(os.path.join(top, "glibc", "ld-linux*"))[0]
        start = "%s --library-path %s " % (loader, ":".join(folders))
    os.makedirs(bin_folder, exist_ok=True)
    here = built_here or {}
    for name in sorted({*os.listdir(os.path.join(top, "programs")), *here}):
        lines = ["#!/bin/sh", "export SACCADE_MODULE_DIR='%s'" % module]
        if name in here:
            lines.append("export LD_LIBRARY_PATH='%s'" % ":".join(machine.library_path(libraries)))
        elif not start:
            lines.append("export LD_LIBRARY_PATH='%s'" % ":".join(folders))
        lines.append('exec %s%s "$@"' % ("" if name in here else start,
                                         here.get(name) or os.path.join(top, "programs", name)))
        path = os.path.join(bin_folder, name)
        with open(path, "w") as file:
            file.write("\n".join(lines) + "\n")
        os.chmod(path, 0o755)
    return manifest
