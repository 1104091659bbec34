"""The embedded video model through the API: a clip of a result, what it costs by the second, and what is refused."""

import base64
import io
from collections.abc import Callable
from typing import Any

import av
from PIL import Image, ImageDraw

from doors.conftest import API, Person, Service, fault, faults
from pixeldojo.catalogue import card as cards

RUN = f"{API}/models/dojo-motion/run"
SMALL = {"resolution": 256, "fps": 16, "seed": 1}


def _uri() -> str:
    picture = Image.new("RGBA", (60, 40))
    ImageDraw.Draw(picture).ellipse((14, 4, 46, 36), fill=(220, 60, 40, 255))
    out = io.BytesIO()
    picture.save(out, "PNG")
    # whatever the type says, the content decides
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _done(ana: Person, **body: Any) -> Any:
    response = ana.ask("POST", RUN, json=SMALL | body)
    assert response.status_code == 202, response.text
    return ana.wait(response.json()["jobId"])


def test_clips_over_http(serve: Callable[..., Service]) -> None:
    service = serve(listed=[card for card in cards.read_all(None) if card.api_id == "dojo-motion"])
    ana = service.person(credits=1)
    assert fault(ana.ask("POST", RUN, json=SMALL), 400, "validation_error")["message"].startswith("The body must have")
    assert faults(ana.ask("POST", RUN, json={"prompt": "a cat", "duration": 4.5})) == {
        "duration": "must be at most 4, not 4.5"
    }
    job = _done(ana, image_url=_uri(), duration=1.5)
    assert (job["status"], job["modality"], job["creditCost"]) == ("completed", "video", 0.15)
    (asset,) = job["assets"]
    assert (asset["type"], asset["contentType"], asset["durationSeconds"]) == ("video", "video/mp4", 1.5)
    assert job["output"] == {"videos": [asset["url"]], "video": asset["url"]}
    answer = service.ask("GET", asset["url"])
    assert answer.headers["content-type"] == "video/mp4" and len(answer.content) == asset["bytes"]
    with av.open(io.BytesIO(answer.content)) as clip:
        stream = clip.streams.video[0]
        assert (stream.width, stream.height, stream.frames) == (asset["width"], asset["height"], 24) == (312, 208, 24)
    assert ana.balance() == 850

    moving = _done(ana, image_url=_uri(), duration=1, format="webp")
    (asset,) = moving["assets"]
    assert (asset["type"], asset["contentType"], asset["durationSeconds"]) == ("video", "image/webp", 1)
    assert service.ask("GET", asset["url"]).headers["content-type"] == "image/webp"
    again = _done(ana, image_url=asset["url"], duration=1)
    assert again["status"] == "completed", "of an animation, the first frame"
    assert ana.balance() == 650

    refused = _done(ana, image_url=_uri(), background="transparent")
    assert (refused["status"], refused["error"]["code"]) == ("failed", "validation_error")
    assert "ask for the format webp" in refused["error"]["message"]
    assert ana.balance() == 650, "refunded"
