"""What the exporter says of its own process is what the kernel says of it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.exporters.running import serving, values


def test_the_process_is_told_as_the_kernel_has_it(tmp_path: Path) -> None:
    with serving(tmp_path / "log", "--collectors", "ssh") as exporter:
        proc = Path(f"/proc/{exporter.process.pid}")
        series = exporter.series()
        pages = int((proc / "statm").read_text().split()[1])
        ticks = sum(map(int, (proc / "stat").read_text().rpartition(")")[2].split()[11:13]))
        files = len(list((proc / "fd").iterdir()))

    def told(name: str) -> float:
        return values(series, f"process_{name}")[""]

    resident = pages * os.sysconf("SC_PAGE_SIZE")
    assert 0.5 * resident < told("resident_memory_bytes") < 1.5 * resident
    # A sum of two quotients, each rounded by itself.
    assert 0 < round(told("cpu_seconds_total") * os.sysconf("SC_CLK_TCK")) <= ticks
    # The connection that is answered is open then, and the listing of the folder.
    assert abs(told("open_fds") - files) <= 3
    assert told("max_fds") >= told("open_fds")
