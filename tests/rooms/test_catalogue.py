"""Cards: what a file must say, what a mistake in it is called, which folder wins, and what a job costs."""

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pixeldojo import errors, opening
from pixeldojo.catalogue import card as cards
from pixeldojo.catalogue.card import Card, CardError
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.settings import Settings

GOOD: dict[str, Any] = {
    "apiId": "film-1.0", "name": "Film", "description": "Moves.", "modality": "video",
    "capabilities": ["text-to-video"], "price": {"type": "fixed", "amount": 1},
    "engine": {"family": "testcard"},
    "schema": {
        "type": "object", "additionalProperties": False, "required": ["prompt"],
        "properties": {
            "prompt": {"type": "string"},
            "num_outputs": {"type": "integer", "default": 1},
            "duration": {"type": "number", "default": 5},
            "size": {"enum": ["1K", "2K"], "default": "1K"},
            "image_url": {"type": "string", "x-input": "image"},
            "strict": {"type": "boolean"},
        },
    },
}  # fmt: skip
BY_SIZE = {"type": "by_resolution", "parameter": "size", "amounts": {"1K": 1, "2K": 2.5}}


def _changed(path: str, value: Any) -> dict[str, Any]:
    """The good card with one field changed, or without it where the value is `...`."""
    made = copy.deepcopy(GOOD)
    *folders, last = path.split("/")
    inside = made
    for folder in folders:
        inside = inside[folder]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    return made


def _write(folder: Path, body: Any, name: str = "film-1.0") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_bytes(body if isinstance(body, bytes) else json.dumps(body).encode())
    return path


def _catalogue(*changes: tuple[str, Any]) -> Catalogue:
    made = copy.deepcopy(GOOD)
    for path, value in changes:
        inside = made
        *folders, last = path.split("/")
        for folder in folders:
            inside = inside[folder]
        inside[last] = value
    return Catalogue([msgspec.convert(made, type=Card)])


def test_the_cards_that_come_with_it_are_good() -> None:
    ours = cards.read_all(None)
    assert {card.api_id for card in ours} >= {"dojo-mini", "testcard"}
    catalogue = Catalogue(ours)
    for card in ours:
        for example in card.examples:
            assert catalogue.order(card.api_id, example).cost_milli >= 0
        assert catalogue.detail(card)["pricing"].endswith(".")


def test_a_good_card(tmp_path: Path) -> None:
    card = cards.read(_write(tmp_path, GOOD))
    assert (card.api_id, card.pictures) == ("film-1.0", ["image_url"])
    assert card.defaults == {"num_outputs": 1, "duration": 5, "size": "1K"}
    assert (card.engine.instances, card.engine.enabled_by) == (1, None)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("apiId", ..., "apiId"),
        ("apiId", "other", "apiId"),
        ("name", ..., "name"),
        ("name", 5, "name"),
        ("modality", "sound", "modality"),
        ("capabilities", ["flying"], "capabilities"),
        ("colour", "blue", "colour"),
        ("price", ..., "price"),
        ("price/type", "free", "price"),
        ("price/amount", "1", "price"),
        ("price/amount", 0.0001, "price"),
        ("price/amount", 1e300, "price"),
        ("price/amount", -1, "price"),
        ("price/currency", "EUR", "currency"),
        ("price", {"type": "by_resolution", "parameter": "none", "amounts": {"1K": 1}}, "price"),
        ("price", {"type": "by_resolution", "parameter": "prompt", "amounts": {"1K": 1}}, "price"),
        ("price", {"type": "by_resolution", "parameter": "size", "amounts": {"1K": 1}}, "2K"),
        ("price", {"type": "by_resolution", "parameter": "size", "amounts": {"1K": -1, "2K": 1}}, "price"),
        ("price", {"type": "by_resolution", "amounts": {}}, "price"),
        ("engine", {}, "engine"),
        ("engine/instances", 0, "instances"),
        ("engine/instances", 1.5, "instances"),
        ("engine/timeoutS", 0, "timeoutS"),
        ("engine/timeoutS", -5, "timeoutS"),
        ("engine/gpu", True, "gpu"),
        ("schema", [], "schema"),
        ("schema/type", "array", "schema"),
        ("schema/additionalProperties", ..., "additionalProperties"),
        ("schema/additionalProperties", True, "additionalProperties"),
        ("schema/properties", ..., "properties"),
        ("schema/properties", [], "properties"),
        ("schema/properties/prompt", True, "prompt"),
        ("schema/properties/prompt/type", "text", "text"),
        ("schema/properties/prompt/pattern", "(", "("),
        ("schema/properties/prompt/$ref", "#/$defs/none", "$defs/none"),
        ("schema/properties/num_outputs/default", "one", "num_outputs"),
        ("schema/properties/size/default", "4K", "size"),
        ("examples", {}, "examples"),
        ("limits", "none", "limits"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_field(tmp_path: Path, path: str, value: Any, named: str) -> None:
    with pytest.raises(CardError) as caught:
        cards.read(_write(tmp_path, _changed(path, value)))
    assert str(caught.value).startswith("film-1.0.json: ")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_price_per_second_needs_a_duration(tmp_path: Path) -> None:
    made = _changed("schema/properties/duration", {"type": "number"})
    made["price"] = {"type": "per_second", "amount": 1}
    with pytest.raises(CardError, match=r"film-1\.0\.json: price.*duration"):
        cards.read(_write(tmp_path, made))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"apiId": "\xff"}', b"[" * 100_000])
