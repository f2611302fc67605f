"""The command `sentinel-agent`: reads arguments, calls, prints. It does nothing itself."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from . import __version__
from .config import DEFAULT_PATH, Config, load_config
from .errors import AgentError, ConfigError


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit status: 2 for a configuration that cannot be used."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s"
    )
    try:
        return _run(arguments)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except AgentError as error:
        sys.stderr.write(f"sentinel-agent: {error}\n")
        return 1


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command in ("install", "uninstall"):
        # They read the configuration of the node that they make, and no other.
        return _install(arguments) if arguments.command == "install" else _uninstall()
    overrides = {}
    if arguments.command == "register":
        given = {"server": arguments.server, "address": arguments.address}
        overrides = {name: value for name, value in given.items() if value is not None}
    if arguments.command == "explain":
        return _explain(arguments)
    config = load_config(_config_path(arguments.config), **overrides)
    if arguments.command == "check-config":
        sys.stdout.write("the configuration is usable\n")
        return 0
    if arguments.command == "register":
        return _register(config, arguments)
    if arguments.command == "check":
        return _check(config)
    # Imported here, as below: each command starts with what it needs.
    from .service.daemon import run

    run(config)
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from .explain.explain import explain

    if os.geteuid() != 0:
        sys.stderr.write("sentinel-agent: explain is for root: others cannot read the policy\n")
        return 2
    problem = ""
    try:
        config = load_config(_config_path(arguments.config))
    except ConfigError as error:
        # A node on which everything is broken is what it is for.
        config, problem = Config.model_construct(), str(error)
    found = explain(config, arguments.user, problem)
    if arguments.json:
        _say(json.dumps(found.document(), indent=1))
    else:
        for line in found.render():
            _say(line)
    return found.status


def _install(arguments: argparse.Namespace) -> int:
    from .install.install import install
    from .install.plan import Options
    from .server.enrolment import read_code

    options = Options(
        server=arguments.server,
        ca_file=arguments.ca_file.absolute() if arguments.ca_file else None,
        address=arguments.address or "",
        breakglass=dict(arguments.breakglass),
        breakglass_port=arguments.breakglass_port,
        replace_akc=arguments.replace_akc,
        plain_http=arguments.plain_http,
    )
    from_environment = os.environ.pop("SENTINEL_AGENT_CODE", None)
    install(
        options,
        lambda: read_code(arguments.code, arguments.code_file, from_environment),
        _say,
        is_dry=arguments.dry_run,
    )
    return 0


def _uninstall() -> int:
    from .install.uninstall import uninstall

    uninstall(_say)
    return 0


def _check(config: Config) -> int:
    from .install.node_check import check_node

    is_good = True
    for line in check_node(config):
        _say(str(line))
        is_good = is_good and line.is_good is not False
    return 0 if is_good else 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _breakglass(text: str) -> tuple[str, Path]:
    user, _, path = text.partition("=")
    if not (user and path):
        raise argparse.ArgumentTypeError("must be USER=PUBKEYFILE")
    return user, Path(path)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("must be a port, or 0 for none")
    return int(text)


def _register(config: Config, arguments: argparse.Namespace) -> int:
    from .install.record import RECORD
    from .server.enrolment import find_exposure, read_code, register

    if not arguments.plain_http and (exposure := find_exposure(config.server)):
        raise ConfigError(exposure)
    code = read_code(
        arguments.code, arguments.code_file, os.environ.pop("SENTINEL_AGENT_CODE", None)
    )
    registration = register(config, code)
    _say(f"registered as {registration.node} with {registration.server}")
    if (config.state_dir / RECORD).exists():
        _say("next: have the agent take the new token, `systemctl restart sentinel-agent`")
    else:
        _say(
            "next: put the lock on this node, `sentinel-agent install`; or, to report only, "
            "start the agent: `systemctl start sentinel-agent`"
        )
    return 0


def _config_path(given: Path | None) -> Path | None:
    """Return the file to read; the usual one may be absent when nobody asked for it."""
    if given is not None:
        return given
    if named := os.environ.get("SENTINEL_AGENT_CONFIG"):
        return Path(named)
    return DEFAULT_PATH if DEFAULT_PATH.exists() else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sentinel-agent", description="ServerSentinel's lock on a node."
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"default: $SENTINEL_AGENT_CONFIG, then {DEFAULT_PATH}",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    install = commands.add_parser(
        "install", help="put the lock on this node; sshd is locked when the node's mode says so"
    )
    install.add_argument("--server", metavar="URL", required=True, help="the booking server")
    install.add_argument("--code", help="the invite code; it shows in the list of processes")
    install.add_argument("--code-file", type=Path, metavar="FILE", help="a file with the code")
    install.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="signs the server's certificate"
    )
    install.add_argument(
        "--breakglass", type=_breakglass, action="append", default=[],
        metavar="USER=PUBKEYFILE", help="an operator who always gets in; more than once",
    )  # fmt: skip
    install.add_argument(
        "--breakglass-port", type=_port, default=2222, metavar="PORT",
        help="where the operators' own sshd listens (2222); 0: none",
    )  # fmt: skip
    install.add_argument("--address", help="where Prometheus reaches this node")
    install.add_argument(
        "--replace-akc", action="store_true",
        help="another package's AuthorizedKeysCommand may be passed over while locked",
    )  # fmt: skip
    install.add_argument(
        "--plain-http", action="store_true", help="the server's address may be http://"
    )
    install.add_argument(
        "--dry-run", action="store_true", help="print what would be done, and do nothing"
    )
    commands.add_parser("check", help="verify everything that is installed on this node")
    commands.add_parser("uninstall", help="open sshd and take away what install made")
    register = commands.add_parser("register", help="spend an invite code and keep the token")
    register.add_argument("--server", metavar="URL", help="the booking server")
    register.add_argument("--address", help="where Prometheus reaches this node")
    register.add_argument("--code", help="the code; it shows in the list of processes")
    register.add_argument("--code-file", type=Path, metavar="FILE", help="a file with the code")
    register.add_argument(
        "--plain-http", action="store_true", help="the server's address may be http://"
    )
    commands.add_parser("run", help="hold the lock until stopped")
    explain = commands.add_parser("explain", help="say why a user can or cannot log in now")
    explain.add_argument("user")
    explain.add_argument("--json", action="store_true", help="for programs")
    commands.add_parser("check-config", help="read the configuration and report its problems")
    return parser
