"""What script/up says about itself: its options, their defaults, the ports that are taken."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UP = ROOT / "script" / "up"


def help_text() -> str:
    return subprocess.run(
        [str(UP), "--help"], capture_output=True, text=True, check=True
    ).stdout


def documented() -> dict[str, tuple[str, str]]:
    """Option to environment variable and default, as --help has them."""
    rows = re.findall(
        r"^  (--[a-z-]+) [A-Z:]+ +(SENTINEL_UP_[A-Z_]+) +(.+)$", help_text(), re.M
    )
    return {option: (variable, default) for option, variable, default in rows}


def test_every_option_is_in_the_help_with_its_variable_and_default() -> None:
    source = UP.read_text()
    accepted = set(re.findall(r"^        (--[a-z-]+)\) [A-Z_]+=\$2 ;;$", source, re.M))
    assert accepted
    assert documented().keys() == accepted
    for option, (variable, default) in documented().items():
        name = option.removeprefix("--").replace("-", "_").upper()
        assert variable == f"SENTINEL_UP_{name}"
        in_source = re.search(rf"^{name}=\${{{variable}:-(.*)}}$", source, re.M)
        assert in_source, f"{option} does not read {variable}"
        if re.fullmatch(r"\d+", default):
            assert in_source[1] == default


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readme_lists_every_port_with_its_default(readme: str) -> None:
    rows = re.findall(r"^\| `(--[a-z-]+-port)` \| (\d+) \|", (ROOT / readme).read_text(), re.M)
    ports = {
        option: default
        for option, (_, default) in documented().items()
        if option.endswith("-port")
    }
    assert dict(rows) == ports


def run_ports(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "script" / "ports.py"), "127.0.0.1", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_port_in_use_is_named_with_the_option_that_changes_it() -> None:
    with socket.socket() as taken, socket.socket() as free:
        for one in (taken, free):
            one.bind(("127.0.0.1", 0))
        taken.listen(1)
        busy, idle = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        done = run_ports(f"--booking-port={busy}", f"--agent-port={idle}")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: port {busy} is in use on 127.0.0.1; choose another with --booking-port\n"
    )


def test_each_port_is_tried_on_the_address_before_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        assert run_ports(f"--booking-port={port}").returncode == 0
        done = run_ports("--booking-port=18800", "127.0.0.2", f"--agent-port={port}")
    assert done.stderr == (
        f"error: port {port} is in use on 127.0.0.2; choose another with --agent-port\n"
    )


def test_the_agents_port_is_tried_where_the_agent_listens() -> None:
    source = UP.read_text()
    _, _, call = source.replace("\\\n", "").partition('/script/ports.py" ')
    words = call.partition("||")[0].replace('"', "").split()
    before = words[: words.index("--agent-port=$AGENT_PORT")]
    address = [word for word in before if not word.startswith("--")][-1]
    assert f'metrics_listen = "{address}:$AGENT_PORT"' in source


def test_one_port_for_two_programs_is_refused() -> None:
    done = run_ports("--booking-port=18800", "--agent-port=18800")
    assert done.returncode == 1
    assert "port 18800 is given to --booking-port too" in done.stderr


@pytest.mark.parametrize("wrong", ["0", "65536", "http", "-1", ""])
def test_what_is_no_port_number_is_refused(wrong: str) -> None:
    done = run_ports(f"--booking-port={wrong}")
    assert done.returncode == 1
    assert "is no port number; choose another with --booking-port" in done.stderr


def test_an_unknown_option_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = subprocess.run(
        [str(UP), "--state", str(state), "--colour", "blue"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "unknown option --colour" in done.stderr
    assert not state.exists()


def test_a_path_that_the_supervisor_would_misread_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(UP), "--state", str(tmp_path / "my state"), "--prepare"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no spaces, quotes" in done.stderr
