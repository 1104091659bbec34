"""The embedded image model through the API: results as inputs, and what a submit and a job refuse."""

import base64
import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from doors.conftest import API, Person, Service, faults
from pixeldojo.catalogue import card as cards
from studio import encoded

RUN = f"{API}/models/dojo-mini/run"


def uri(picture: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(encoded(picture)).decode()


@pytest.fixture
def service(serve: Callable[..., Service]) -> Service:
    return serve(listed=[card for card in cards.read_all(None) if card.api_id == "dojo-mini"])


@pytest.fixture
def ana(service: Service) -> Person:
    return service.person(credits=1)


def _done(ana: Person, **body: Any) -> Any:
    response = ana.ask("POST", RUN, json={"prompt": "a red apple", "seed": 1, "steps": 4} | body)
    assert response.status_code == 202, response.text
    return ana.wait(response.json()["jobId"])


def test_from_words_to_a_sticker_to_an_edit(service: Service, ana: Person) -> None:
    first = _done(ana, background="transparent", size=256)
    assert first["status"] == "completed", first
    assert (first["assets"][0]["width"], first["assets"][0]["height"]) == (256, 256)
    mask = Image.new("L", (256, 256))
    mask.paste(255, (0, 0, 256, 100))
    again = _done(ana, image_url=first["assets"][0]["url"], mask_url=uri(mask), prompt="a crown", num_outputs=2)
    assert again["status"] == "completed", again
    before, *after = (
        Image.open(io.BytesIO(service.ask("GET", asset["url"]).content)).convert("RGBA")
        for asset in (*first["assets"], *again["assets"])
    )
    for each in after:
        assert each.crop((0, 100, 256, 256)).tobytes() == before.crop((0, 100, 256, 256)).tobytes()
        assert each.crop((0, 0, 256, 100)).tobytes() != before.crop((0, 0, 256, 100)).tobytes()
    assert ana.balance() == 700


def test_what_a_job_refuses_costs_nothing(ana: Person) -> None:
    wide, mask = uri(Image.new("RGB", (64, 32))), uri(Image.new("L", (32, 32), 255))
    for body, says in (
        ({"prompt": "🇯🇵"}, "prompt: there is no word in it"),
        ({"background": "blurple"}, "background: 'blurple' is no colour"),
        ({"background": "transparent", "format": "jpeg"}, "JPEG has no transparency"),
        ({"image_url": uri(Image.new("RGB", (500, 100)))}, "too long and narrow"),
        ({"image_url": wide, "mask_url": mask}, "another shape than the picture"),
        ({"image_url": wide, "mask_url": wide}, "nothing in the mask is white"),
    ):
        job = _done(ana, **body)
        assert (job["status"], job["error"]["code"]) == ("failed", "validation_error"), job
        assert says in job["error"]["message"]
    assert ana.balance() == 1000


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"steps": 3}, "steps"),
    ({"steps": 51}, "steps"),
    ({"steps": 12.5}, "steps"),
    ({"guidance": 0.9}, "guidance"),
    ({"guidance": 7}, "guidance"),
    ({"size": 63}, "size"),
    ({"size": 1025}, "size"),
    ({"size": "512"}, "size"),
    ({"strength": 0}, "strength"),
    ({"strength": 1.01}, "strength"),
    ({"background": "rgb(0,0,0)"}, "background"),
    ({"background": "#12"}, "background"),
    ({"aspect_ratio": "21:9"}, "aspect_ratio"),
    ({"mask_url": uri(Image.new("L", (8, 8), 255))}, "image_url"),
    ({"image_url": "data:image/gif;base64,R0lGODlhAQABAAAAACw="}, "image_url"),
    ({"image_url": "data:image/png;base64,AAAA"}, "image_url"),
    ({"image_url": uri(Image.new("L", (8, 8))), "mask_url": "file:///etc/passwd"}, "mask_url"),
    ({"format": "gif"}, "format"),
]


def test_a_submit_names_what_is_wrong(ana: Person) -> None:
    for body, named in WRONG:
        found = faults(ana.ask("POST", RUN, json={"prompt": "a cat"} | body))
        assert set(found) == {named}, body
    assert ana.balance() == 1000
