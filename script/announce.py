"""Says once that the system is up, and where. Starts and stops nothing.

Usage: announce.py NAME=PROBE_URL=ADDRESS...
"""

from __future__ import annotations

import sys
import time
import urllib.request


def answers(url: str) -> bool:
    """Tell whether the URL gives a 2xx answer."""
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310  our own http addresses
            return True
    except OSError:
        return False


def main(parts: list[str]) -> None:
    """Wait until every part answers, then print the addresses."""
    began = time.monotonic()
    split = [part.split("=", 2) for part in parts]
    waiting = {name: probe for name, probe, _ in split}
    warn_at = 30.0
    while waiting:
        waiting = {name: probe for name, probe in waiting.items() if not answers(probe)}
        if waiting and time.monotonic() - began > warn_at:
            sys.stderr.write(f"still waiting for: {', '.join(waiting)}\n")
            warn_at += 30
        time.sleep(0.2)
    width = max(len(name) for name, _, _ in split)
    lines = [f"  {name:<{width}}  {address}" for name, _, address in split]
    seconds = time.monotonic() - began
    text = "\n".join([f"ServerSentinel is up ({seconds:.0f} s):", *lines])
    sys.stderr.write(f"\n{text}\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
