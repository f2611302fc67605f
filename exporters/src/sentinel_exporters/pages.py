"""Answer the paths that are served: what to say, in which form. Knows no connection."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
from collections.abc import Callable
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from . import __version__, own_process
from .answer import Answer
from .core import Metric, Sample
from .errors import BadTarget
from .exposition import accepts_gzip, choose_form
from .landing import write_page
from .outcome import Outcome
from .prober import Prober, TooManyProbes
from .runner import Runner

log = logging.getLogger(__name__)

BUILD_INFO = Metric(
    "sentinel_exporter_build_info", "gauge", "Always 1; the exporter's version.", ("version",)
)
METRICS = (BUILD_INFO, *own_process.METRICS)

# How long before the scraper gives up the answer is sent, complete or not.
_SCRAPE_MARGIN_S = 0.5


class Headers(Protocol):
    """A request's headers, whose names are the same in upper and in lower case."""

    def get(self, name: str, failobj: str, /) -> str:
        """Return the header's value, or `failobj` where it is not there."""


class Pages:
    """Everything that is served. Safe to use from several threads."""

    def __init__(self, runner: Runner, prober: Prober, max_requests: int) -> None:
        """`max_requests` pages are collected at the same time."""
        self._runner = runner
        self._prober = prober
        self._max_requests = max_requests
        self._free = threading.BoundedSemaphore(max_requests)

    def answer(self, target: str, headers: Headers) -> Answer:
        """Answer a request for `target`, the path with its query."""
        try:
            url = urlsplit(target)
        except ValueError:  # an address in brackets that is none
            return Answer.text(400, "not an address")
        path = url.path.rstrip("/") or "/"
        name = path.removeprefix("/")
        if path == "/":
            return self._landing_page()
        if path == "/healthz":
            return Answer.text(200, "ok")
        if path == "/metrics":
            return self._collected(lambda: self._metrics(headers))
        if name in self._prober.names:
            return self._collected(lambda: self._probe(name, url.query, headers))
        return Answer.text(404, "not found")

    def begin(self, target: str, headers: Headers, done: Callable[[Answer], None]) -> bool:
        """Begin to answer without waiting; False where that is not possible now.

        `done` is called once, from any thread.
        """
        path, _, query = target.partition("?")
        name = path.removeprefix("/")
        if name not in self._prober.names:
            return False
        try:
            address, module = _read_query(query)
        except BadTarget:
            return False
        if not self._free.acquire(blocking=False):
            return False

        def end(result: Callable[[], Outcome]) -> None:
            try:
                answer = _write_result(result, headers)
            except Exception:  # the boundary of a request: it must not be left unanswered
                log.exception("request failed path=%r", target)
                answer = Answer.text(500, "internal error; see the log")
            self._free.release()
            done(answer)

        has_begun = self._prober.begin(name, address, module, find_limit_s(headers), end)
        if not has_begun:
            self._free.release()
        return has_begun

    def _collected(self, work: Callable[[], Answer]) -> Answer:
        if not self._free.acquire(blocking=False):
            return Answer.busy(f"{self._max_requests} requests are being answered")
        try:
            return work()
        finally:
            self._free.release()

    def _landing_page(self) -> Answer:
        body = write_page(
            __version__, socket.gethostname(), self._runner.last_results(),
            self._prober.names, self._prober.last_results(),
        )  # fmt: skip
        return Answer(200, body, "text/html; charset=utf-8")

    def _metrics(self, headers: Headers) -> Answer:
        samples = [BUILD_INFO.sample(1, __version__), *own_process.samples()]
        for outcome in self._runner.collect(find_limit_s(headers)):
            samples += [*outcome.own_samples(), *outcome.samples]
        return _write(samples, headers)

    def _probe(self, name: str, query: str, headers: Headers) -> Answer:
        def probe() -> Outcome:
            address, module = _read_query(query)
            return self._prober.probe(name, address, module, find_limit_s(headers))

        return _write_result(probe, headers)


def _read_query(query: str) -> tuple[str, str]:
    """Return target and module; raises BadTarget."""
    asked = parse_qs(query, keep_blank_values=True)
    targets, modules = asked.get("target", []), asked.get("module", ["default"])
    if len(targets) != 1 or not targets[0]:
        raise BadTarget("exactly one target is required")
    if len(modules) != 1:
        raise BadTarget("at most one module can be named")
    return targets[0], modules[0]


def find_limit_s(headers: Headers) -> float:
    """Return how long a scrape may take.

    Prometheus says how long it waits; an answer that lacks a slow collector is worth more than
    none.
    """
    try:
        limit_s = float(headers.get("X-Prometheus-Scrape-Timeout-Seconds", ""))
    except ValueError:
        return float("inf")
    return max(limit_s - _SCRAPE_MARGIN_S, limit_s / 2) if limit_s > 0 else float("inf")


def _write_result(probe: Callable[[], Outcome], headers: Headers) -> Answer:
    try:
        outcome = probe()
    except BadTarget as error:
        return Answer.text(400, str(error))
    except TooManyProbes as error:
        return Answer.busy(str(error))
    return _write([*outcome.own_samples(), *outcome.samples], headers)


def _write(samples: list[Sample], headers: Headers) -> Answer:
    write, content_type = choose_form(headers.get("Accept", ""))
    body = write(samples)
    more = {"Vary": "Accept, Accept-Encoding"}
    if accepts_gzip(headers.get("Accept-Encoding", "")):
        body = gzip.compress(body, compresslevel=1)
        more["Content-Encoding"] = "gzip"
    return Answer(200, body, content_type, more)
