"""A PostgreSQL server for tests, in a folder of its own. Touches no system cluster."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


class Postgres:
    """Debian's newest installed PostgreSQL, listening on a Unix socket only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()
        # A socket's path may have 107 bytes at most; pytest's folders are longer.
        self.socket_dir = Path(tempfile.mkdtemp(prefix="pg-"))

    def start(self) -> None:
        """Initialise and start; returns when connections are accepted."""
        data = self.folder / "data"
        if os.geteuid() == 0:  # initdb refuses to run as root
            for path in (self.socket_dir, self.folder):
                shutil.chown(path, "postgres", "postgres")
            self._open_path(self.folder)
        self._run("initdb", "-D", str(data), "-U", "sentinel", "--auth=trust", "-E", "UTF8")
        options = (
            f"-k {self.socket_dir} -c listen_addresses= -c max_connections=80 -c fsync=off"
        )
        self._run("pg_ctl", "-D", str(data), "-w", "-l", str(self.folder / "log"),
                  "-o", options, "start")  # fmt: skip

    def stop(self) -> None:
        """Stop at once; the data is thrown away."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self.socket_dir, ignore_errors=True)

    def create_database(self) -> str:
        """Create an empty database and return its SQLAlchemy URL."""
        name = f"booking_{next(self._numbers)}"
        self._run("createdb", "-h", str(self.socket_dir), "-U", "sentinel", name)
        return f"postgresql+psycopg://sentinel@/{name}?host={self.socket_dir}"

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

    @staticmethod
    def _open_path(folder: Path) -> None:
        """Let the postgres user walk to the folder; pytest makes its parents 0700."""
        for parent in folder.parents:
            mode = parent.stat().st_mode
            if not mode & 0o001 and str(parent).startswith(tempfile.gettempdir()):
                parent.chmod(mode | 0o011)
