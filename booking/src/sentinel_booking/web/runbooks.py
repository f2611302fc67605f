"""`/runbooks`: what to do about an alert. The texts are those of docs/runbooks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flask import Blueprint, render_template, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup, escape

from ..auth import require_role
from ..errors import NotFound
from ..models import Role
from ..services.alerts import AlertView
from .links import web_link

bp = Blueprint("web_runbooks", __name__, url_prefix="/runbooks")

# A link in the source tree, as migrations is one.
_FOLDER = Path(__file__).parent.parent / "runbooks"
_STEP = re.compile(r"\d+\. ")


@dataclass(frozen=True)
class Section:
    """A heading, what it says, and the steps to take."""

    title: str
    paragraphs: list[str]
    steps: list[str]


@bp.get("/<name>")
@require_role(Role.READONLY)
def show_runbook(name: str) -> ResponseReturnValue:
    """Show an alert's runbook. R."""
    sections = _runbooks().get(name)
    if sections is None:
        raise NotFound("There is no such runbook.")
    return render_template("runbook.html", name=name, sections=sections, code_spans=code_spans)


def runbook_link(alert: AlertView) -> str | None:
    """Return where the alert's runbook is: the address it came with, else our own copy."""
    posted = web_link(alert.annotations.get("runbook_url"))
    if posted is not None or alert.name not in _runbooks():
        return posted
    return url_for("web_runbooks.show_runbook", name=alert.name)


@cache
def _runbooks() -> dict[str, list[Section]]:
    """Return the texts by alert, without their first heading, which is its name."""
    return {
        path.stem: read_sections(path.read_text(encoding="utf-8"))
        for path in sorted(_FOLDER.glob("*.md"))
    }


def read_sections(text: str) -> list[Section]:
    """Return what follows the `# name`: our runbooks have headings, paragraphs and steps."""
    sections = []
    for part in text.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        # A step begins with its number, and goes on for as many lines as are indented.
        blocks = [
            " ".join(block.split())
            for block in re.split(r"\n\s*\n|\n(?=\d+\. )", body)
            if block.strip()
        ]
        sections.append(
            Section(
                title=title.strip(),
                paragraphs=[block for block in blocks if not _STEP.match(block)],
                steps=[_STEP.sub("", block) for block in blocks if _STEP.match(block)],
            )
        )
    return sections


def code_spans(text: str) -> Markup:
    """Return the text with what stands between backticks as code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )
