"""An exporter that asks simulated BMCs by modules that the test gives. Judges nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.exporters.bmc import PASSWORD, USER, Bmc
from tests.exporters.running import Exporter, Series, serving, values


@contextlib.contextmanager
def exporting(
    folder: Path, modules: Mapping[str, Mapping[str, object]], **options: object
) -> Iterator[Exporter]:
    """Serve with these `[ipmi.modules.*]`, which need name no user, and options of `[ipmi]`."""
    (folder / "password").write_text(f"{PASSWORD}\n")
    lines = ['collectors = "ipmi"', "[ipmi]", *_settings(options)]
    known = {"user": USER, "password_file": str(folder / "password")}
    for name, module in modules.items():
        lines += [f"[ipmi.modules.{name}]", *_settings({**known, **module})]
    (folder / "exporter.toml").write_text("\n".join(lines))
    with serving(
        folder / "exporter.log", "--config", str(folder / "exporter.toml")
    ) as exporter:
        yield exporter


def _settings(options: Mapping[str, object]) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in options.items()]


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(_settings(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def probe(exporter: Exporter, bmc: Bmc, module: str = "default", **headers: str) -> Series:
    """Ask for a BMC's page, as Prometheus would."""
    return exporter.series(f"/ipmi?target={bmc.target}&module={module}", **headers)


def up(series: Series) -> dict[str, float]:
    """Return `ipmi_up` by collector."""
    return values(series, "ipmi_up", "collector")
