"""Names the ports that are taken, before anything is started. Opens none for longer than that.

Usage: ports.py ADDRESS --option=PORT... [ADDRESS --option=PORT...]...
Exit status 1 when a port cannot be had.
"""

from __future__ import annotations

import errno
import socket
import sys


def find_problem(address: str, port: str) -> str | None:
    """Return why `address`:`port` cannot be listened on, or None."""
    if not port.isdigit() or not 0 < int(port) < 65536:
        return f"{port!r} is no port number"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the servers themselves do: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, int(port)))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"port {port} is in use on {address}"
            return f"cannot listen on {address}:{port}: {error.strerror or error}"
    return None


def main(address: str, wanted: list[str]) -> int:
    """Print every problem with the option that changes it; return the exit status."""
    failed = False
    first_option: dict[str, str] = {}
    for item in wanted:
        if not item.startswith("--"):
            address = item
            continue
        option, _, port = item.partition("=")
        problem = find_problem(address, port)
        if problem is None and port in first_option:
            problem = f"port {port} is given to {first_option[port]} too"
        first_option.setdefault(port, option)
        if problem is not None:
            failed = True
            sys.stderr.write(f"error: {problem}; choose another with {option}\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
