"""Prints what supervised processes say, each line with its process' name. Decides nothing.

A supervisord event listener: http://supervisord.org/events.html. It reads events on standard
input, answers on standard output, and writes the lines to the file or pipe given by --to.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TextIO

from supervisor import childutils

_WIDTH = 13
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)


class Printer:
    """Holds the unfinished last line of each process until its end comes."""

    def __init__(self, to: TextIO, *, in_colour: bool) -> None:
        self._to = to
        self._in_colour = in_colour
        self._partial: dict[str, str] = {}
        self._colours: dict[str, int] = {}

    def output(self, process: str, data: str) -> None:
        """Print the lines that `data` completes."""
        lines = (self._partial.pop(process, "") + data).split("\n")
        if lines[-1]:
            self._partial[process] = lines[-1]
        for line in lines[:-1]:
            self._line(process, line)

    def ended(self, process: str, text: str) -> None:
        """Print what is left of a process that has ended, and that it has."""
        rest = self._partial.pop(process, "")
        if rest:
            self._line(process, rest)
        self._line(process, text)

    def _line(self, process: str, line: str) -> None:
        name = f"{process:<{_WIDTH}}|"
        if self._in_colour:
            colour = self._colours.setdefault(
                process, _COLOURS[len(self._colours) % len(_COLOURS)]
            )
            name = f"\033[{colour}m{name}\033[0m"
        self._to.write(f"{name} {line}\n")
        self._to.flush()


def main() -> None:
    """Answer events until supervisord closes standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument(
        "--once", action="append", default=[], help="ends when its work is done"
    )
    parser.add_argument("--colour", action="store_true")
    options = parser.parse_args()
    with options.to.open("a", encoding="utf-8") as to:
        answer_events(Printer(to, in_colour=options.colour), set(options.once))


def answer_events(printer: Printer, once: set[str]) -> None:
    """Print what each event says; programs in `once` may end without a word."""
    while True:
        headers, payload = childutils.listener.wait(sys.stdin, sys.stdout)
        name = headers["eventname"]
        if name.startswith("PROCESS_LOG"):
            head, _, data = payload.partition("\n")
            printer.output(childutils.get_headers(head)["processname"], data)
        elif name == "PROCESS_STATE_EXITED":
            fields = childutils.get_headers(payload)
            if fields["processname"] not in once:
                printer.ended(
                    fields["processname"], f"ended (pid {fields['pid']}); starting it again"
                )
        elif name == "PROCESS_STATE_FATAL":
            fields = childutils.get_headers(payload)
            printer.ended(
                fields["processname"], "keeps failing; given up. See the lines above."
            )
        childutils.listener.ok(sys.stdout)


if __name__ == "__main__":
    main()
