"""A person at the pages, in Chromium. It clicks what a person sees and asserts nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

from tests.lab.chromium import CHROMIUM, FLAGS


@contextmanager
def signed_in(url: str, name: str, password: str) -> Iterator[Page]:
    """A page of somebody who has just signed in at `url`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = browser.new_page(locale="en-GB")
            page.set_default_timeout(15_000)
            page.goto(f"{url}/login")
            page.get_by_label("User name").fill(name)
            page.get_by_label("Password").fill(password)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url(lambda address: "/login" not in address)
            yield page
        finally:
            browser.close()
