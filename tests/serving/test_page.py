"""The page in a real browser: pick a user, see titles, reasons, model and features; rate, and it counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.conftest import API_KEY, Night, Running

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def browser() -> Iterator[object]:
    if not CHROMIUM.is_file():
        pytest.skip(f"{CHROMIUM} is not installed")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS, timeout=180_000)
        try:
            yield running
        finally:
            running.close()


def test_a_user_is_picked_and_what_they_rate_counts_at_once(
    running: Running, night: Night, browser, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    page = browser.new_page(viewport={"width": 1180, "height": 1000})
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    faults: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(running.url)
    expect(page.locator("#note")).to_contain_text("carries no valid key")
    page.fill("#key", API_KEY)
    page.fill("#user", str(night.users[0]))
    page.click("button:has-text('Recommend')")
    items = page.locator("#items > li")
    expect(items).to_have_count(10)
    expect(page.locator("#model")).to_contain_text("model version 1 · blue")
    answer = running.service.ring.last(1)[0]
    first = items.first
    assert first.get_attribute("data-item") == str(answer.shown[0])
    assert running.service.deployments.route.active.title(answer.shown[0]) in first.inner_text()
    expect(page.locator(".why", has_text="because of").first).to_be_visible()
    facts = page.locator("#facts").inner_text()
    assert "users__age" in facts and "user_stats__ratings_count" in facts and "basis" in facts
    first.locator("summary").click()
    expect(first).to_contain_text("movies__year")
    page.screenshot(path=os.environ.get("MILLRACE_SCREENSHOT", str(tmp_path / "page.png")))

    first.locator("text=Rate 5").click()
    expect(page.locator(f'#items > li[data-item="{answer.shown[0]}"]')).to_have_count(0)
    expect(items).to_have_count(10)
    items.first.locator("text=In words").click()
    expect(page.locator("#note")).to_contain_text("No language model is configured")
    page.select_option("#genre", "Comedy")
    page.click("button:has-text('Recommend')")
    expect(page.locator("#items > li .chip", has_text="Comedy")).to_have_count(10)
    assert faults == []
    assert all(url.startswith(running.url) or url.startswith("data:") for url in asked)
