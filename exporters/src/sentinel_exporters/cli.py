"""The command `sentinel-exporter`. It wires the parts together and measures nothing."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from . import __version__, outcome, pages
from .catalog import Collector, find_collectors
from .config import ENV_PREFIX, Config, load_config
from .core import CollectorSettings, Device
from .errors import ConfigError
from .exposition import write_text
from .pages import Pages
from .prober import Prober
from .run import describe
from .runner import Runner
from .server import Server
from .web.access import Access

log = logging.getLogger(__name__)

# More than `max_sessions`, `max_probes`, and `max_requests` need at their greatest.
_MAX_FILES = 16384


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 2 for a configuration that is refused."""
    options = _read_arguments(arguments)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(levelname)s %(message)s",
    )
    collectors = find_collectors()
    overrides = {
        name: value
        for name in ("listen", "collectors", "web_config")
        if (value := getattr(options, name)) is not None
    }
    try:
        config = load_config(options.config, collectors, overrides)
    except ConfigError as error:
        sys.stderr.write(f"sentinel-exporter: the configuration is not valid\n{error}\n")
        return 2
    commands = {"serve": serve, "check": check, "devices": devices, "metrics": metrics}
    try:
        status = commands[options.command](config, collectors)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # as by `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ConfigError as error:
        sys.stderr.write(f"sentinel-exporter: {config.web_config} is not valid\n{error}\n")
        return 2


def _read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sentinel-exporter",
        description="Prometheus exporter for GPUs, NPUs, SSH sessions and, as probes, BMCs.",
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=("serve", "check", "devices", "metrics"),
        help="serve (default): answer Prometheus; check: run the collectors once, print their "
        "metrics, exit 1 when one failed; devices: print the accelerators as JSON; metrics: "
        "list every metric",
    )
    default = os.environ.get(ENV_PREFIX + "CONFIG")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(default) if default else None,
        help=f"the TOML file (default: ${ENV_PREFIX}CONFIG, else none)",
    )
    parser.add_argument("--listen", help="address and port (default: 0.0.0.0:9641)")
    parser.add_argument("--collectors", help="auto, or names joined by commas: gpu,npu,ssh")
    parser.add_argument(
        "--web-config",
        "--web.config.file",
        type=Path,
        metavar="FILE",
        help="TLS and users, in the form of Prometheus' web configuration (default: none)",
    )
    parser.add_argument("--check", action="store_true", help="the same as the command check")
    parser.add_argument("--verbose", action="store_true", help="log each request")
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(arguments)
    if options.check and options.command not in (None, "check"):
        parser.error(f"--check and {options.command} cannot both be done")
    options.command = "check" if options.check else options.command or "serve"
    return options


def choose_collectors(config: Config, collectors: Mapping[str, Collector]) -> list[Collector]:
    """Return what the configuration enables.

    With "auto" that is every collector of this machine, to join in when its source is present,
    and no probe: what asks other machines is enabled by name. Each has those families of other
    exporters that are asked for.
    """
    if config.collectors == "auto":
        chosen = [one for one in collectors.values() if not one.is_probe]
    else:
        chosen = [collectors[name] for name in config.collectors]
    return [
        replace(
            one, compat={name: one.compat[name] for name in config.compat if name in one.compat}
        )
        for one in chosen
    ]


def _settings(config: Config, collectors: Iterable[Collector]) -> dict[str, CollectorSettings]:
    return {one.name: config.section(one) for one in collectors}


def _make_runner(config: Config, enabled: Sequence[Collector]) -> Runner:
    return Runner(enabled, _settings(config, enabled), is_auto=config.collectors == "auto")


def _read_access(config: Config) -> Access | None:
    """Return what the web configuration permits; raises ConfigError when it is not valid."""
    return Access(config.web_config) if config.web_config else None


