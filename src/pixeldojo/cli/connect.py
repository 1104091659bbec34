"""Finds the service a client command talks to: a running one, or one inside this process; and the key to use.

What comes out is a `Remote`: it asks, asks again when that can help, and turns every fault into `CommandFailed`.
"""

import asyncio
import contextlib
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from pixeldojo import errors, opening, outbound, settings
from pixeldojo.accounts import service as accounts
from pixeldojo.cli.outcome import CommandFailed, Exit, exit_of, usage
from pixeldojo.outbound import OutboundError
from pixeldojo.settings import Settings

T = TypeVar("T")

_PATIENCE_S = 2.0
_DOWNLOADS = 4
_FIRST_WAIT_S = 0.25
_AGAIN = (429, 500, 502, 503, 504)
_ONE_ANSWER_S = 30.0
_KEY_NAME = "cli"
_KEY_RATE = "1200/minute"  # it polls four times a second, and several commands may run at once


class _Fault(msgspec.Struct):
    code: str
    message: str
    status: int | None = None
    details: list[Any] = []


class _Envelope(msgspec.Struct):
    error: _Fault


class _Notice(msgspec.Struct):
    address: str


def shaped(data: Any, kind: type[T]) -> T:
    """`data` as a `kind`; a service that answers otherwise is not one of ours."""
    try:
        return msgspec.convert(data, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _garbage(str(error)) from None


def _garbage(why: str) -> CommandFailed:
    text = f"the answer is not one that PixelDojo gives ({why}); check --base-url"
    return CommandFailed(text, code="bad_answer", ends=Exit.UNREACHABLE)


class Remote:
    """A service, wherever it runs. `own_key`: the key belongs to the default account of this machine's service."""

    def __init__(self, client: Any, files: Any, *, address: str, own_key: bool, running: bool) -> None:
        self._client, self._files = client, files
        self.address, self.own_key, self.running = address, own_key, running

    async def call(
        self,
        method: str,
        path: str,
        *,
        patience_s: float = _PATIENCE_S,
        deadline: float | None = None,
        **request: Any,
    ) -> dict[str, Any]:
        """The JSON object of a good answer. Raises `CommandFailed`.

        Lost connections and 5xx are asked again for `patience_s` seconds, and 429 until `deadline`
        (in `time.monotonic()` seconds), as `Retry-After` says.
        """
        first_fault, wait_s = None, _FIRST_WAIT_S
        while True:
            limited, least_s = False, 0.0
            try:
                status, headers, body = await outbound.ask(self._client, method, path, **request)
            except OutboundError as error:
                fault = CommandFailed(error.message, code="unreachable", ends=Exit.UNREACHABLE)
                final = error.permanent
            else:
                if status < 300:
                    return _object(body)
                fault = self._fault(status, body)
                limited, final = status == 429, status not in _AGAIN
                least_s = _seconds(headers.get("retry-after"))
            now = time.monotonic()
            first_fault = now if first_fault is None else first_fault
            pause_s = max(wait_s, least_s)
            until = deadline if limited and deadline is not None else first_fault + patience_s
            if final or now + pause_s > until:
                raise fault
            await asyncio.sleep(pause_s)
            wait_s = min(wait_s * 2, 4.0)

    def _fault(self, status: int, body: bytes) -> CommandFailed:
        try:
            told = msgspec.json.decode(body, type=_Envelope).error
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return _garbage(f"status {status}, and no error that we know")
        message = told.message
        if told.code == "insufficient_credits" and self.own_key:
            message += " `pixeldojo credits grant 100` adds some."
        elif told.code == "unauthorized":
            message += " Give a valid key by --key or PIXELDOJO_API_KEY."
        return CommandFailed(
            message, code=told.code, ends=exit_of(told.code), status=told.status or status, details=told.details
        )

    async def save(self, url: str, path: Path) -> None:
        """Download `url` to `path`, whole or not at all. Raises `CommandFailed` and OSError."""
        part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
        try:
            for tried in range(1, _DOWNLOADS + 1):
                try:
                    await outbound.save(self._files, url, part)
                    break
                except OutboundError as error:
                    if error.permanent or tried == _DOWNLOADS:
                        text = f"can't download {url}: {error.message}"
                        raise CommandFailed(text, code="download_failed", ends=Exit.FAILED) from None
                await asyncio.sleep(_FIRST_WAIT_S * 2**tried)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _garbage(str(error)[:100]) from None


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 6 else 0.0


async def running_address(wanted: Settings) -> str | None:
    """The address of the service that runs on this data directory, if one does."""
    try:
        notice = msgspec.json.decode((wanted.data_dir / "service.json").read_bytes(), type=_Notice)
        async with outbound.api_client(notice.address, api_key=None, timeout_s=2.0) as client:
            status, _, body = await outbound.ask(client, "GET", "/healthz")
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError, OutboundError):
        return None
    return notice.address if status == 200 and b'"ok"' in body else None


def _api_root(address: str) -> str:
    """The address under which `/models` lies: an address without a path gets `/api/v1`."""
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise usage(f"--base-url: {address!r} is no address; write http://host:port")
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path or '/api/v1'}"


