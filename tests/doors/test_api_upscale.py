"""The embedded upscaler through the API: a picture inside the request, a result's URL, and one that is too large."""

import base64
import io
from collections.abc import Callable
from typing import Any

from PIL import Image

from doors.conftest import API, Person, Service
from pixeldojo.catalogue import card as cards


def _uri(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _done(ana: Person, **body: Any) -> Any:
    response = ana.ask("POST", f"{API}/models/dojo-upscale/run", json=body)
    assert response.status_code == 202, response.text
    return ana.wait(response.json()["jobId"])


def _picture(service: Service, job: Any) -> Image.Image:
    assert job["status"] == "completed", job
    (asset,) = job["assets"]
    made = Image.open(io.BytesIO(service.ask("GET", asset["url"]).content))
    assert (asset["width"], asset["height"]) == made.size
    return made


def test_upscaling_over_http(serve: Callable[..., Service]) -> None:
    service = serve(listed=[card for card in cards.read_all(None) if card.api_id == "dojo-upscale"])
    ana = service.person(credits=1)
    first = _done(ana, image_url=_uri(Image.new("RGBA", (24, 16), (200, 80, 40, 255))))
    assert _picture(service, first).size == (48, 32)
    again = _done(ana, image_url=first["assets"][0]["url"], scale=4, format="webp")
    larger = _picture(service, again)
    assert (larger.size, larger.format) == ((192, 128), "WEBP")
    assert ana.balance() == 900

    refused = _done(ana, image_url=_uri(Image.new("L", (2000, 8))), scale=4)
    assert refused["status"] == "failed"
    assert "or ask for scale 2" in refused["error"]["message"]
    assert ana.balance() == 900, "refunded"
