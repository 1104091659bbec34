"""From a request body to an order that can be submitted: checked, completed, its pictures and URLs looked at.

Doors call `prepare` before their one `submit` transaction; nothing here touches the database or the network.
"""

import asyncio
from typing import Any

import msgspec

from pixeldojo import errors, outbound
from pixeldojo.assets import pictures
from pixeldojo.catalogue.service import Catalogue, Order
from pixeldojo.settings import Settings

_decode = msgspec.json.Decoder().decode
_decoding = asyncio.Semaphore(2)  # a decoded picture is large: two at a time bound the memory


def parse(body: bytes) -> Any:
    """The value in a JSON body. Raises `InvalidJSON` with the reason."""
    if not body:
        raise errors.InvalidJSON("The request body is empty: send a JSON object.")
    try:
        return _decode(body)
    except RecursionError:
        raise errors.InvalidJSON("The request body is nested too deeply.") from None
    except UnicodeDecodeError:
        raise errors.InvalidJSON("The request body is not valid UTF-8.") from None
    except msgspec.MsgspecError as error:
        raise errors.InvalidJSON(f"The request body is not valid JSON: {error}") from None


async def prepare(
    api_id: str, body: object, *, catalogue: Catalogue, settings: Settings
) -> tuple[Order, dict[str, bytes]]:
    """The order, and the pictures that came inside the request as data URIs (by parameter).

    Raises `NotFound` for an unknown model and `ValidationError` for everything that can be known now.
    """
    order = catalogue.order(api_id, body)
    inputs: dict[str, bytes] = {}
    faults: list[errors.Detail] = []
    if order.webhook_url is not None:
        reason = outbound.check_url(order.webhook_url, allow=settings.allow_networks)
        if reason:
            faults.append(errors.Detail("webhook_url", reason))
    for name in order.pictures:
        url = order.params.get(name)
        if url is None:
            continue
        try:
            if url.startswith("data:"):
                inputs[name] = await _picture(url, max_bytes=settings.input_max_bytes)
                order.params[name] = url[: url.index(",") + 1] + "…"  # the row keeps the bytes elsewhere
            elif reason := outbound.check_url(url, allow=settings.allow_networks):
                faults.append(errors.Detail(name, reason))
        except pictures.PictureError as error:
            faults.append(errors.Detail(name, str(error)))
    if faults:
        raise errors.ValidationError(f"{faults[0].path}: {faults[0].message}", details=faults)
    return order, inputs


async def _picture(uri: str, *, max_bytes: int) -> bytes:
    data = pictures.decode_data_uri(uri, max_bytes=max_bytes)
    async with _decoding:
        await asyncio.to_thread(pictures.check, data)
    return data


def idempotency_key(text: str | None) -> str | None:
    """The `Idempotency-Key` header, checked. Raises `ValidationError`."""
    if text is None:
        return None
    if not text.strip() or len(text) > 255 or not text.isprintable():
        raise errors.ValidationError.at("Idempotency-Key", "must be 1 to 255 printable characters")
    return text
