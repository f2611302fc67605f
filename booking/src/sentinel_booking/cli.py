"""The command `sentinel-booking`. Each command calls one function; rules live in services."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from .config import CONFIG_ENV, Config, config_path_from_environment, load_config
from .errors import BookingError, ConfigError, Conflict, SchemaError
from .logs import init_logging

# The shell's convention: 1 failed, 2 was asked wrongly.
FAILED = 1
CONFIG_WRONG = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 it failed, 2 the config is wrong."""
    options = _parser().parse_args(arguments)
    init_logging()
    try:
        config = load_config(options.config)
        status: int = options.run(config, options)
    except ConfigError as error:
        for line in str(error).splitlines():
            _say(f"config: {line}")
        return CONFIG_WRONG
    except BookingError as error:
        _say(error.detail)
        return FAILED
    except SchemaError as error:
        _say(str(error))
        return FAILED
    except DBAPIError as error:
        # The driver's words only: SQLAlchemy's would show the statement's values.
        _say(f"database: {error.orig}")
        return FAILED
    return status


def _check_config(config: Config, options: argparse.Namespace) -> int:
    del config, options  # Loading it was the check.
    print("The configuration can be used.")  # noqa: T201  a command's answer
    return 0


def _init_db(config: Config, options: argparse.Namespace) -> int:
    del options
    from .app import create_app
    from .models import upgrade_schema

    with create_app(config).app_context():
        upgrade_schema()
    print("The database has the tables of this version.")  # noqa: T201
    return 0


def _create_admin(config: Config, options: argparse.Namespace) -> int:
    from .app import create_app
    from .models import Role
    from .services.audit import SYSTEM
    from .services.users import create_user

    password: str | None = None
    if options.password_file is not None:
        try:
            password = options.password_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BookingError(f"password file {options.password_file}: {error}") from error
    with create_app(config).app_context():
        try:
            _, generated = create_user(
                SYSTEM,
                name=options.name,
                role=Role.ADMIN,
                password=password,
                # Who gave a password in a file knows it already, and nobody else does.
                must_change_password=password is None,
            )
        except Conflict:
            if not options.if_none:
                raise
            _say(f"there is a user named {options.name} already; nothing was changed")
            return 0
    if generated is not None:
        print(f"{options.name}'s password, shown this once: {generated}")  # noqa: T201
    return 0


def _reset_password(config: Config, options: argparse.Namespace) -> int:
    from .app import create_app
    from .services.audit import SYSTEM
    from .services.passwords import generate_password
    from .services.users import change_user

    password = generate_password()
    with create_app(config).app_context():
        change_user(SYSTEM, options.name, {"password": password})
    print(f"{options.name}'s password, shown this once: {password}")  # noqa: T201
    return 0


def _serve(config: Config, options: argparse.Namespace) -> int:
    from .app import create_app
    from .services.readiness import check_database

    # Here the operator sees why; in a worker it would be a restart loop.
    with create_app(config).app_context():
        check_database()
    if options.config is not None:
        os.environ[CONFIG_ENV] = str(options.config.resolve())
    command = [sys.executable, "-m", "gunicorn", "-c", "python:sentinel_booking.gunicorn_conf"]
    if options.bind is not None:
        command += ["--bind", options.bind]
    sys.stdout.flush()
    os.execv(sys.executable, [*command, "sentinel_booking.wsgi:app"])  # noqa: S606  no shell


def _worker(config: Config, options: argparse.Namespace) -> int:
    del options
    from .app import create_app
    from .worker import run_worker

    run_worker(create_app(config))
    return 0


def _invite(config: Config, options: argparse.Namespace) -> int:
    from .app import create_app
    from .services.audit import SYSTEM
    from .services.invites import create_invite
    from .services.nodes import NodeFields, create_node

    with create_app(config).app_context():
        if options.create:
            # One that is there already is what was asked for.
            with contextlib.suppress(Conflict):
                create_node(SYSTEM, options.node, NodeFields(), config.offline_after_s)
        invite = create_invite(SYSTEM, options.node, dt.timedelta(hours=config.invite_hours))
    print(invite.code)  # noqa: T201  a command's answer
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sentinel-booking", description="ServerSentinel's booking server."
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=config_path_from_environment(),
        metavar="FILE",
        help=f"TOML file with the settings; default: the one that {CONFIG_ENV} names",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser("check-config", help="say what is wrong with the settings")
    command.set_defaults(run=_check_config)

    command = commands.add_parser("init-db", help="create or upgrade the tables")
    command.set_defaults(run=_init_db)

    command = commands.add_parser("create-admin", help="add a person with the role admin")
    command.add_argument("name", metavar="NAME")
    command.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help="take the password from there; else one is generated and printed once",
    )
    command.add_argument(
        "--if-none", action="store_true", help="succeed when there is such a user already"
    )
    command.set_defaults(run=_create_admin)

    command = commands.add_parser(
        "reset-password", help="give a person a new password, which must be changed, once"
    )
    command.add_argument("name", metavar="NAME")
    command.set_defaults(run=_reset_password)

    command = commands.add_parser("invite", help="print a one-time code for a node's agent")
    command.add_argument("node", metavar="NODE")
    command.add_argument("--create", action="store_true", help="add the node if it is missing")
    command.set_defaults(run=_invite)

    command = commands.add_parser("serve", help="serve pages and API with gunicorn")
    command.add_argument("--bind", metavar="HOST:PORT", help="instead of the setting listen")
    command.set_defaults(run=_serve)

    command = commands.add_parser("worker", help="do the due work, once a minute")
    command.set_defaults(run=_worker)
    return parser


def _say(message: str) -> None:
    print(f"sentinel-booking: {message}", file=sys.stderr)  # noqa: T201
