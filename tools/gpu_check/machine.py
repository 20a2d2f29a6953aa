"""What this machine has: the card, CUDA's libraries and headers, versions."""
import glob
import json
import os
import platform
import re
import shutil
import subprocess
import sys

LIBRARIES = ("libcudart.so", "libcudnn.so", "libcublasLt.so", "libcublas.so", "libnccl.so")
HEADERS = ("cuda_runtime_api.h", "cudnn.h", "cublasLt.h", "nccl.h")


def said(command, seconds=30):
    """What a command prints; "" where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds,
                              stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def packages_folders():
    """Where pip puts CUDA's libraries, for the python3 that holds PyTorch."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    folders = {said(["python3", "-c", code]), os.path.join(sys.prefix, "lib")}
    return [folder for folder in folders if folder]


def candidates(kind):
    """Folders that may hold libraries (kind "lib") or headers ("include"), likeliest first."""
    roots = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")]
    roots += ["/usr/local/cuda"] + sorted(glob.glob("/usr/local/cuda-*"), reverse=True)
    nvcc = find_nvcc()
    if nvcc:
        roots.append(os.path.dirname(os.path.dirname(os.path.realpath(nvcc))))
    names = ("lib64", "lib", "targets/x86_64-linux/lib") if kind == "lib" else (
        "include", "targets/x86_64-linux/include")
    found = [os.path.join(root, name) for root in roots if root for name in names]
    system = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/local/nvidia/lib64"]
    found += system if kind == "lib" else ["/usr/include", "/usr/include/x86_64-linux-gnu"]
    for folder in packages_folders():
        found += sorted(glob.glob(os.path.join(folder, "nvidia", "*", kind)))
    if kind == "lib":
        found = os.environ.get("LD_LIBRARY_PATH", "").split(":") + found
    return [folder for folder in dict.fromkeys(found) if folder and os.path.isdir(folder)]


def find_nvcc():
    return shutil.which("nvcc") or next(
        (path for path in ["/usr/local/cuda/bin/nvcc"] + glob.glob("/usr/local/cuda-*/bin/nvcc")
         if os.path.exists(path)), None)


def find_libraries():
    """{"libcudnn.so": path}: the newest file of each in the first folder that has it."""
    found = {}
    for name in LIBRARIES:
        for folder in candidates("lib"):
            files = sorted(glob.glob(os.path.join(folder, name + "*")), key=lambda f: (len(f), f))
            if files:
                found[name] = files[0] if os.path.islink(files[0]) else files[-1]
                break
    return found


def find_headers():
    found = {}
    for name in HEADERS:
        for folder in candidates("include"):
            if os.path.exists(os.path.join(folder, name)):
                found[name] = folder
                break
    return found


def library_path(libraries):
    """For LD_LIBRARY_PATH: CUDA's folders, then what was there. System folders stay out,
    since the loader knows them and they hold more than CUDA."""
    folders = [os.path.dirname(path) for path in libraries.values()]
    folders += os.environ.get("LD_LIBRARY_PATH", "").split(":")
    if os.path.isdir("/usr/local/nvidia/lib64"):
        folders.append("/usr/local/nvidia/lib64")
    return [folder for folder in dict.fromkeys(folders)
            if folder and not folder.startswith(("/usr/lib", "/lib"))]


def works(listed, name="cuda:0"):
    """Whether `saccade devices --json` has the device, and no reason why it is missing."""
    try:
        return any(row.get("name") == name and "missing" not in row for row in json.loads(listed))
    except ValueError:
        return False


def cards():
    query = "name,memory.total,driver_version,compute_cap,clocks.max.sm,power.limit"
    text = said(["nvidia-smi", "--query-gpu=" + query, "--format=csv,noheader,nounits"])
    return [dict(zip(query.split(","), (word.strip() for word in line.split(","))))
            for line in text.splitlines()]


def cpu_name():
    with open("/proc/cpuinfo") as file:
        found = re.search(r"model name\s*:\s*(.*)", file.read())
    return found.group(1) if found else platform.machine()


def system_name():
    try:
        with open("/etc/os-release") as file:
            found = re.search(r'^PRETTY_NAME="?([^"\n]*)', file.read(), re.M)
        return found.group(1) if found else ""
    except OSError:
        return ""


def describe(libraries):
    nvcc = find_nvcc()
    torch = "import torch; print(torch.__version__, torch.version.cuda, torch.backends.cudnn.version())"
    release = re.search(r"release ([\d.]+), V([\d.]+)", said([nvcc, "--version"]) if nvcc else "")
    return {
        "cards": cards(), "nvcc": release.group(2) if release else None,
        "libraries": {name: os.path.realpath(path) for name, path in libraries.items()},
        "torch": said(["python3", "-c", torch], 120) or None, "cpu": cpu_name(),
        "cores": os.cpu_count(), "kernel": platform.release(), "system": system_name(),
        "glibc": glibc_version(), "python": platform.python_version(),
        "compiler": said(["cc", "--version"]).split("\n")[0] or None,
    }


def glibc_version():
    try:
        return os.confstr("CS_GNU_LIBC_VERSION").split()[-1]
    except (ValueError, OSError, AttributeError):
        return "0"


def older(a, b):
    """Whether release a came before b."""
    return [int(x) for x in re.findall(r"\d+", a)] < [int(x) for x in re.findall(r"\d+", b)]
