"""From a request body to an order that can be submitted: checked, completed, its pictures and URLs looked at.

Doors call `prepare` before their one `submit` transaction; nothing here touches the database or another host.
"""

import re
from typing import Any

import msgspec

from pixeldojo import errors, outbound
from pixeldojo.assets import pictures
from pixeldojo.assets.files import Files
from pixeldojo.assets.signing import Signer
from pixeldojo.catalogue.service import Catalogue, Order
from pixeldojo.settings import Settings

_decode = msgspec.json.Decoder().decode
_MOST_WAIT_S = 60
_SMALL = 64 * 1024
_MOST_PARTS = 50_000  # decoding four million empty lists, 12 MB, takes seconds, and everybody waits


def parse(body: bytes) -> Any:
    """The value in a JSON body. Raises `InvalidJSON` with the reason; `ValidationError` where it has too many parts."""
    if not body:
        raise errors.InvalidJSON("The request body is empty: send a JSON object.")
    if len(body) > _SMALL and sum(map(body.count, (b",", b"[", b"{"))) > _MOST_PARTS:  # pictures in base64 have none
        raise errors.ValidationError.at("", f"the request body has more than {_MOST_PARTS} commas and brackets")
    try:
        return _decode(body)
    except RecursionError:
        raise errors.InvalidJSON("The request body is nested too deeply.") from None
    except UnicodeDecodeError:
        raise errors.InvalidJSON("The request body is not valid UTF-8.") from None
    except msgspec.MsgspecError as error:
        raise errors.InvalidJSON(f"The request body is not valid JSON: {error}") from None


async def prepare(
    api_id: str, body: object, *, catalogue: Catalogue, settings: Settings, files: Files, signer: Signer
) -> tuple[Order, dict[str, bytes]]:
    """The order, and its pictures that are at hand, by parameter: data URIs, and results of this very service.

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
            if url[:5].lower() == "data:":
                inputs[name] = await _picture(url, max_bytes=settings.input_max_bytes)
                order.params[name] = url[: url.index(",") + 1] + "…"  # the row keeps the bytes elsewhere
            elif (key := signer.key_of(url)) is not None:
                inputs[name] = await _result(key, files=files, max_bytes=settings.input_max_bytes)
            elif reason := outbound.check_url(url, allow=settings.allow_networks):
                faults.append(errors.Detail(name, reason))
        except (pictures.PictureError, errors.Expired) as error:
            faults.append(errors.Detail(name, str(error)))
    if faults:
        raise errors.ValidationError(f"{faults[0].path}: {faults[0].message}", details=faults)
    return order, inputs


async def _picture(uri: str, *, max_bytes: int) -> bytes:
    data = pictures.decode_data_uri(uri, max_bytes=max_bytes)
    await pictures.check_aside(data)
    return data


async def _result(key: str, *, files: Files, max_bytes: int) -> bytes:
    """An earlier result, which becomes the job's own: it may expire before the job begins."""
    size = await files.size(key)
    if size is None:
        raise errors.Expired("This file has expired and was removed.")
    if size > max_bytes:
        raise pictures.too_large(max_bytes)
    data = b"".join([part async for part in files.read(key, start=0, end=size)])
    await pictures.check_aside(data)
    return data


def idempotency_key(text: str | None) -> str | None:
    """The `Idempotency-Key` header, checked. Raises `ValidationError`."""
    if text is None:
        return None
    if not text.strip() or len(text) > 255 or not text.isprintable():
        raise errors.ValidationError.at("Idempotency-Key", "must be 1 to 255 printable characters")
    return text


_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*(ms|s|m|h|)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_S = 7 * 24 * 3600.0


def duration(text: str | None, *, path: str) -> float | None:
    """Seconds of a header such as `Cancel-After: 90s` (also `5m`, `1h`, `1500ms`, plain seconds)."""
    if text is None:
        return None
    found = _DURATION.fullmatch(text.strip().lower())
    seconds = float(found.group(1)) * _UNIT_S[found.group(2)] if found else 0.0
    if not 0 < seconds <= _LONGEST_S:
        raise errors.ValidationError.at(path, "must be a duration such as 90s, 5m or 1h, at most seven days")
    return seconds


def wait_s(prefer: str) -> float:
    """The seconds of `Prefer: wait=N`, at most 60; 0 without one. Other preferences are none of ours (RFC 7240)."""
    for part in prefer.split(","):
        name, _, value = part.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            text = value.strip().strip('"')
            if not (text.isascii() and text.isdigit() and len(text) < 6):
                raise errors.ValidationError.at("Prefer", "wait must be a whole number of seconds: wait=30")
            return float(min(int(text), _MOST_WAIT_S))
    return 0.0