def test_a_file_that_is_no_card(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(CardError, match=r"film-1\.0\.json: "):
        cards.read(_write(tmp_path, body))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "film.json").mkdir()
    for name in ("none.json", "film.json"):
        with pytest.raises(CardError, match=name):
            cards.read(tmp_path / name)


@pytest.mark.parametrize("name", ["Film", "film_1", ".film", "-film", "film 1", "x" * 64, "fílm"])
def test_names_that_make_no_url(tmp_path: Path, name: str) -> None:
    with pytest.raises(CardError, match="apiId"):
        cards.read(_write(tmp_path, GOOD | {"apiId": name}, name))


def test_a_folder_of_ones_own_adds_and_replaces(tmp_path: Path) -> None:
    ours = {card.api_id: card for card in cards.read_all(None)}
    _write(tmp_path / "more", GOOD)
    _write(tmp_path / "more", GOOD | {"apiId": "testcard", "name": "Mine"}, "testcard")
    (tmp_path / "more" / "README.md").write_text("not a card")
    found = {card.api_id: card for card in cards.read_all(tmp_path / "more")}
    assert set(found) == {*ours, "film-1.0"}
    assert (found["testcard"].name, found["dojo-mini"]) == ("Mine", ours["dojo-mini"])
    settings = Settings(data_dir=tmp_path, models_dir=tmp_path / "more")
    assert {card.api_id for card in opening.listed_cards(settings)} >= {"testcard", "film-1.0"}
    _write(tmp_path / "more", b"{", "broken")
    with pytest.raises(CardError, match=r"broken\.json"):
        opening.listed_cards(settings)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="no such folder"):
        cards.read_all(tmp_path / "none")


def test_only_what_is_enabled_is_listed(tmp_path: Path) -> None:
    def listed(**more: Any) -> set[str]:
        return {card.api_id for card in opening.listed_cards(Settings(data_dir=tmp_path, **more))}

    assert "testcard" not in listed()
    assert "testcard" in listed(testcard=True)
    _write(tmp_path / "more", _changed("engine/enabledBy", "testcart"))
    with pytest.raises(CardError, match=r"film-1\.0\.json.*testcart"):
        listed(models_dir=tmp_path / "more")


@pytest.mark.parametrize(
    ("price", "body", "cost_milli"),
    [
        ({"type": "fixed", "amount": 10}, {"num_outputs": 3}, 10_000),
        ({"type": "fixed"}, {}, 0),
        ({"type": "per_image", "amount": 0.1}, {"num_outputs": 3}, 300),
        ({"type": "per_image", "amount": 0.1}, {"num_outputs": 3.0}, 300),
        ({"type": "per_image", "amount": 0.1}, {}, 100),
        ({"type": "per_second", "amount": 1.5}, {}, 7500),
        ({"type": "per_second", "amount": 1.5}, {"duration": 2.5}, 3750),
        ({"type": "per_second", "amount": 1}, {"duration": 0.0001}, 1),
        (BY_SIZE, {}, 1000),
        (BY_SIZE, {"size": "2K", "num_outputs": 2}, 5000),
    ],
)
def test_prices(price: dict[str, Any], body: dict[str, Any], cost_milli: int) -> None:
    order = _catalogue(("price", price)).order("film-1.0", {"prompt": "x", **body})
    assert order.cost_milli == cost_milli


