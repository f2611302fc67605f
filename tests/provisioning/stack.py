"""Reads the containers' files as Compose and a builder would. Judges nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from provisioning.render import ROOT

COMPOSE = ROOT / "compose"
# Any: the schema of Compose checks the form, and each test looks at one part.
STACK: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
SECRET = re.compile(r"/run/secrets/(\w+)")
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-[\w.-]+)?")


def read_example(*, with_alternatives: bool = False) -> dict[str, list[str]]:
    """Return each variable of .env.example with its values, the first being in force."""
    found: dict[str, list[str]] = {}
    for line in (COMPOSE / ".env.example").read_text().splitlines():
        match = re.fullmatch(r"(# )?([A-Z_]+)=(.*)", line)
        if match and (with_alternatives or not match[1]):
            found.setdefault(match[2], []).append(match[3])
    return found


def interpolate(value: str) -> str:
    """Return the value as Compose makes it with .env.example as .env."""
    example = read_example()
    return VARIABLE.sub(lambda match: example[match[1]][0] or match[3] or "", value)


def environment(service: str) -> dict[str, str]:
    found = SERVICES[service].get("environment", {})
    return {name: interpolate(str(value)) for name, value in found.items()}


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str
    stage: int


def read_dockerfile(path: Path) -> list[Instruction]:
    """Return the instructions, continued lines joined, with the number of their stage."""
    joined = re.sub(r"\\\n", " ", path.read_text())
    found: list[Instruction] = []
    stage = -1
    for line in joined.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        stage += word == "FROM"
        found.append(Instruction(word, " ".join(rest.split()), stage))
    return found


DOCKERFILES = sorted(COMPOSE.glob("*.Dockerfile"))


def last_stage(path: Path) -> dict[str, str]:
    found = read_dockerfile(path)
    return {one.word: one.rest for one in found if one.stage == found[-1].stage}


def dockerfile_of(service: str) -> dict[str, str]:
    build = SERVICES[service].get("build")
    return last_stage(ROOT / build["dockerfile"]) if build else {}


def dockerfile_environment(service: str) -> dict[str, str]:
    pairs = re.findall(r"(\w+)=(\S+)", dockerfile_of(service)["ENV"])
    return {name: value for name, value in pairs if name.startswith("SENTINEL_")}
