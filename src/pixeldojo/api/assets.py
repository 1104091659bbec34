"""`/api/v1/assets`: downloads by signed URL, without a key. One byte range at a time."""

import re

from litestar import HttpMethod, Response, route
from litestar.params import FromPath
from litestar.response import Stream

from pixeldojo import errors
from pixeldojo.api.respond import ApiRequest
from pixeldojo.assets.files import CONTENT_TYPES
from pixeldojo.house import House

_JOB = re.compile(r"job_[0-9a-f]{32}")
_NAME = re.compile(r"[0-9]{1,3}\.([a-z0-9]{2,4})")
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


class RangeRefused(errors.ValidationError):
    """The requested range lies outside the file."""

    status = 416


def byte_range(header: str | None, *, size: int) -> tuple[int, int] | None:
    """(start, end) that a Range header asks for, end excluded; None to send the whole file.

    Several ranges, other units and malformed headers get the whole file, as RFC 9110 allows.
    Raises `RangeRefused` when nothing of the file is asked for.
    """
    found = _RANGE.fullmatch((header or "").strip())
    if not found or found.group(1) == found.group(2) == "":
        return None
    first, last = found.groups()
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= end:
        raise RangeRefused(f"The file has {size} bytes.", headers={"Content-Range": f"bytes */{size}"})
    return start, end


def names_tag(header: str, tag: str) -> bool:
    """Whether an If-None-Match header names this tag. Proxies weaken tags and clients list several (RFC 9110)."""
    listed = [each.strip().removeprefix("W/") for each in header.split(",")]
    return tag in listed or listed == ["*"]


@route("/api/v1/assets/{job_id:str}/{name:str}", http_method=[HttpMethod.GET, HttpMethod.HEAD])
async def get_asset(request: ApiRequest, job_id: FromPath[str], name: FromPath[str]) -> Response[bytes] | Stream:
    """The file behind a signed URL."""
    house: House = request.app.state.house
    key = f"{job_id}/{name}"
    query = request.query_params
    house.signer.check(key, expires=query.get("expires", ""), signature=query.get("signature", ""))
    found = _NAME.fullmatch(name) if _JOB.fullmatch(job_id) else None  # whatever was signed: results only
    size = await house.files.size(key) if found else None
    if found is None or size is None:
        raise errors.Expired("This file has expired and was removed.")
    tag = f'"{job_id}-{name}"'
    headers = {
        "Accept-Ranges": "bytes",
        "Access-Control-Allow-Origin": "*",
        "Cache-Control": "private, max-age=3600",
        "Content-Disposition": f'inline; filename="{job_id}-{name}"',
        "ETag": tag,
        "X-Content-Type-Options": "nosniff",
    }
    media_type = CONTENT_TYPES.get(found.group(1), "application/octet-stream")
    if names_tag(request.headers.get("if-none-match", ""), tag):
        return Response(b"", status_code=304, headers=headers, media_type=media_type)
    wanted = request.headers.get("range") if request.headers.get("if-range", tag) == tag else None
    part = byte_range(wanted, size=size)
    start, end = part or (0, size)
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    status = 206 if part else 200
    if request.method == "HEAD":
        return Response(b"", status_code=status, headers=headers, media_type=media_type)
    chunks = house.files.read(key, start=start, end=end)
    return Stream(chunks, status_code=status, headers=headers, media_type=media_type)