def serve(config: Config, collectors: Mapping[str, Collector]) -> int:
    """Answer Prometheus until SIGTERM or SIGINT. Raises ConfigError."""
    _permit_files()
    enabled = choose_collectors(config, collectors)
    prober = Prober(enabled, _settings(config, enabled), config.max_probes)
    runner = _make_runner(config, enabled)
    access = _read_access(config)
    try:
        web = Server(config.listen, Pages(runner, prober, config.max_requests), access)
    except OSError as error:
        log.error("cannot listen address=%s error=%s", config.listen, error)
        return 1
    # The kernel may give the signal to any thread, and Python's handler only runs when the main
    # thread wakes: a byte in the pipe wakes it.
    wake, notify = os.pipe()
    os.set_blocking(notify, False)
    signal.set_wakeup_fd(notify)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    log.info(
        "listening address=%s port=%d scheme=%s collectors=%s",
        config.listen, web.port, web.scheme, ",".join(one.name for one in enabled),
    )  # fmt: skip
    # What is there now stays. The garbage collector would look through all of it time and again
    # while scrapes are answered, which takes as long as the pages of fifty BMCs.
    gc.freeze()
    runner.start()

    def wait() -> None:
        number = os.read(wake, 1)[0]
        log.info("stopping signal=%s", signal.Signals(number).name)

    web.serve_until(wait)
    runner.stop()
    log.info("stopped")
    return 0


def _permit_files() -> None:
    """Raise the soft limit of open files: each client, and each session with a BMC, is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # A sandbox may forbid it; then the limit is whatever was set there.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def check(config: Config, collectors: Mapping[str, Collector]) -> int:
    """Run every enabled collector once and print its metrics; 1 when one failed.

    Probes need a target and are not run. Raises ConfigError as `serve` would.
    """
    _read_access(config)
    enabled = choose_collectors(config, collectors)
    outcomes = _make_runner(config, enabled).collect()
    checked = {one.collector for one in outcomes}
    probes = [one.name for one in enabled if one.is_probe]
    for one in enabled:
        if one.name not in checked:
            reason = "a probe needs a target" if one.is_probe else "its source is not here"
            log.info("not checked collector=%s reason=%s", one.name, reason)
    if not outcomes and not probes:
        log.warning("nothing checked reason=no collector has its source here")
    samples = [sample for one in outcomes for sample in (*one.own_samples(), *one.samples)]
    sys.stdout.write(write_text(samples).decode())
    # The runner has logged each reason.
    return 0 if all(one.is_success for one in outcomes) else 1


def devices(config: Config, collectors: Mapping[str, Collector]) -> int:
    """Print `{"devices": [Device], "problems": [text]}`; docs/architecture.md has the form.

    The status is 0 with problems too: the caller reads them.
    """
    found: list[Device] = []
    problems: list[str] = []
    for one in choose_collectors(config, collectors):
        settings = config.section(one)
        if one.read_devices is None:
            continue
        try:
            if config.collectors == "auto" and not one.is_present(settings):
                continue
            report = one.read_devices(settings)
        except Exception as error:  # one vendor's driver must not hide the other's devices
            problems.append(f"{one.name}: {describe(error)}")
            continue
        found += report.devices
        problems += [f"{one.name}: {problem}" for problem in report.problems]
    answer = {"devices": [asdict(device) for device in found], "problems": problems}
    sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
    return 0


def metrics(_config: Config, collectors: Mapping[str, Collector]) -> int:
    """List every metric that can be emitted, by collector, enabled or not.

    Another exporter's families are those of `<collector>:<its name in the setting compat>`.
    """
    families = [("exporter", metric) for metric in (*pages.METRICS, *outcome.METRICS)]
    families += [(one.name, metric) for one in collectors.values() for metric in one.metrics]
    families += [
        (f"{one.name}:{name}", metric)
        for one in collectors.values()
        for name, compat in one.compat.items()
        for metric in compat.metrics
    ]
    for origin, metric in families:
        labels = ",".join(metric.labels)
        columns = (origin, metric.name, metric.type, metric.unit, labels, metric.help)
        sys.stdout.write("\t".join(column or "-" for column in columns) + "\n")
    return 0
