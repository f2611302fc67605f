"""People at a real browser, a Prometheus with something to show, and what can be seen."""

from __future__ import annotations

import datetime as dt
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, StorageState
from playwright.sync_api import Error as PlaywrightError

from tests.booking.people import PASSWORD
from tests.booking.programs import answers, free_port, running

# Half an hour off the full hours, so that a mix-up with UTC shows; no summer time.
ZONE = "Australia/Darwin"
ZONE_OFFSET = dt.timedelta(hours=9, minutes=30)

NETWORK_CHANGED = "ERR_NETWORK_CHANGED"


@contextmanager
def measured(folder: Path) -> Iterator[str]:
    """A real Prometheus whose past was written by its own tool; yields its address."""
    now = int(time.time())
    lines = ["# TYPE accelerator_utilization_ratio gauge"]
    for card in range(8):
        labels = f'node="gpu-01",vendor="nvidia",index="{card}",uuid="GPU-{card}"'
        lines += [
            f"accelerator_utilization_ratio{{{labels}}} 0.{card} {at}"
            for at in range(now - 3600, now, 15)
        ]
    samples = folder / "samples.txt"
    samples.write_text("\n".join([*lines, "# EOF\n"]))
    data = folder / "prometheus"
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", samples, data],
        check=True, capture_output=True,
    )  # fmt: skip
    (folder / "prometheus.yml").write_text("{}\n")
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus", f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={data}", f"--web.listen-address={address}",
    ]  # fmt: skip
    ready = f"http://{address}/-/ready"
    with running(command, folder / "prometheus.log", lambda: answers(ready)):
        yield f"http://{address}"


class Person:
    """Somebody at a browser of their own; `troubles` is what its console complained of."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.troubles: list[str] = []
        self._n_dropped = 0
        self.url = url
        self.page: Page = context.new_page()
        self.page.set_default_timeout(15_000)
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))

    def open(self, path: str) -> None:
        """Open a page, and again when Chromium dropped what it was loading.

        It does so when a network interface comes or goes, as when other tests make theirs.
        """
        for _ in range(5):
            self._n_dropped = 0
            try:
                self.page.goto(self.url + path)
            except PlaywrightError as error:
                if NETWORK_CHANGED not in str(error):
                    raise
                continue
            if not self._n_dropped:
                return

    def _note(self, kind: str, text: str) -> None:
        if NETWORK_CHANGED in text:
            self._n_dropped += 1
        elif kind in ("error", "warning"):
            self.troubles.append(text)


@contextmanager
def person(
    browser: Browser, url: str, name: str, *, width: int = 1280, language: str = "en-GB"
) -> Iterator[Person]:
    """Somebody who is signed in, at the matrix."""
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        locale=language,
        timezone_id=ZONE,
        has_touch=width < 800,
        storage_state=_SIGNED_IN.get((url, name)),
    )
    try:
        if (url, name) not in _SIGNED_IN:
            # Once for each: trying too often is refused. One of the tests types the password.
            context.request.post(f"{url}/login", form={"name": name, "password": PASSWORD})
            _SIGNED_IN[url, name] = context.storage_state()
        somebody = Person(context, url)
        somebody.open("/")
        yield somebody
    finally:
        context.close()


# By the server's address and the person's name.
_SIGNED_IN: dict[tuple[str, str], StorageState] = {}


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two colours written as #rrggbb."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
