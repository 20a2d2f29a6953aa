"""Each CUDA, cuDNN, cuBLAS and NCCL call of the module stands in the table, with a
release that the oldest supported toolkit has, or "guarded": there is another way without it.
Usage: calls.py TABLE MODULE"""
import re
import subprocess
import sys

NEWEST = {"CUDA": (11,), "cuDNN": (8,), "NCCL": (2, 4)}
# What CUDA 12's headers put in place of an older name; both are in the table.
RENAMED = {"cudaGetDeviceProperties_v2": "cudaGetDeviceProperties"}


def read_table(path):
    table = {}
    for line in open(path, encoding="utf-8"):
        words = line.split()
        if words and not line.startswith("#"):
            release = tuple(map(int, words[2].split("."))) if len(words) > 2 else None
            table[words[0]] = (words[1], release, "guarded" in words[3:])
    return table


def calls_of(module):
    listed = subprocess.run(["nm", "-D", "--undefined-only", module], check=True,
                            capture_output=True, text=True).stdout
    strings = subprocess.run(["readelf", "-p", ".rodata", module], check=True,
                             capture_output=True, text=True, errors="replace").stdout
    return set(re.findall(r"\b((?:__)?(?:cuda|cudnn|cublas)\w+)", listed)) | set(
        re.findall(r"\]\s+(nccl[A-Z]\w+)$", strings, re.M))  # looked up by name at run time


def main():
    table, calls = read_table(sys.argv[1]), calls_of(sys.argv[2])
    wrong = [f"{call}: not in the table" for call in sorted(calls - set(table))]
    for call, (library, release, guarded) in table.items():
        if release and release > NEWEST[library] and not guarded and RENAMED.get(call) not in table:
            wrong.append(f"{call}: came with {library} {release}, {NEWEST[library]} is the newest")
        if library == "NCCL" and call not in calls:
            wrong.append(f"{call}: in the table, and not called")
    if len(calls) < 40:
        wrong.append(f"only {len(calls)} calls were found in {sys.argv[2]}")
    print("\n".join(wrong) or f"{len(calls)} calls, all in the table")
    return 1 if wrong else 0


sys.exit(main())
