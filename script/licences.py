"""Lists the licences of what PyInstaller bundled, from their own metadata. Guesses none."""

from __future__ import annotations

import itertools
import subprocess
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# How projects name the files with their terms.
TEXT_PREFIXES = ("licen", "copying", "notice", "authors")


class UnknownLicence(Exception):
    """Something was bundled of which nobody can say under what terms it may be passed on."""


@dataclass(frozen=True, order=True)
class Part:
    """One project whose files are bundled; `texts` are its terms in full."""

    name: str
    version: str
    licence: str
    texts: tuple[str, ...]


def find_parts(origins: Iterable[str]) -> list[Part]:
    """Return the projects that these files come from, save this one, sorted by name.

    It must run in the environment that the files were bundled from. Raises UnknownLicence.
    """
    owners = _files_of_distributions()
    found: dict[str, Part] = {}
    for origin in origins:
        path = Path(origin)
        if path.is_relative_to(ROOT / "agent") or path.is_relative_to(ROOT / "exporters"):
            continue
        if (distribution := owners.get(path.resolve())) is not None:
            part = _distribution_part(distribution)
        elif _is_of_python(path):
            part = _python_part()
        else:
            part = _system_part(path)
        found[part.name] = part
    return sorted(found.values())


def render(parts: Iterable[Part], own_terms: str) -> str:
    """Return Debian's copyright file: our terms, what is bundled, and each part's terms."""
    parts = list(parts)
    lines = [
        own_terms.strip(),
        "",
        "The program carries copies of these, each under its own terms,",
        "",
    ]
    lines += [f"  {part.name} {part.version}: {part.licence}" for part in parts]
    for part in parts:
        title = f"{part.name} {part.version}"
        lines += ["", "-" * 78, title, "-" * 78]
        for text in part.texts:
            lines += ["", text.strip()]
    return "\n".join(lines) + "\n"


def _files_of_distributions() -> dict[Path, metadata.Distribution]:
    return {
        Path(str(distribution.locate_file(file))).resolve(): distribution
        for distribution in metadata.distributions()
        for file in distribution.files or ()
    }


def _distribution_part(distribution: metadata.Distribution) -> Part:
    fields = distribution.metadata
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in fields.get_all("Classifier") or []
        if line.startswith("License :: ")
    ]
    # The field `License` of older projects may hold the whole text.
    named = [fields["License-Expression"] or "", fields["License"] or "", *classifiers]
    licence = next((text for text in named if text and "\n" not in text), "")
    files = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
    texts = [
        path.read_text(errors="replace")
        for path in sorted(files)
        if ".dist-info" in str(path) and path.name.lower().startswith(TEXT_PREFIXES)
    ] or _opening_comments(files)
    if not licence or not texts:
        raise UnknownLicence(f"{fields['Name']}: its metadata has no licence or no text of it")
    return Part(fields["Name"], distribution.version, licence, tuple(texts))


def _opening_comments(files: Iterable[Path]) -> list[str]:
    """Return the terms that stand at the top of modules: nvidia-ml-py has them only there."""
    found: dict[str, None] = {}
    for path in sorted(files):
        if path.suffix == ".py":
            lines = path.read_text(errors="replace").splitlines()
            comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
            text = "\n".join(line.strip("# ") for line in comment)
            if "copyright" in text.lower():
                found[text] = None
    return list(found)


def _is_of_python(path: Path) -> bool:
    folders = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    is_library = path.name.startswith("libpython3") or path.name == "base_library.zip"
    return is_library or any(path.is_relative_to(folder) for folder in folders)


@cache
def _python_part() -> Part:
    stdlib = Path(sysconfig.get_path("stdlib"))
    # Debian keeps the text where it keeps all of them.
    own = stdlib / "LICENSE.txt"
    text = own.read_text() if own.exists() else _system_part(stdlib / "os.py").texts[0]
    return Part("Python", sysconfig.get_config_var("py_version"), "PSF-2.0", (text,))


def _system_part(path: Path) -> Part:
    """Return the Debian package that the file is of."""
    resolved = path.resolve()
    # Packages from before /lib became a link to /usr/lib are listed under the old name.
    names = {str(path), str(resolved), str(resolved).removeprefix("/usr")}
    done = subprocess.run(
        ["dpkg-query", "--search", *sorted(names)], capture_output=True, text=True, check=False
    )
    package = done.stdout.partition(": ")[0]
    terms = Path("/usr/share/doc", package.partition(":")[0], "copyright")
    if not package or not terms.exists():
        raise UnknownLicence(f"{path}: of no Python project and of no Debian package")
    version = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Version}", package],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return Part(package.partition(":")[0], version, "see below", (terms.read_text(),))
