"""The clips of dojo-motion in a real browser: they play, last as long as they were paid for, and have their colours."""

import base64
import io
import json
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from live import Live

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SKY, SUN = (135, 206, 235), (230, 180, 90)

PLAYED = """async (video) => {
  await new Promise((done, fail) => {
    video.ontimeupdate = () => video.currentTime > 0.2 && done();
    video.onerror = () => fail(new Error(video.error.message));
    video.play().catch(fail);
  });
  video.pause();
  const told = [video.videoWidth, video.videoHeight, video.duration, video.readyState >= 3, video.seekable.end(0)];
  await new Promise((done) => { video.onseeked = done; video.currentTime = 0; });
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return told;
}"""
FRAMES = """async (url) => {
  const data = await (await fetch(url)).arrayBuffer();
  const decoder = new ImageDecoder({ data, type: "image/webp" });
  await decoder.tracks.ready;
  await decoder.completed;
  const { frameCount, repetitionCount, animated } = decoder.tracks.selectedTrack;
  const { image } = await decoder.decode({ frameIndex: frameCount - 1 });
  return [frameCount, repetitionCount === Infinity, animated, image.displayWidth, image.displayHeight];
}"""


@pytest.fixture(scope="module")
def face() -> str:
    picture = Image.new("RGBA", (200, 200))
    ImageDraw.Draw(picture).ellipse((40, 40, 160, 160), fill=(*SUN, 255))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def clip(live: Live, **body: Any) -> Any:
    """The finished asset of a job."""
    headers = {"Authorization": f"Bearer {live.key}", "Content-Type": "application/json", "Prefer": "wait=60"}
    data = json.dumps({"duration": 1, "fps": 16, "resolution": 256, "seed": 1, **body}).encode()
    ask = urllib.request.Request(f"{live.address}/api/v1/models/dojo-motion/run", data, headers)
    with urllib.request.urlopen(ask, timeout=70) as answer:
        job = json.load(answer)
    assert job["status"] == "completed", job
    return job["assets"][0]


def shown_on(browser: "Browser", live: Live, element: str) -> "Page":
    """A page of the service's own origin, so that it may read the file, with nothing but this in the sky."""
    page = browser.new_page()
    body = f'<body style="background: rgb{SKY}; margin: 0">{element}</body>'
    page.route("**/alone", lambda route: route.fulfill(body=body, content_type="text/html"))
    page.goto(f"{live.address}/alone")
    return page


def test_an_mp4_plays(browser: "Browser", live: Live, face: str) -> None:
    asset = clip(live, image_url=face, background="skyblue", aspect_ratio="4:3")
    page = shown_on(browser, live, f'<video muted src="{asset["url"]}"></video>')
    video = page.locator("video")
    assert video.evaluate(PLAYED) == [288, 216, 1, True, 1]
    shown = np.asarray(Image.open(io.BytesIO(video.screenshot(type="png"))).convert("RGB")).astype(int)
    assert shown.shape == (216, 288, 3)
    assert np.abs(shown[8, 8] - SKY).max() <= 4
    assert np.abs(shown[108, 144] - SUN).max() <= 4
    page.close()


def test_an_animated_webp_loops(browser: "Browser", live: Live, face: str) -> None:
    asset = clip(live, image_url=face, format="webp")
    page = shown_on(browser, live, f'<img src="{asset["url"]}">')
    assert page.evaluate(FRAMES, asset["url"]) == [16, True, True, 256, 256]
    image = page.locator("img")
    image.evaluate("(image) => image.decode()")
    shown = np.asarray(Image.open(io.BytesIO(image.screenshot(type="png"))).convert("RGB")).astype(int)
    assert shown.shape == (256, 256, 3)
    assert np.abs(shown[4, 4] - SKY).max() <= 1, "transparent"
    assert np.abs(shown[128, 128] - SUN).max() <= 4
    page.close()
