"""Each CUDA, cuDNN and cuBLAS call of the module stands in the table, with a
release that the oldest supported toolkit has. Usage: calls.py TABLE MODULE"""
import re
import subprocess
import sys

NEWEST = {"CUDA": 11, "cuDNN": 8}
# What CUDA 12's headers put in place of an older name; both are in the table.
RENAMED = {"cudaGetDeviceProperties_v2": "cudaGetDeviceProperties"}


def read_table(path):
    table = {}
    for line in open(path, encoding="utf-8"):
        words = line.split()
        if words and not line.startswith("#"):
            table[words[0]] = (words[1], int(words[2]) if len(words) > 2 else None)
    return table


def calls_of(module):
    listed = subprocess.run(["nm", "-D", "--undefined-only", module], check=True,
                            capture_output=True, text=True).stdout
    return set(re.findall(r"\b((?:__)?(?:cuda|cudnn|cublas)\w+)", listed))


def main():
    table, calls = read_table(sys.argv[1]), calls_of(sys.argv[2])
    wrong = [f"{call}: not in the table" for call in sorted(calls - set(table))]
    for call, (library, release) in table.items():
        if release and release > NEWEST[library] and RENAMED.get(call) not in table:
            wrong.append(f"{call}: came with {library} {release}, {NEWEST[library]} is the newest")
    if len(calls) < 40:
        wrong.append(f"only {len(calls)} calls were found in {sys.argv[2]}")
    print("\n".join(wrong) or f"{len(calls)} calls, all in the table")
    return 1 if wrong else 0


sys.exit(main())
