#!/usr/bin/env python3
"""Counts what tools/test ran.

Usage: summary.py OTHERS LOG...

LOG is the log base of one `meson test` run: LOG.json has each program's result,
LOG.junit.xml the cases of those that speak TAP. OTHERS has one outcome a line,
"passed|failed|skipped<tab>name". Names what failed and what was skipped; the
last line is "N passed, N failed, N skipped".
"""
import json
import os
import sys
import xml.etree.ElementTree as xml

BAD = {"FAIL", "ERROR", "TIMEOUT", "INTERRUPT", "UNEXPECTEDPASS"}


def program_of(name):
    """The test's own name: meson puts "project:suite / " before it once any test
    has a suite."""
    return name.rpartition(" / ")[2]


def cases_by_program(log):
    """{program: [(outcome, case)]} of the programs that report cases."""
    programs = {}
    path = log + ".junit.xml"
    if not os.path.exists(path):
        return programs
    for suite in xml.parse(path).getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            program = program_of(case.get("classname", "").partition(".")[2])
            if not program:
                continue  # a program without cases: its result is in the JSON
            outcome = "passed"
            if case.find("skipped") is not None:
                outcome = "skipped"
            elif case.find("failure") is not None or case.find("error") is not None:
                outcome = "failed"
            programs.setdefault(program, []).append((outcome, case.get("name")))
    return programs


def how_it_ended(result):
    if result["result"] == "TIMEOUT":
        return "timed out"
    code = result["returncode"]
    return "killed by signal %d" % -code if code < 0 else "ended with status %d" % code


def outcomes_of(log):
    """(outcome, name) of every case, and of every program that has none or
    that broke beside its cases: a crash, a time-out, cases that never ran."""
    label = os.path.basename(log)
    cases = cases_by_program(log)
    with open(log + ".json") as lines:
        results = [json.loads(line) for line in lines if line.strip()]
    for result in results:
        name = program_of(result["name"])
        own = cases.get(name, [])
        for outcome, case in own:
            yield outcome, "%s: %s: %s" % (label, name, case)
        bad = result["result"] in BAD
        counted = any(outcome == "failed" for outcome, _ in own)
        if bad and (not counted or result["result"] == "TIMEOUT" or result["returncode"] < 0):
            yield "failed", "%s: %s %s" % (label, name, how_it_ended(result))
        elif not bad and not own:
            outcome = "skipped" if result["result"] == "SKIP" else "passed"
            yield outcome, "%s: %s" % (label, name)


def main(others, logs):
    names = {"passed": [], "failed": [], "skipped": []}
    for log in logs:
        for outcome, name in outcomes_of(log):
            names[outcome].append(name)
    with open(others) as lines:
        for line in lines:
            outcome, _, name = line.rstrip("\n").partition("\t")
            names[outcome].append(name)
    print()
    for outcome in ("skipped", "failed"):
        for name in names[outcome]:
            print("%s: %s" % (outcome, name))
    print("%d passed, %d failed, %d skipped"
          % (len(names["passed"]), len(names["failed"]), len(names["skipped"])))
    return 1 if names["failed"] or not names["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
