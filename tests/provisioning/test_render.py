"""The renderer: what it refuses, and that it leaves nothing unfilled and nothing stale."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from provisioning.render import (
    PLACEHOLDER,
    ROOT,
    SETTINGS,
    SOURCES,
    RenderError,
    complete,
    render,
    render_tree,
)

REQUIRED = {"SCRAPE_TOKEN_FILE": "/run/scrape", "WEBHOOK_TOKEN_FILE": "/run/webhook"}


def templates() -> list[Path]:
    return [source for pattern in SOURCES.values() for source in ROOT.glob(pattern)]


def test_each_placeholder_is_replaced_by_its_value() -> None:
    assert render("'@A@/x@B_2@ @ b@c'", {"A": "1", "B_2": "y@Z@"}) == "'1/xy@Z@ @ b@c'"


def test_a_placeholder_that_is_no_setting_is_an_error() -> None:
    with pytest.raises(RenderError, match="@NEVER@: no such setting"):
        render("x: '@NEVER@'", {"A": "1"})


def test_all_problems_with_the_settings_are_named_at_once() -> None:
    with pytest.raises(RenderError) as refused:
        complete({"NONSENSE": "1", "SMTP_FROM": "a'b"})
    assert str(refused.value).splitlines() == [
        "NONSENSE: no such setting",
        "SCRAPE_TOKEN_FILE: must be given (path of the token for /sd/<job> and /metrics)",
        "WEBHOOK_TOKEN_FILE: must be given (path of the token for the alerts' webhook)",
        "SMTP_FROM: quotes, backslashes and control characters are refused",
    ]


@pytest.mark.parametrize("value", ["a'b", 'a"b', "a\\b", "a\nb: c", "a\x00b"])
def test_a_value_cannot_end_the_scalar_it_stands_in(value: str) -> None:
    with pytest.raises(RenderError, match="SMTP_TO"):
        complete(REQUIRED | {"SMTP_TO": value})


def test_every_setting_is_used_and_every_placeholder_is_a_setting() -> None:
    used = {name for source in templates() for name in PLACEHOLDER.findall(source.read_text())}
    assert used - {"OUT"} == SETTINGS.keys()


def test_the_rendered_files_hold_the_given_values_and_no_placeholder(tmp_path: Path) -> None:
    written = render_tree(tmp_path, REQUIRED | {"NODE_OFFLINE_FOR": "7s"})
    assert len(written) == len(templates())
    assert not [path for path in written if PLACEHOLDER.search(path.read_text())]
    assert "for: '7s'" in (tmp_path / "prometheus/alerts/nodes.yml").read_text()
    assert "/run/scrape" in (tmp_path / "prometheus/prometheus.yml").read_text()
    assert not list(tmp_path.rglob("*.new"))


def test_a_rule_file_that_was_removed_does_not_live_on(tmp_path: Path) -> None:
    render_tree(tmp_path, REQUIRED)
    stale = tmp_path / "prometheus/alerts/gone.yml"
    stale.write_text("groups: []\n")
    kept = tmp_path / "prometheus/notes.txt"
    kept.write_text("not ours\n")
    render_tree(tmp_path, REQUIRED)
    assert not stale.exists()
    assert kept.exists()


def test_a_refused_setting_leaves_the_old_files_alone(tmp_path: Path) -> None:
    render_tree(tmp_path, REQUIRED)
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RenderError):
        render_tree(tmp_path, {"NONSENSE": "1"})
    assert before == {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", ROOT / "provisioning/render.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


def test_the_command_needs_nothing_but_python_and_runs_from_any_folder(tmp_path: Path) -> None:
    done = run_command(str(tmp_path), *(f"{name}={value}" for name, value in REQUIRED.items()))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "prometheus/prometheus.yml").is_file()


@pytest.mark.parametrize("arguments", [[], ["x"], ["x", "novalue"], ["x", "A=1", "A=2"]])
def test_the_command_exits_2_for_bad_arguments(tmp_path: Path, arguments: list[str]) -> None:
    done = run_command(*(str(tmp_path / a) if a == "x" else a for a in arguments))
    assert done.returncode == 2
    assert done.stderr
    assert not list(tmp_path.iterdir())


def test_the_command_lists_every_setting() -> None:
    done = run_command("--list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(SETTINGS)


def test_the_readme_lists_every_setting_with_its_default() -> None:
    text = (ROOT / "provisioning/README.md").read_text()
    for name, setting in SETTINGS.items():
        default = {None: "must be given", "": "empty"}.get(
            setting.default, f"`{setting.default}`"
        )
        assert f"| `{name}` | {default} | {setting.meaning} |" in text


def test_the_readme_lists_every_recorded_series() -> None:
    text = (ROOT / "provisioning/README.md").read_text()
    for source in ROOT.glob(SOURCES["prometheus/rules"]):
        for name in re.findall(r"record: (\S+)", source.read_text()):
            assert f"| `{name}` |" in text
