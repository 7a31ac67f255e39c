"""Runs scenarios natively, against the double: one a line, its arguments separated by U+001F."""

import sys

from scenarios import run

for line in sys.stdin:
    try:
        told = f"ok {run(line.removesuffix(chr(10)).split(chr(31)))}"
    except Exception as failure:
        told = f"error {failure}"
    print(told.replace("\n", chr(30)))
