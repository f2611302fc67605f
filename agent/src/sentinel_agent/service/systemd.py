"""Tells systemd how the service is doing. It waits for nobody."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(text: str) -> None:
    """Tell systemd, if it asked: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # @ stands for the abstract namespace.
    target = f"\0{address[1:]}" if address.startswith("@") else address
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.setblocking(False)
        sender.sendto(text.encode(), target)
