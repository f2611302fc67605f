"""Put the questions about single cards, oldest answer first, and keep what came back.

Each question is a run of a tool, so that all of them may take longer than one read has: what
is not asked in one is asked in the next. Runs nothing itself.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..npu.reading import Details, merge_details
from .details import ByChip
from .errors import NoAnswer, NotSupported, NpuSmiError
from .info import Chip
from .questions import NETWORK, STATIC_S, Question
from .values import Damaged

Place = tuple[int, int]

# How many of its intervals an answer may be old, when the others take so long; and how much
# more, as reads may be farther apart than a short interval.
_STALE_INTERVALS = 3.0
_GRACE_S = 60.0
_TOO_OLD = "the last answer is too old: the tool takes too long for detail_interval_s"


@dataclass(frozen=True)
class _Answer:
    """What came back; `problem` instead of details where it could not be read."""

    asked_at: float
    again_s: float
    details: ByChip = field(default_factory=dict)
    problem: str = ""
    is_silent: bool = False


class Interview:
    """The answers so far. Not safe to use from several threads."""

    def __init__(
        self, ask: Callable[[Question, float], str], *, grace_s: float = _GRACE_S
    ) -> None:
        """`ask` runs the tool, for at most so many seconds, and returns what it prints."""
        self._ask = ask
        self._grace_s = grace_s
        self._answers: dict[tuple[str, int, int | None], _Answer] = {}
        self._networked: set[tuple[str, int, int | None]] = set()

    def forget(self) -> None:
        """Keep no answer: it was about other cards."""
        self._answers.clear()
        self._networked.clear()

    def put(self, questions: Sequence[Question], deadline: float, answer_s: float) -> None:
        """Ask what is due, while an answer that takes `answer_s` is there by `deadline`.

        `deadline` is monotonic. A question is not put with less time than the others have, or
        it would be taken for one that is not answered.
        """
        keys = {question.key for question in questions}
        self._answers = {key: one for key, one in self._answers.items() if key in keys}
        silent: set[int] = set()
        for question in sorted(questions, key=self._asked_at):
            now = time.monotonic()
            if now + answer_s > deadline:
                break
            if question.npu_id in silent or not self._is_due(question, now):
                continue
            answer = self._answers[question.key] = self._hear(question, now, answer_s)
            if answer.is_silent:  # the others' time is not for a card that does not answer
                silent.add(question.npu_id)

    def details(
        self, questions: Sequence[Question], chips: Sequence[Chip]
    ) -> dict[Place, Details]:
        """Return what is known of each chip and is not too old."""
        now = time.monotonic()
        parts: dict[Place, list[Details]] = defaultdict(list)
        for question in questions:
            answer = self._answers.get(question.key)
            if answer is None or self._is_stale(answer, now):
                continue
            own = [one.chip_id for one in chips if one.npu_id == question.npu_id]
            for chip_id, details in answer.details.items():
                for place in _places(question, chip_id, own):
                    parts[place].append(details)
        return {place: merge_details(found) for place, found in parts.items()}

    def problems(self, questions: Sequence[Question]) -> list[str]:
        """Return what could not be read and what has become old, each with its cards."""
        now = time.monotonic()
        places: dict[tuple[str, str], list[str]] = defaultdict(list)
        for question in questions:
            answer = self._answers.get(question.key)
            if answer is None:
                continue
            problem = _TOO_OLD if self._is_stale(answer, now) else answer.problem
            if problem:
                places[question.kind, problem].append(question.place)
        return [f"{kind}: {', '.join(at)}: {problem}" for (kind, problem), at in places.items()]

    def _asked_at(self, question: Question) -> float:
        answer = self._answers.get(question.key)
        return answer.asked_at if answer else float("-inf")

    def _is_due(self, question: Question, now: float) -> bool:
        answer = self._answers.get(question.key)
        return answer is None or now - answer.asked_at >= answer.again_s

    def _is_stale(self, answer: _Answer, now: float) -> bool:
        return now - answer.asked_at > _STALE_INTERVALS * answer.again_s + self._grace_s

    def _hear(self, question: Question, now: float, timeout_s: float) -> _Answer:
        """Ask, and return what came back: details, that there are none, or a problem."""
        try:
            details = question.read(self._ask(question, timeout_s))
        except NotSupported:
            return _Answer(now, STATIC_S)
        except (Damaged, NpuSmiError) as error:
            is_silent = isinstance(error, NoAnswer)
            # A chip without a network is no fault; one that had one before is.
            had_none = question.kind in NETWORK and question.key not in self._networked
            if had_none and not is_silent:
                return _Answer(now, STATIC_S)
            return _Answer(now, question.every_s, problem=str(error), is_silent=is_silent)
        if question.kind in NETWORK:
            self._networked.add(question.key)
        return _Answer(now, question.every_s, details)


def _places(question: Question, chip_id: int | None, chips: Sequence[int]) -> list[Place]:
    """Return the chips that an answer is about.

    One that names no chip is about the one that was asked for, or else about all of the card:
    a tool that tells of chips names each, unless there is only one.
    """
    if question.chip_id is not None:
        return [(question.npu_id, question.chip_id)]
    if chip_id is None:
        return [(question.npu_id, one) for one in chips]
    return [(question.npu_id, chip_id)]
