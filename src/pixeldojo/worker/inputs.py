"""Input pictures of a job as local files: from the row, or fetched from their URL, and checked either way."""

from collections.abc import Mapping
from pathlib import Path

from pixeldojo import outbound
from pixeldojo.assets import pictures
from pixeldojo.settings import Settings
from pixeldojo.worker.runner import Fault


async def fetch(
    wanted: Mapping[str, str], *, held: Mapping[str, bytes], folder: Path, settings: Settings
) -> dict[str, Path]:
    """Write each picture of `wanted` (parameter → URL) into `folder`; their paths. Raises `Fault`.

    `held` has the pictures that came inside the request; they were checked when it came.
    """
    paths = {}
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, url in wanted.items():
        data = held.get(name)
        if data is None:
            data = await _download(name, url, settings)
        path = folder / name
        path.write_bytes(data)
        paths[name] = path
    return paths


async def _download(name: str, url: str, settings: Settings) -> bytes:
    try:
        data = await outbound.fetch(
            url,
            allow=settings.allow_networks,
            timeout_s=settings.input_timeout_s,
            max_bytes=settings.input_max_bytes,
        )
        await pictures.check_aside(data)
    except outbound.OutboundError as error:
        raise Fault("input_unavailable", f"{name}: {error}", permanent=error.permanent) from None
    except pictures.PictureError as error:
        raise Fault("validation_error", f"{name}: {error}", permanent=True) from None
    return data
