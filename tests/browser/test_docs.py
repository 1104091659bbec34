"""The pages for people, in a real browser: whole with and without JavaScript, and silent towards other hosts."""

import itertools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from live import Live

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDE: Any = {"width": 1280, "height": 900}
PHONE: Any = {"width": 360, "height": 740}


class Watched:
    """A page, and all that must not happen on it."""

    def __init__(self, page: "Page", live: Live) -> None:
        self.page, self.faults = page, list[str]()
        page.on("console", lambda said: self.faults.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("requestfailed", lambda request: self.faults.append(f"failed: {request.url}"))
        inside = (f"{live.address}/", "data:", f"blob:{live.address}/")
        page.on("request", lambda each: None if each.url.startswith(inside) else self.faults.append(each.url))


@pytest.fixture
def watched(request: pytest.FixtureRequest, browser: "Browser", live: Live) -> Iterator[Watched]:
    context = browser.new_context(
        viewport=WIDE, color_scheme=getattr(request, "param", "light"), base_url=live.address,
        permissions=["clipboard-read", "clipboard-write"],
    )  # fmt: skip
    context.set_default_timeout(20_000)
    watched = Watched(context.new_page(), live)
    yield watched
    context.close()
    assert watched.faults == []


def test_the_documentation(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    assert page.url.endswith("/docs")
    assert page.title() == "PixelDojo API documentation"
    box = page.locator("[data-sample=generate]")
    tabs, panels = box.get_by_role("tab"), box.get_by_role("tabpanel")
    assert tabs.all_inner_texts() == ["curl", "TypeScript", "Python"]
    assert panels.count() == 1 and "curl -fsS" in panels.inner_text()

    tabs.nth(0).press("ArrowRight")
    assert tabs.nth(1).get_attribute("aria-selected") == "true" and "PixelDojoClient" in panels.inner_text()
    assert page.evaluate("document.activeElement.textContent") == "TypeScript"
    tabs.nth(1).press("ArrowLeft")
    tabs.nth(0).press("ArrowLeft")
    assert "pixeldojo_sdk" in panels.inner_text()
    # one choice for the whole page, kept for the next visit
    assert "pixeldojo_sdk" in page.locator("[data-sample=estimate]").get_by_role("tabpanel").inner_text()
    page.reload()
    assert "pixeldojo_sdk" in panels.inner_text()

    panels.get_by_role("button", name="Copy").click()
    panels.get_by_text("Copied").wait_for()  # writing to the clipboard takes a moment
    assert page.evaluate("navigator.clipboard.readText()") == panels.locator("code").text_content()
    page.get_by_role("button", name="Copy for an AI").click()
    page.get_by_role("button", name="Copied", exact=True).wait_for()
    assert page.evaluate("navigator.clipboard.readText()").startswith("# PixelDojo API")

    model = page.locator("#model-testcard")
    model.get_by_text("Inputs", exact=True).click()
    assert model.get_by_role("cell", name="Width to height").is_visible()
    page.get_by_role("link", name="Errors", exact=True).click()
    page.locator(".contents [aria-current][href='#errors']").wait_for()


@pytest.mark.parametrize("watched", ["light", "dark"], indirect=True)
def test_every_name_and_contrast_that_a_reader_needs(watched: Watched) -> None:
    page = watched.page
    page.goto("/docs")
    assert page.locator("html").get_attribute("lang") == "en"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to main content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    levels = [int(each) for each in page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => h.tagName[1])")]
    assert levels.count(1) == 1 and all(after - before <= 1 for before, after in itertools.pairwise(levels))
    pressed = "[...document.querySelectorAll('button, a, summary')]"
    assert page.evaluate(f"{pressed}.filter(each => !(each.textContent.trim() || each.ariaLabel)).length") == 0
    read = ("body", "main p", "main a", ".contents a", ".lang", ".code code", ".badge.kind", ".button", "thead th")
    for selector in read:
        found = page.evaluate(CONTRAST, selector)
        assert found >= 4.5, (selector, found)


CONTRAST = """(selector) => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let node = document.querySelector(selector);
  const ink = light(parse(getComputedStyle(node).color));
  while (node) {
    const ground = parse(getComputedStyle(node).backgroundColor);
    if (ground.length === 3 || ground[3] > 0) {
      const paper = light(ground);
      return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    }
    node = node.parentElement;
  }
}"""


def test_the_reference(watched: Watched, live: Live) -> None:
    page = watched.page
    page.goto("/docs/reference#/models/listModels")  # a link to one operation opens it
    operation = page.locator("#operations-models-listModels")
    operation.get_by_role("button", name="Execute").click()
    assert '"dojo-mini"' in operation.locator(".live-responses-table").inner_text()

    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_label("auth-bearer-value").fill(live.key)
    page.locator(".auth-btn-wrapper").get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").click()
    operation = page.locator("#operations-image-run_testcard")
    operation.locator(".opblock-summary-control").click()
    assert page.evaluate("location.hash") == "#/image/run_testcard"
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table")
    answer.wait_for()
    assert re.search(r'"jobId": "job_', answer.inner_text())


@pytest.mark.parametrize("path", ["/docs", "/docs/reference"])
def test_a_phone_scrolls_one_way(browser: "Browser", live: Live, path: str) -> None:
    context = browser.new_context(viewport=PHONE, base_url=live.address)
    page = context.new_page()
    page.goto(path)
    if path.endswith("reference"):
        page.locator(".opblock").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    context.close()


def test_without_javascript(browser: "Browser", live: Live) -> None:
    context = browser.new_context(viewport=WIDE, base_url=live.address, java_script_enabled=False)
    page = context.new_page()
    page.goto("/docs")
    sample = page.locator("[data-sample=generate]")
    for text in ("curl -fsS", "@pixeldojo/sdk", "pixeldojo_sdk"):
        assert sample.get_by_text(text).first.is_visible()
    assert page.get_by_role("button").count() == 0, "no button that does nothing"
    page.get_by_role("link", name="Rate limits", exact=True).click()
    assert page.url.endswith("#limits")
    page.goto("/docs/reference")
    assert page.get_by_text("needs JavaScript").is_visible()
    context.close()
