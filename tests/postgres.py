"""A PostgreSQL server for tests, in a folder of its own. Touches no system cluster."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from sqlalchemy import make_url


class Postgres:
    """Debian's newest installed PostgreSQL, listening on a Unix socket only."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        # Not under pytest's folder: each pytest that starts closes that one to other users
        # again, and a socket's path may have 107 bytes at most.
        # In memory where there is room: a new database is a thousand files.
        memory = Path("/dev/shm")
        has_room = memory.is_dir() and shutil.disk_usage(memory).free > 2 * 1024**3
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir=memory if has_room else None))

    def start(self) -> None:
        """Initialise and start; returns when connections are accepted."""
        if os.geteuid() == 0:  # initdb refuses to run as root
            shutil.chown(self.folder, "postgres", "postgres")
        data = str(self.folder / "data")
        self._run("initdb", "-D", data, "-U", "sentinel", "--auth=trust", "-E", "UTF8")
        options = f"-k {self.folder} -c listen_addresses= -c max_connections=80 -c fsync=off"
        self._run("pg_ctl", "-D", data, "-w", "-l", str(self.folder / "log"),
                  "-o", options, "start")  # fmt: skip

    def stop(self) -> None:
        """Stop at once; the data is thrown away."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def create_database(self) -> str:
        """Create an empty database and return its SQLAlchemy URL."""
        name = f"booking_{next(self._numbers)}"
        self._run("createdb", "-h", str(self.folder), "-U", "sentinel", name)
        return f"postgresql+psycopg://sentinel@/{name}?host={self.folder}"

    def drop_database(self, url: str) -> None:
        """Throw a database away, whoever is still connected to it."""
        name = str(make_url(url).database)
        self._run("dropdb", "-h", str(self.folder), "-U", "sentinel", "--force", name)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin() / program), *arguments]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups",
                       *command]  # fmt: skip
        # pg_ctl leaves the server holding its standard output: a pipe would never close.
        with (self.folder / "commands.log").open("a") as log:
            done = subprocess.run(command, stdout=log, stderr=log, cwd="/", check=False)
        if done.returncode != 0:
            raise RuntimeError(
                f"{program} failed: {(self.folder / 'commands.log').read_text()}"
            )

    @staticmethod
    def _bin() -> Path:
        found = sorted(
            Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"),
            key=lambda path: int(path.parent.parent.name),
        )
        if not found:
            raise RuntimeError(
                "PostgreSQL's server programs are missing; see script/test --help"
            )
        return found[-1].parent
