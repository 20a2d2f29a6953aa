#!/usr/bin/env python3
"""Writes files as C arrays: embed.py OUT.c PREFIX FILE…

A file a/b/app.js becomes `const unsigned char PREFIX_app_js[]` and
`const size_t PREFIX_app_js_size`.
"""
import os
import re
import sys


def array_of(name, data):
    lines = [f"const unsigned char {name}[] = {{"]
    for at in range(0, len(data), 16):
        lines.append("    " + ", ".join(str(byte) for byte in data[at:at + 16]) + ",")
    lines.append("};")
    lines.append(f"const size_t {name}_size = {len(data)};")
    return "\n".join(lines)


def main():
    out, prefix, paths = sys.argv[1], sys.argv[2], sys.argv[3:]
    parts = ['#include "serve/ui.h"']
    for path in paths:
        name = prefix + "_" + re.sub(r"\W", "_", os.path.basename(path))
        with open(path, "rb") as file:
            parts.append(array_of(name, file.read()))
    with open(out, "w", encoding="ascii") as file:
        file.write("\n\n".join(parts) + "\n")


main()
