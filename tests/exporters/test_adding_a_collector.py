"""Adding a collector by the README: the files that it shows, in a copy of the repository."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.exporters.running import REPOSITORY, environment, run_exporter, serving, values

# What a collector and its test stand beside, and what the tests of the documents read.
COPIED = ("exporters/src", "exporters/packaging", "exporters/README.md", "docs", "tests/lab",
          "tests/exporters/running.py", "tests/exporters/test_exporter_docs.py",
          "pyproject.toml")  # fmt: skip


# The tests that a new collector fails until it is described.
DESCRIBED = "every_metric_is_documented or every_setting_is_described"


@dataclass(frozen=True)
class Block:
    """A block of the README; `path` is the last one that is named in the text above it."""

    kind: str
    path: str
    text: str


def read_blocks() -> list[Block]:
    text = (REPOSITORY / "exporters" / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## Add a collector\n")[2].partition("\n## ")[0]
    blocks = []
    for above, kind, content in re.findall(r"(.*?)```(\w+)\n(.*?)```", section, re.DOTALL):
        paths = re.findall(r"`([\w./-]+/[\w.-]+\.\w+)`", above)
        blocks.append(Block(kind, paths[-1], content))
    return blocks


@dataclass(frozen=True)
class Copy:
    """A copy of the repository."""

    root: Path

    @property
    def package(self) -> str:
        return str(self.root / "exporters" / "src")

    def add_files(self) -> None:
        for block in read_blocks():
            if block.kind != "markdown":
                target = self.root / block.path
                target.parent.mkdir(parents=True, exist_ok=True)
                assert not target.exists()
                target.write_text(block.text)

    def add_descriptions(self) -> None:
        for block in read_blocks():
            if block.kind == "markdown":
                heading, rule, *rows = block.text.splitlines()
                document = self.root / block.path
                text = document.read_text()
                # Into the first table of that kind, as its first rows.
                place = (
                    text.index("\n", text.index(f"{heading}\n{rule}") + len(heading) + 1) + 1
                )
                document.write_text(text[:place] + "\n".join(rows) + "\n" + text[place:])

    def test(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
             "--rootdir", str(self.root), *arguments],
            cwd=self.root / "tests" / "exporters",
            env=environment({"PYTHONPATH": self.package}),
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    root = tmp_path_factory.mktemp("repository")
    for name in COPIED:
        source, target = REPOSITORY / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "images")
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copyfile(source, target)
    made = Copy(root)
    # Who has followed the README here has them already.
    for block in read_blocks():
        if block.kind != "markdown":
            (root / block.path).unlink(missing_ok=True)
    made.add_files()
    yield made


def test_the_readme_has_the_module_its_test_its_fixture_and_its_descriptions() -> None:
    assert [(block.kind, block.path) for block in read_blocks()] == [
        ("python", "exporters/src/sentinel_exporters/collectors/toy.py"),
        ("python", "tests/exporters/test_toy.py"),
        ("text", "tests/exporters/fixtures/toy/linux-6.1.txt"),
        ("markdown", "docs/metrics.md"),
        ("markdown", "docs/config.md"),
    ]


def test_the_collector_is_served_by_being_there(copy: Copy, tmp_path: Path) -> None:
    with serving(tmp_path / "log", "--collectors", "toy", python_path=copy.package) as exporter:
        series = exporter.series()
        landing = exporter.get("/")[1].decode()
    assert values(series, "sentinel_collector_success", "collector") == {"toy": 1}
    assert values(series, "sentinel_collector_age_seconds", "collector").keys() == {"toy"}
    assert values(series, "toy_open_files")[""] > 0
    assert '<td>toy</td><td class="state ok">ok</td>' in landing


def test_the_collector_has_its_section_of_the_configuration(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "numbers").write_text("7 0 99\n")
    (tmp_path / "config.toml").write_text(
        f'collectors = "toy"\n[toy]\npath = "{tmp_path}/numbers"\nmax_series = 1\n'
    )
    done = run_exporter(
        "check", "--config", str(tmp_path / "config.toml"), env={"PYTHONPATH": copy.package}
    )
    assert done.returncode == 0, done.stderr
    assert "toy_open_files 7.0" in done.stdout


def test_what_it_measures_and_takes_must_be_described_and_its_own_test_passes(
    copy: Copy,
) -> None:
    before = copy.test("test_exporter_docs.py", "-k", DESCRIBED)
    for name in DESCRIBED.split(" or "):
        assert re.search(rf"FAILED .*{name}", before.stdout), before.stdout
    copy.add_descriptions()
    after = copy.test("test_exporter_docs.py", "test_toy.py", "-k", f"{DESCRIBED} or test_toy")
    assert after.returncode == 0, after.stdout
    assert "4 passed" in after.stdout
