"""What `sentinel-agent explain` found out, and how it reads. It finds nothing out itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..policy.model import format_time

TOPIC_WIDTH = 13
# What fits on a screen; the rest is counted.
LISTED_MAX = 5


@dataclass(frozen=True)
class Blocker:
    """Something that keeps the user out. `code` is for programs, `then` says what helps.

    Of several, the one with the lowest `rank` is told: while it is there, no other matters.
    """

    rank: int
    code: str
    why: str
    then: str


@dataclass(frozen=True)
class Line:
    """One line of a section; `is_bad`: something is not as it should be."""

    text: str
    is_bad: bool = False


@dataclass(frozen=True)
class Section:
    """What was found about one topic."""

    topic: str
    lines: Sequence[Line]
    blockers: Sequence[Blocker] = ()


@dataclass(frozen=True)
class Explanation:
    """All that was found about one user, and what follows from it.

    `code` is the blocker's, or `let-in`, `break-glass`, `not-enforced`, `unknown`; for the last
    two `is_let_in` is None: it is not the lock that decides, or sshd does not say.
    """

    user: str
    node: str
    at: datetime
    is_let_in: bool | None
    code: str
    verdict: str
    then: str
    sections: Sequence[Section]

    @property
    def status(self) -> int:
        """The command's exit status: 0 when nothing was found that keeps the user out."""
        return 0 if self.is_let_in or self.code == "not-enforced" else 1

    def render(self) -> Iterator[str]:
        """Yield the lines for a person, the verdict first."""
        yield f"{self.user} on {self.node}, {self.at.astimezone():%Y-%m-%d %H:%M:%S %Z}"
        words = {True: "LET IN", False: "REFUSED", None: "NOT LOCKED"}
        word = "NOT KNOWN" if self.code == "unknown" else words[self.is_let_in]
        yield f"{word}: {self.verdict}"
        if self.then:
            yield f"Next: {self.then}"
        yield ""
        for section in self.sections:
            topic = section.topic
            for line in section.lines:
                mark = "!" if line.is_bad else " "
                yield f"{mark} {topic:<{TOPIC_WIDTH}} {line.text}"
                topic = ""

    def document(self) -> dict[str, object]:
        """Return the same for a program."""
        return {
            "user": self.user,
            "node": self.node,
            "at": format_time(self.at),
            "let_in": self.is_let_in,
            "code": self.code,
            "verdict": self.verdict,
            "next": self.then,
            "sections": [
                {
                    "topic": section.topic,
                    "lines": [
                        {"text": line.text, "bad": line.is_bad} for line in section.lines
                    ],
                    "blockers": [
                        {"code": blocker.code, "why": blocker.why, "next": blocker.then}
                        for blocker in section.blockers
                    ],
                }
                for section in self.sections
            ],
        }


def when(moment: datetime, now: datetime) -> str:
    """Return a time of this node's zone as people say it: the date only where it is another."""
    local, today = moment.astimezone(), now.astimezone()
    form = "%H:%M" if local.date() == today.date() else "%Y-%m-%d %H:%M"
    return f"{local:{form}}"


def counted(number: int, noun: str) -> str:
    """Return a number of things in words, `1 process` and `2 processes`."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def how_long(seconds: float) -> str:
    """Return a length of time, roughly."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
