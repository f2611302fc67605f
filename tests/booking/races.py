"""Several callers at one moment. It knows no booking."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

Result = TypeVar("Result")


def at_once(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Start each call in a thread of its own at one moment; return their results in order.

    An error in one of them is raised here, when all have ended.
    """
    results: list[Result | None] = [None] * len(calls)
    errors: list[BaseException] = []
    gate = threading.Barrier(len(calls))

    def run(number: int, call: Callable[[], Result]) -> None:
        try:
            gate.wait(30)
            results[number] = call()
        except BaseException as error:  # a thread's error would only be printed
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=(number, call)) for number, call in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [result for result in results if result is not None]
