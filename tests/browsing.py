"""A browser for tests of pages; where there is none, they are skipped."""

from __future__ import annotations

import os
import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to look at the page with")
QUIET = ("background-networking", "component-update", "sync", "quic")
ARGUMENTS = [*(f"--disable-{each}" for each in QUIET), *(["--no-sandbox"] if os.getuid() == 0 else [])]
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def nothing_serious(page):
    """axe finds nothing serious, and nothing is wider than the screen."""
    found = axe.Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.scrollingElement.scrollWidth") <= page.viewport_size["width"]
