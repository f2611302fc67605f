"""The Dockerfiles, without a builder: pinned, locked, without root, and of files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from provisioning.render import ROOT

from .stack import COMPOSE, DOCKERFILES, PINNED, SERVICES, last_stage, read_dockerfile

KNOWN = {
    "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK",
    "ENTRYPOINT", "CMD",
}  # fmt: skip


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_is_used_and_says_only_what_is_known(path: Path) -> None:
    assert path.relative_to(ROOT).as_posix() in {
        service["build"]["dockerfile"] for service in SERVICES.values() if "build" in service
    }
    found = read_dockerfile(path)
    assert found[0].word == "FROM"
    assert {one.word for one in found} <= KNOWN
    for one in found:
        if one.word in {"ENTRYPOINT", "CMD"}:
            # The other form would run a shell, which swallows signals.
            assert isinstance(yaml.safe_load(one.rest), list)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_begins_with_pinned_images_and_ends_without_root(path: Path) -> None:
    for one in read_dockerfile(path):
        if one.word == "FROM":
            assert PINNED.fullmatch(one.rest.split(" AS ")[0])
    assert last_stage(path)["USER"] == "10001:10001"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_copies_what_is_there(path: Path) -> None:
    found = read_dockerfile(path)
    stages = {one.rest.partition(" AS ")[2]: one.stage for one in found if one.word == "FROM"}
    ignore = path.with_name(path.name + ".dockerignore").read_text().split()
    assert ignore[0] == "*", "only what is named goes to the builder"
    for one in found:
        if one.word != "COPY":
            continue
        words = one.rest.split()
        if words[0].startswith("--from="):
            assert stages[words[0].removeprefix("--from=")] < one.stage
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source.split('/')[0]}" in ignore


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_installs_only_what_is_locked(path: Path) -> None:
    copied = " ".join(one.rest for one in read_dockerfile(path) if one.word == "COPY")
    for one in read_dockerfile(path):
        for command in re.split(r"&&", one.rest) if one.word == "RUN" else ():
            words = command.split()
            if "/pip" not in words[0] or words[1] not in {"install", "wheel"}:
                assert "pip install" not in command
                continue
            if "-r" in words:
                lock = words[words.index("-r") + 1]
                assert "--require-hashes" in words
                assert lock.replace("/locks/", "requirements/") in copied
            else:
                assert "--no-deps" in words
                assert {"--no-index", "--no-build-isolation"} & set(words)


def test_the_image_has_the_pages_packages_that_the_native_start_has() -> None:
    native = (ROOT / "script/front-end").read_text()
    image = (COMPOSE / "booking.Dockerfile").read_text()
    pattern = r"node_modules/([\w./-]+\.(?:js|css)|[\w./-]+/LICENSE)"
    assert set(re.findall(pattern, image)) == set(re.findall(pattern, native)) != set()


def test_a_health_check_asks_the_port_that_the_image_exposes() -> None:
    for path in DOCKERFILES:
        last = last_stage(path)
        if "EXPOSE" in last:
            assert f"127.0.0.1:{last['EXPOSE']}/" in last["HEALTHCHECK"]
            assert f"_LISTEN=0.0.0.0:{last['EXPOSE']}" in last["ENV"]
