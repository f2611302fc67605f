"""The installed command sentinel-booking, run as operators run it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from sentinel_booking.app import create_app
from sentinel_booking.config import load_config
from sentinel_booking.services.audit import list_entries

COMMAND = str(Path(sys.executable).parent / "sentinel-booking")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    for name in ("secret", "scrape", "webhook"):
        (tmp_path / name).write_text(f"{name}-0123456789abcdef0123456789abcdef\n")
    path = tmp_path / "booking.toml"
    path.write_text(
        f'database_url = "sqlite:///{tmp_path}/booking.db"\n'
        f'secret_key_file = "{tmp_path}/secret"\n'
        f'scrape_token_file = "{tmp_path}/scrape"\n'
        f'webhook_token_file = "{tmp_path}/webhook"\n'
    )
    return path


def run(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "--config", str(file), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )


def test_wrong_settings_are_all_told_and_the_status_is_2(file: Path) -> None:
    file.write_text(file.read_text() + 'workers = 0\nlisten = "x"\n')
    done = run(file, "check-config")
    assert done.returncode == 2
    assert "workers" in done.stderr
    assert "listen" in done.stderr
    assert "Traceback" not in done.stderr


def test_right_settings_are_said_to_be_right(file: Path) -> None:
    assert run(file, "check-config").returncode == 0


def test_the_first_admin_is_made_once_and_the_password_shown_once(file: Path) -> None:
    assert run(file, "create-admin", "ada").returncode == 1, "no tables yet"
    assert run(file, "init-db").returncode == 0
    assert run(file, "init-db").returncode == 0, "again changes nothing"
    made = run(file, "create-admin", "ada")
    assert made.returncode == 0
    (password,) = re.findall(r": (\S{20})$", made.stdout)
    again = run(file, "create-admin", "ada", "--if-none")
    assert (again.returncode, again.stdout) == (0, "")
    refused = run(file, "create-admin", "ada")
    assert refused.returncode == 1
    assert "ada" in refused.stderr
    assert run(file, "create-admin", "root").returncode == 1
    assert password not in made.stderr


def test_a_password_file_is_used_and_not_printed(file: Path, tmp_path: Path) -> None:
    run(file, "init-db")
    (tmp_path / "password").write_text("from-the-file-0123\n")
    made = run(file, "create-admin", "ada", "--password-file", str(tmp_path / "password"))
    assert (made.returncode, made.stdout) == (0, "")
    missing = run(file, "create-admin", "bea", "--password-file", str(tmp_path / "none"))
    assert missing.returncode == 1
    assert "Traceback" not in missing.stderr


def test_a_lost_password_is_replaced_and_it_is_written_down(file: Path, tmp_path: Path) -> None:
    run(file, "init-db")
    (tmp_path / "password").write_text("from-the-file-0123\n")
    run(file, "create-admin", "ada", "--password-file", str(tmp_path / "password"))
    done = run(file, "reset-password", "ada")
    assert done.returncode == 0
    (password,) = re.findall(r": (\S{20})$", done.stdout)
    app = create_app(load_config(file))
    for tried, status in (("from-the-file-0123", 401), (password, 200)):
        body = {"name": "ada", "password": tried}
        answer = app.test_client().post("/api/auth/login", json=body)
        assert answer.status_code == status
    assert answer.get_json()["must_change_password"]
    with app.app_context():
        entry = list_entries(actor="system", object_id="ada", limit=1)[0]
        assert (entry.actor_kind, entry.action) == ("system", "user.change")
        assert entry.after == {"password": "(new)"}
    unknown = run(file, "reset-password", "nobody")
    assert unknown.returncode == 1
    assert "no such user" in unknown.stderr


def test_serving_without_the_tables_says_what_to_do(file: Path) -> None:
    done = run(file, "serve")
    assert done.returncode == 1
    assert "init-db" in done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def server(file: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Gunicorn with two processes, as `serve` starts it, and its address."""
    run(file, "init-db")
    (tmp_path / "password").write_text("from-the-file-0123\n")
    run(file, "create-admin", "ada", "--password-file", str(tmp_path / "password"))
    bind = f"127.0.0.1:{free_port()}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [COMMAND, "--config", file.name, "serve", "--bind", bind],
            stdout=log,
            stderr=log,
            cwd=file.parent,
            env={**os.environ, "HOME": str(tmp_path)},
        )
    deadline = time.monotonic() + 30
    while True:
        try:
            if requests.get(f"http://{bind}/readyz", timeout=5).status_code == 200:
                break
        except requests.ConnectionError:
            pass
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.1)
    yield process, f"http://{bind}"
    process.terminate()
    process.wait(30)


def test_every_process_knows_every_sign_in_and_counts_together(
    server: tuple[subprocess.Popen[bytes], str], tmp_path: Path
) -> None:
    process, url = server
    credentials = {"name": "ada", "password": "from-the-file-0123"}
    tokens = requests.post(f"{url}/api/auth/login", json=credentials, timeout=10).json()
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    # A new connection each time: whichever process takes it.
    for _ in range(40):
        answer = requests.get(f"{url}/api/me", headers=headers, timeout=10)
        assert (answer.status_code, answer.json()["name"]) == (200, "ada")
    scrape = {"Authorization": f"Bearer {(tmp_path / 'scrape').read_text().strip()}"}
    series = requests.get(f"{url}/metrics", headers=scrape, timeout=10).text
    count = re.search(
        r'^sentinel_http_requests_total\{endpoint="me.show_me".*\} (\S+)$', series, re.MULTILINE
    )
    assert count is not None
    assert float(count[1]) == 40, "the sum over the processes"
    process.terminate()
    assert process.wait(30) == 0
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert tokens["access_token"] not in log
