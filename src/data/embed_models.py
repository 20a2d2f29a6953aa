#!/usr/bin/env python3
"""Writes models' definitions as C text: embed_models.py OUT.c FOLDER…

Each FOLDER's deploy.prototxt and model.json become a line of sac_model_definitions.
"""
import os
import sys


def literal(path):
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return "\n".join(f'     "{line}\\n"' for line in escaped)


def main():
    parts = ['#include "data/known_models.h"\n',
             "const struct sac_model_definition sac_model_definitions[] = {"]
    for folder in sys.argv[2:]:
        parts.append(f'    {{"{os.path.basename(folder)}",')
        parts.append(literal(os.path.join(folder, "deploy.prototxt")) + ",")
        parts.append(literal(os.path.join(folder, "model.json")) + "},")
    parts.append("    {0}};")
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write("\n".join(parts) + "\n")


main()
