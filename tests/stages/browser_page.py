"""A page in headless Chromium. Importing this skips the test where Playwright or the system's Chromium is not there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

sync = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
if CHROMIUM is None:
    pytest.skip("there is no Chromium here", allow_module_level=True)

#: Chromium's own errands, which a machine without a network refuses loudly
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip


@contextmanager
def opened(url: str, *, width: int = 1400) -> Iterator[tuple[object, list[str], list[str]]]:
    """Open a page; yield it, what its console complains of, and every address that it asks for."""
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_page(viewport={"width": width, "height": 900})
        troubles: list[str] = []
        requests: list[str] = []
        page.on(
            "console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith("data:") else requests.append(request.url))
        page.goto(url)
        yield page, troubles, requests
        browser.close()
