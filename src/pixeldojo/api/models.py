"""`/api/v1/models`: what can run here. Public: no key needed."""

from typing import Any

from litestar import Response, get
from litestar.params import FromPath

from pixeldojo import errors
from pixeldojo.api.respond import ApiRequest, reply
from pixeldojo.house import House


def _flag(request: ApiRequest, name: str) -> bool:
    text = request.query_params.get(name, "false").lower()
    if text not in ("true", "false", "1", "0", ""):
        raise errors.ValidationError.at(name, "must be true or false")
    return text in ("true", "1")


@get("/api/v1/models", sync_to_thread=False)
def list_models(request: ApiRequest) -> Response[bytes]:
    """Every model, or those of one modality; `detailed` adds the request schemas."""
    house: House = request.app.state.house
    modality = request.query_params.get("modality")
    if modality not in (None, "image", "video"):
        raise errors.ValidationError.at("modality", "must be image or video")
    detailed = _flag(request, "detailed")
    cards = [card for card in house.catalogue.cards if modality in (None, card.modality)]
    models: list[dict[str, Any]] = [house.catalogue.view(card) for card in cards]
    if detailed:
        for model in models:
            model["requestSchema"] = house.catalogue.request_schema(model["apiId"])
    counts = {kind: sum(card.modality == kind for card in cards) for kind in ("image", "video")}
    return reply({"models": models, "total": len(models), "imageCount": counts["image"], "videoCount": counts["video"]})


@get("/api/v1/models/{api_id:str}", sync_to_thread=False)
def get_model(request: ApiRequest, api_id: FromPath[str]) -> Response[bytes]:
    """One model's card with its request schema."""
    house: House = request.app.state.house
    return reply(house.catalogue.detail(house.catalogue.card(api_id)))


@get("/api/v1/models/{api_id:str}/schema", sync_to_thread=False)
def get_schema(request: ApiRequest, api_id: FromPath[str]) -> Response[bytes]:
    """One model's request schema."""
    house: House = request.app.state.house
    return reply({"apiId": api_id, "schema": house.catalogue.request_schema(api_id)})