def test_an_order_is_complete() -> None:
    body = {"prompt": "x", "num_outputs": 2.0, "duration": 2.0, "webhook_url": "https://a.test/"}
    kept = copy.deepcopy(body)
    order = _catalogue().order("film-1.0", body)
    assert order.params == {"prompt": "x", "num_outputs": 2, "duration": 2.0, "size": "1K"}
    assert type(order.params["num_outputs"]) is int
    assert (order.webhook_url, order.pictures) == ("https://a.test/", ["image_url"])
    assert body == kept  # what came is not changed


def test_requests_that_ask_for_the_same_have_the_same_hash() -> None:
    catalogue = _catalogue()

    def hashed(body: dict[str, Any]) -> str:
        return catalogue.order("film-1.0", body).request_hash()

    assert hashed({"prompt": "x", "size": "1K"}) == hashed({"size": "1K", "prompt": "x"})
    others = [
        {"prompt": "y"},
        {"prompt": "x"},
        {"prompt": "x", "size": "2K"},
        {"prompt": "x", "webhook_url": "https://a.test"},
    ]
    assert len({hashed(other) for other in others}) == 4


def test_faults_inside_a_parameter_have_a_dotted_path() -> None:
    size = {"type": "object", "required": ["w"], "additionalProperties": False,
            "properties": {"w": {"type": "array", "items": {"type": "integer"}}}}  # fmt: skip
    catalogue = _catalogue(("schema/properties/area", size))
    with pytest.raises(errors.ValidationError) as caught:
        catalogue.order("film-1.0", {"prompt": "a\0", "area": {"w": [1, "2", "\0"], "h": 1}, "strict": "no"})
    found = {detail.path: detail.message for detail in caught.value.details}
    assert set(found) == {"prompt", "area.w.1", "area.w.2", "area.h", "strict"}
    with pytest.raises(errors.ValidationError) as caught:
        catalogue.order("film-1.0", {"prompt": "x", "area": {}})
    assert [(detail.path, detail.message) for detail in caught.value.details] == [("area.w", "is required")]


def test_one_of_several_parameters_may_be_required() -> None:
    either: Any = [{"required": ["prompt"]}, {"required": ["image_url"]}]
    catalogue = _catalogue(("schema/required", []), ("schema/anyOf", either))
    for body in ({"prompt": "x"}, {"image_url": "https://a.test/"}, {"prompt": "x", "image_url": "https://a.test/"}):
        assert catalogue.order("film-1.0", body).params.items() >= body.items()
    with pytest.raises(errors.ValidationError, match="The body must have prompt or image_url") as caught:
        catalogue.order("film-1.0", {"duration": 2})
    assert [(detail.path, detail.message) for detail in caught.value.details] == [("", "must have prompt or image_url")]
    typed: Any = [{"required": ["prompt"]}, {"properties": {"strict": {"const": True}}, "required": ["strict"]}]
    with pytest.raises(errors.ValidationError, match="anyOf"):
        _catalogue(("schema/required", []), ("schema/anyOf", typed)).order("film-1.0", {"strict": False})


def test_half_seconds_are_charged_by_the_half() -> None:
    halves = {"type": "number", "minimum": 1, "maximum": 4, "multipleOf": 0.5, "default": 2}
    catalogue = _catalogue(("schema/properties/duration", halves), ("price", {"type": "per_second", "amount": 0.1}))
    for duration, cost_milli in ((1, 100), (1.5, 150), (2.0, 200), (3.5, 350), (4, 400)):
        assert catalogue.order("film-1.0", {"prompt": "x", "duration": duration}).cost_milli == cost_milli
    for duration, says in ((1.3, "must be a multiple of 0.5, not 1.3"), (4.5, "must be at most 4, not 4.5")):
        with pytest.raises(errors.ValidationError) as caught:
            catalogue.order("film-1.0", {"prompt": "x", "duration": duration})
        assert [(detail.path, detail.message) for detail in caught.value.details] == [("duration", says)]


def test_the_request_schema_is_not_the_cards_own() -> None:
    catalogue = _catalogue()
    schema = catalogue.request_schema("film-1.0")
    assert "webhook_url" in schema["properties"]
    assert "webhook_url" not in catalogue.card("film-1.0").schema["properties"]
    assert schema["title"] == "Film"
    for ask in (catalogue.card, catalogue.request_schema):
        with pytest.raises(errors.NotFound, match="none"):
            ask("none")
