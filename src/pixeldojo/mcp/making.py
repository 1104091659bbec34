"""The tools that make something: `generate`, `edit_image`, `image_to_video`; and `upload_image`, which prepares."""

import base64
import binascii
import re
import secrets
import stat
from pathlib import Path
from typing import Any

from pixeldojo.assets import pictures
from pixeldojo.mcp.asking import merged
from pixeldojo.mcp.backend import Backend, Fault, Object, invalid
from pixeldojo.mcp.calling import Call, Result, ended, explained, of_model, under, with_pictures

MOST_UPLOAD = 10 * 2**20  # bytes; the service has a limit of its own, by default the same

_OWN = ("model", "idempotency_key", "wait_seconds", "image", "mask")
_UPLOAD = re.compile(r"upload_[0-9a-f]{32}")
_JOB = re.compile(r"(job_[0-9a-f]{32})(?:/(\d{1,3}))?")


async def generate(call: Call) -> Result:
    """Submit a job and wait for its end."""
    return await _run(call, merged(call.arguments, apart=_OWN))


async def edit_image(call: Call) -> Result:
    """Submit a job that starts from a picture, and wait for its end."""
    body = merged(call.arguments, apart=_OWN)
    found = await of_model(call.backend, "GET", call.arguments["model"], "/schema")
    properties = found.get("schema", {}).get("properties", {})
    takes = [name for name, spec in properties.items() if isinstance(spec, dict) and spec.get("x-input") == "image"]
    masks = [name for name in takes if "mask" in name]
    for argument, names in (("image", [name for name in takes if name not in masks]), ("mask", masks)):
        given = call.arguments.get(argument)
        if given is None:
            continue
        if not names:
            raise invalid(
                argument,
                f"the model {call.arguments['model']} takes no {'mask' if argument == 'mask' else 'picture'}",
                remedy="Use a model that does: search_models with the capability image-to-image, inpainting, upscale "
                "or image-to-video.",
            )
        body[names[0]] = given
    return await _run(call, body)


async def _run(call: Call, body: Object) -> Result:
    """Submit `body` to the model of the call; the result, or the job's id once the time is over. Raises `Fault`."""
    model, backend = call.arguments["model"], call.backend
    body = {name: await _resolved(backend, name, value) for name, value in body.items()}
    key = call.arguments.get("idempotency_key") or f"mcp-{secrets.token_hex(16)}"
    try:
        receipt, headers = await backend.exchange(
            "POST", under("models", model, "/run"), body, headers={"idempotency-key": key}
        )
    except Fault as fault:
        raise await explained(backend, fault, model=model, body=body) from None
    job_id = receipt.get("jobId")
    if not isinstance(job_id, str):
        raise Fault("bad_answer", "The service's answer to the submit names no job.")
    # told at once: a client that gives up the wait knows what it has paid for
    await call.progress(0.0, f"{job_id} was submitted for {receipt.get('creditCost')} credits")
    try:
        job = await ended(call, job_id, wait_s=call.wait_s, told=0.0)
    except Fault as fault:
        fault.remedy += f" The job goes on: call job_status with job_id {job_id} instead of generating again."
        raise
    if job.get("status") == "failed":
        raise _failed(job)
    result = await with_pictures(backend, job)
    result.data["creditsRemaining"] = receipt.get("creditsRemaining")
    if "idempotent-replayed" in headers:
        result.data["replayed"] = True
    return result


def _failed(job: Object) -> Fault:
    told = job.get("error") if isinstance(job.get("error"), dict) else None
    code, message = (
        str((told or {}).get(name, usual)) for name, usual in (("code", "failed"), ("message", "It failed."))
    )
    return Fault(
        code, f"The job failed: {message}",
        remedy="The credits were refunded. Change the input if the message says so; otherwise call again.",
        jobId=job.get("jobId"), creditsRefunded=job.get("creditsRefunded"),
    )  # fmt: skip


async def _resolved(backend: Backend, name: str, value: Any) -> Any:
    """What the API takes for a value: an upload's picture as a data URI, a job's result as its URL. Raises `Fault`."""
    if not isinstance(value, str) or name == "prompt":
        return value
    if _UPLOAD.fullmatch(value):
        data = await backend.shelf.find(value)
        if data is None:
            raise invalid(
                name, f"there is no upload {value} (any more)",
                remedy="Call upload_image again, or give the picture as a data URI.",
            )  # fmt: skip
        return f"data:{await _content_type(name, data)};base64,{base64.b64encode(data).decode()}"
    if found := _JOB.fullmatch(value):
        return await _result(backend, name, found[1], number=int(found[2] or 0))
    return value


async def _result(backend: Backend, name: str, job_id: str, *, number: int) -> str:
    job = await backend.call("GET", under("jobs", job_id))
    assets = job.get("assets") or []
    if number >= len(assets):
        raise invalid(name, f"{job_id} is {job.get('status')} and has {len(assets)} results")
    return str(assets[number].get("url"))


async def _content_type(name: str, data: bytes) -> str:
    try:
        return (await pictures.check_aside(data)).content_type
    except pictures.PictureError as error:
        raise invalid(name, str(error)) from None


async def upload_image(call: Call) -> Result:
    """Keep a picture for later calls."""
    path, data = call.arguments.get("path"), call.arguments.get("data")
    if (path is None) == (data is None):
        takes = "either path or data" if call.local else "data"
        raise invalid("data" if data is None else "path", f"give {takes}")
    raw = _read(path) if path is not None else _decoded(str(data))
    try:
        picture = await pictures.check_aside(raw)
    except pictures.PictureError as error:
        raise invalid("data" if path is None else "path", str(error)) from None
    upload_id = await call.backend.shelf.keep(raw)
    return Result(
        {
            "uploadId": upload_id, "contentType": picture.content_type, "width": picture.width,
            "height": picture.height, "bytes": len(raw), "next": f"Use {upload_id} as `image` in edit_image.",
        }
    )  # fmt: skip


def _decoded(text: str) -> bytes:
    if text[:5].lower() == "data:":
        try:
            return pictures.decode_data_uri(text, max_bytes=MOST_UPLOAD)
        except pictures.PictureError as error:
            raise invalid("data", str(error)) from None
    if len(text) > MOST_UPLOAD * 4 // 3 + 4:
        raise invalid("data", f"the picture is larger than {MOST_UPLOAD:,} bytes")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("data", "is not valid base64") from None


def _read(path: str) -> bytes:
    """The bytes of a regular file; no device, pipe or directory is opened for reading."""
    try:
        wanted = Path(path).expanduser()
        found = wanted.stat()
        if not stat.S_ISREG(found.st_mode):
            raise invalid("path", "is not a regular file")
        if found.st_size > MOST_UPLOAD:
            raise invalid("path", f"the file is larger than {MOST_UPLOAD:,} bytes")
        with wanted.open("rb") as file:
            return file.read(MOST_UPLOAD + 1)
    except (OSError, ValueError, RuntimeError) as error:  # a null character; a home that nobody has
        raise invalid("path", f"can't be read: {getattr(error, 'strerror', None) or error}") from None
