"""Every text of the pages is in the catalogue and has a translation that can be filled in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiflask import APIFlask
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.pofile import read_po

from sentinel_booking.web.languages import LANGUAGES
from sentinel_booking.web.reasons import say
from tests.booking.page_lab import make_lab

BOOKING = Path(__file__).parents[2] / "booking"
SOURCE = BOOKING / "src" / "sentinel_booking"
TRANSLATIONS = SOURCE / "web" / "translations"
OTHER_LANGUAGES = sorted(set(LANGUAGES) - {"en"})

# Whose refusals a page can show; texts for agents and programs alone are elsewhere.
REFUSING = (
    "auth.py",
    "domain/booking_rules.py",
    "domain/ssh_keys.py",
    "domain/user_names.py",
    "rate_limits.py",
    "services/booked.py",
    "services/booking_permits.py",
    "services/idempotency.py",
    "services/keys.py",
    "services/nodes.py",
    "services/paging.py",
    "services/reservations.py",
    "services/sign_ins.py",
    "services/transactions.py",
    "services/users.py",
    "web_security.py",
)
# Only programs see these: they name headers and tokens.
FOR_PROGRAMS = {
    "An Authorization header with a bearer token is needed.",
    "This is not the X token.",
    # People are sent to the form for a new password instead.
    "Somebody else has set your password: set one of your own first.",
}
REFUSALS = {
    "BookingError", "Conflict", "FieldProblem", "InvalidInput", "NotAllowed", "NotFound",
    "NotSignedIn", "PasswordChangeRequired", "PreconditionFailed", "PreconditionRequired",
    "RequestForged", "TooManyAttempts", "Unavailable", "__init__", "_refuse", "field",
}  # fmt: skip


def extracted() -> set[str | tuple[str, ...]]:
    """Return what the sources mark for translation, as script/front-end reads it."""
    with (BOOKING / "babel.cfg").open() as file:
        methods, options = parse_mapping_cfg(file)  # type: ignore[no-untyped-call]  # Babel's
    keywords = {
        "_": None, "_l": None, "N_": None, "gettext": None, "ngettext": (1, 2),
    }  # fmt: skip
    found = extract_from_dir(str(SOURCE), methods, options, keywords=keywords)
    return {message for _file, _line, message, _comments, _context in found}


def catalogue(language: str) -> Catalog:
    with (TRANSLATIONS / language / "LC_MESSAGES" / "messages.po").open("rb") as file:
        return read_po(file, locale=language)


def texts_of(value: str | list[str] | tuple[str, ...] | None) -> list[str]:
    """Return one text, or the texts for one and for several."""
    if value is None:
        return [""]
    return [value] if isinstance(value, str) else list(value)


def messages(language: str) -> list[Message]:
    return [message for message in catalogue(language) if message.id]


@pytest.mark.parametrize("language", OTHER_LANGUAGES)
def test_the_catalogue_has_exactly_the_texts_of_the_sources(language: str) -> None:
    ids = {message.id for message in messages(language)}
    # The message says which; script/front-end --messages brings it up to date.
    assert ids - extracted() == set()
    assert extracted() - ids == set()
    assert len(ids) > 300


@pytest.mark.parametrize("language", OTHER_LANGUAGES)
def test_every_text_is_translated_and_nothing_is_left_fuzzy(language: str) -> None:
    assert not catalogue(language).fuzzy
    for message in messages(language):
        assert all(texts_of(message.string)), message.id
        assert not message.fuzzy, message.id


@pytest.mark.parametrize("language", OTHER_LANGUAGES)
def test_a_translation_fills_in_the_same_values(language: str) -> None:
    for message in messages(language):
        wanted = set(re.findall(r"%\(\w+\)[sd]", texts_of(message.id)[-1]))
        for string in texts_of(message.string):
            assert set(re.findall(r"%\(\w+\)[sd]", string)) == wanted, message.id


@pytest.mark.parametrize("language", OTHER_LANGUAGES)
def test_the_compiled_catalogue_is_that_of_the_sources(language: str) -> None:
    folder = TRANSLATIONS / language / "LC_MESSAGES"
    compiled, source = folder / "messages.mo", folder / "messages.po"
    assert compiled.exists(), "run script/front-end"
    assert compiled.stat().st_mtime >= source.stat().st_mtime, "run script/front-end"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> APIFlask:
    return make_lab(tmp_path_factory.mktemp("lab"))


@pytest.mark.parametrize("module", REFUSING)
def test_every_refusal_that_a_page_can_show_is_in_the_pages_language(
    lab: APIFlask, module: str
) -> None:
    texts = set(refusals(SOURCE / module)) - FOR_PROGRAMS
    with lab.test_request_context(headers={"Accept-Language": "zh"}):
        # Add it to web/reasons.py, and its translation.
        assert [text for text in texts if say(text) == text] == []


def test_refusals_are_found_at_all() -> None:
    found = [text for module in REFUSING for text in refusals(SOURCE / module)]
    assert "lies in the past" in found
    assert "There is no node X." in found
    assert "empty" in found
    assert len(set(found)) > 60


def test_an_unknown_refusal_is_shown_as_it_is(lab: APIFlask) -> None:
    with lab.test_request_context(headers={"Accept-Language": "zh"}):
        assert say("no such text 100%") == "no such text 100%"


def refusals(path: Path) -> Iterator[str]:
    """Return the texts of the refusals in a module, "X" for each value filled in.

    A text is what a refusal is made with, what a function named _why_not returns, and
    what the module's constants named …RULE hold.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
            if name in REFUSALS:
                yield from filter(None, map(_text, node.args[-1:] + node.args[:1]))
        elif isinstance(node, ast.FunctionDef) and node.name == "_why_not":
            returns = [one for one in ast.walk(node) if isinstance(one, ast.Return)]
            yield from filter(None, (_text(one.value) for one in returns))
        elif isinstance(node, ast.Assign) and _is_rule(node.targets[0]):
            yield from filter(None, [_text(node.value)])


def _is_rule(target: ast.expr) -> bool:
    return str(getattr(target, "id", "")).upper().endswith("RULE")


def _text(node: ast.expr | None) -> str | None:
    """Return the sentence that the expression stands for; names of fields are none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    elif isinstance(node, ast.JoinedStr):
        text = "".join(
            str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values
        )
    else:
        return None
    return text if " " in text or text == "empty" else None
