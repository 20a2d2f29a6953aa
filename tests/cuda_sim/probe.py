"""Does the simulator answer as cards do? Runs the probe and compares its lines that begin
with "must" with those that a card gave (fixtures/); without fixtures it checks only that
every call of the table is probed.

    probe.py PROGRAM TABLE FIXTURES_FOLDER
"""
import os
import subprocess
import sys

# Made by the compiler or by a header in place of what is probed.
BY_ANOTHER_NAME = {"cudaGetDeviceProperties_v2": "cudaGetDeviceProperties",
                   "cudaGraphInstantiateWithFlags": "cudaGraphInstantiate"}


def musts(text):
    """{"call case": (status, tolerance, numbers)}"""
    out = {}
    for line in text.splitlines():
        if not line.startswith("must "):
            continue
        name, _, answer = line[5:].rpartition(": ")
        status, _, numbers = answer.partition(" ~")
        words = [float(word) for word in numbers.split()]
        out[name] = (status, words[0] if words else 0, words[1:])
    return out


def differences(expected, found):
    for name, (status, tolerance, numbers) in expected.items():
        if name not in found:
            yield "%s: not probed" % name
            continue
        other, _, others = found[name]
        if other != status:
            yield "%s: %s, the card said %s" % (name, other, status)
        elif len(others) != len(numbers):
            yield "%s: %d numbers, the card gave %d" % (name, len(others), len(numbers))
        else:
            most = max(map(abs, numbers), default=0) or 1
            for i, (a, b) in enumerate(zip(others, numbers)):
                if not abs(a - b) <= tolerance * most:
                    yield "%s: number %d is %g, the card gave %g" % (name, i, a, b)
                    break


def unprobed(table, found):
    probed = {name.split()[0] for name in found}
    for line in open(table, encoding="utf-8"):
        words = line.split()
        if words[1:2] == ["NCCL"] and "ncclGetVersion" not in probed:
            continue  # there is none here
        if len(words) >= 3 and not line.startswith("#"):
            call = BY_ANOTHER_NAME.get(words[0], words[0])
            if call not in probed:
                yield "%s: never probed" % call


def main():
    program, table, folder = sys.argv[1:]
    done = subprocess.run([program], capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-500:] + done.stderr)
        return 1
    found = musts(done.stdout)
    wrong = list(unprobed(table, found))
    fixtures = sorted(name for name in os.listdir(folder) if name.endswith(".txt"))
    for name in fixtures:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            wrong += ["%s: %s" % (name, text) for text in differences(musts(file.read()), found)]
    print("\n".join(wrong))
    print("%d answers; compared with %s; %d differences" % (
        len(found), ", ".join(fixtures) or "no card's: none is recorded yet", len(wrong)))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