def _make_key(tx: Any) -> str:
    account = accounts.get_account(tx, name=accounts.DEFAULT_ACCOUNT)
    return accounts.create_key(tx, account_id=account.id, name=_KEY_NAME, rate_limit=_KEY_RATE)[1]


def _keep(path: Path, key: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f"cli-key.{secrets.token_hex(4)}")
    part.touch(mode=0o600, exist_ok=False)  # before the key is in it
    part.write_text(key + "\n", encoding="ascii")
    part.replace(path)


async def own_key(db: Any, wanted: Settings) -> str:
    """The key of this machine's command line, for the default account; made when missing or no longer valid."""
    path = wanted.data_dir / "cli-key"
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
        kept = path.read_text(encoding="ascii").strip()
        if kept:
            with contextlib.suppress(errors.Unauthorized):
                await db.read(accounts.authenticate, f"Bearer {kept}")
                return kept
    key: str = await db.write(_make_key)
    _keep(path, key)
    return key


async def _own_key_for(wanted: Settings) -> str:
    async with opening.open_database_for(wanted) as db:
        return await own_key(db, wanted)


@contextlib.asynccontextmanager
async def _over_http(root: str, key: str | None, *, own: bool) -> AsyncIterator[Remote]:
    async with (
        outbound.api_client(root, api_key=key, timeout_s=_ONE_ANSWER_S) as client,
        outbound.api_client(root, api_key=None, timeout_s=_ONE_ANSWER_S) as files,
    ):
        yield Remote(client, files, address=root, own_key=own, running=True)


@contextlib.asynccontextmanager
async def _in_process(
    wanted: Settings, key: str | None, *, needs_key: bool, model: str | None
) -> AsyncIterator[Remote]:
    # Litestar, uvicorn and the worker take longer to import than the rest of the command: only where none runs.
    from pixeldojo import app, logs
    from pixeldojo.catalogue.service import Catalogue

    if fault := opening.storage_fault(wanted):
        raise usage(f"PIXELDOJO_STORAGE_URL: {fault}")
    logs.set_up(level="error", form=wanted.log_format)
    wanted = dataclasses.replace(wanted, roles=("worker",), rate_limit="off", rate_limit_storage="")
    async with contextlib.AsyncExitStack() as stack:
        house = await stack.enter_async_context(app.open_house(wanted))
        if model is not None:  # one model's engine is loaded, not all of them
            cards = [card for card in house.catalogue.cards if card.api_id == model]
            await stack.enter_async_context(app.running_loops(dataclasses.replace(house, catalogue=Catalogue(cards))))
        own = key is None and needs_key
        if own:
            key = await own_key(house.db, wanted)
        host = f"[{wanted.host}]" if ":" in wanted.host else wanted.host
        # the URLs in the answers work as soon as the service runs with these settings
        root = _api_root(wanted.public_url or f"http://{host}:{wanted.port}")
        asgi = app.application(house)
        client = await stack.enter_async_context(outbound.in_process_client(asgi, root, api_key=key))
        files = await stack.enter_async_context(outbound.in_process_client(asgi, root, api_key=None))
        yield Remote(client, files, address=root, own_key=own, running=False)


class Place(NamedTuple):
    """Where a running service's API lies, and a key for it. `own`: see `Remote`."""

    root: str
    key: str | None
    own: bool


def _given_key(key: str | None) -> str | None:
    key = key or settings.client().api_key or None
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise usage("the API key contains characters that no key has")
    return key


async def running(*, base_url: str | None, key: str | None, needs_key: bool = True) -> Place | None:
    """The service at --base-url or PIXELDOJO_BASE_URL, else the one that runs on the data directory; None without."""
    wanted = settings.load()
    address = (base_url or settings.client().base_url).rstrip("/")
    key = _given_key(key)
    local = await running_address(wanted)
    if not address and local is None:
        return None
    root = _api_root(address or str(local))
    own = key is None and needs_key
    if own and (local is None or root != _api_root(local)):
        # our own key is for our own service: never sent to an address that somebody else may hold
        text = f"no API key for {root}: give one by --key or PIXELDOJO_API_KEY"
        raise CommandFailed(text, code="unauthorized", ends=Exit.REFUSED)
    return Place(root, await _own_key_for(wanted) if own else key, own)


@contextlib.asynccontextmanager
async def connect(
    *, base_url: str | None, key: str | None, needs_key: bool = True, model: str | None = None
) -> AsyncIterator[Remote]:
    """The service to talk to, open until the block ends.

    A running one, if there is one; else one inside this process, which works on jobs of `model` alone (on none
    without it).
    """
    place = await running(base_url=base_url, key=key, needs_key=needs_key)
    if place is None:
        async with _in_process(settings.load(), _given_key(key), needs_key=needs_key, model=model) as remote:
            yield remote
        return
    async with _over_http(place.root, place.key, own=place.own) as remote:
        yield remote


def as_text(params: Mapping[str, Any], name: str) -> str:
    """A parameter on one line, for a table."""
    text = str(params.get(name, ""))
    return text if len(text) <= 60 else text[:59] + "…"
