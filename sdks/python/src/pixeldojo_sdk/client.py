"""The clients: every verb of `_operations`, run by the blocking driver or by the asyncio one.

A line a verb is all that they hold twice; types, docstrings and behaviour come from the operation.
"""

import functools
import inspect
import os
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, get_args
from urllib.parse import urlsplit

import httpx2

from pixeldojo_sdk import webhooks
from pixeldojo_sdk._drivers import Asyncio, Blocking
from pixeldojo_sdk._effects import Items, Operation
from pixeldojo_sdk._operations import Operations
from pixeldojo_sdk._requests import Options

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H")

_HOSTED = "https://pixeldojo.ai/api/v1"


def _api_root(text: str) -> str:
    """The address under which `/models` lies."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and parts.hostname and httpx2.URL(text)
        parts.port  # noqa: B018 - raises where it is no number
    except (ValueError, httpx2.InvalidURL):
        valid = None
    if not valid:
        raise ValueError(f"base_url: {text!r} is no address; write http://host:port")
    if "@" in parts.netloc:
        raise ValueError("base_url must not contain a user or password")
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path if path.endswith('/api/v1') else path + '/api/v1'}"


def _like(verb: Callable[..., Any], method: Any, wrap: Callable[[Any], Any]) -> Any:
    """`method` with the name, docstring and signature of the verb, and with the result that it has here."""
    functools.update_wrapper(method, verb)
    signature = inspect.signature(verb)
    result = wrap(verb.__annotations__["return"])
    method.__signature__ = signature.replace(return_annotation=result)
    method.__annotations__ = {**verb.__annotations__, "return": result}
    return method


class _Client(ABC, Generic[H]):
    """What both clients are made with."""

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float = 30,
        max_retries: int = 4,
        retry_base: float = 0.5,
        max_retry_after: float = 60,
        poll_interval: float = 1,
        max_poll_interval: float | None = None,
        headers: Mapping[str, str] | None = None,
        http_client: H | None = None,
    ) -> None:
        """All times are in seconds.

        `api_key`: `pd_…`, else `PIXELDOJO_API_KEY`; models can be listed without one. `base_url`: the service's
        address, with or without `/api/v1`; else `PIXELDOJO_BASE_URL`, else the hosted service. `timeout`: of one
        attempt at a request. `max_retries`: how often a request that may do better in a moment is tried again, after
        up to `retry_base` seconds at first, then up to twice as long each time, at most 8; a longer `Retry-After` is
        waited for up to `max_retry_after`. `poll_interval` is the first wait between two polls; the waits grow by
        half, up to `max_poll_interval` (5). `headers` go with every request to the API. `http_client`: an `httpx2`
        client of your own, which you close.
        """
        key = (api_key if api_key is not None else os.environ.get("PIXELDOJO_API_KEY", "")).strip()
        if not re.fullmatch(r"[\x21-\x7e]*", key):
            raise ValueError("api_key contains something that no key contains")
        root = (base_url or "").strip() or os.environ.get("PIXELDOJO_BASE_URL", "").strip() or _HOSTED
        longest = max(5.0, poll_interval) if max_poll_interval is None else max_poll_interval
        self._options = Options(
            api_key=key or None, root=_api_root(root), timeout=timeout, max_retries=max_retries,
            retry_base=retry_base, max_retry_after=max_retry_after, poll_interval=min(poll_interval, longest),
            max_poll_interval=longest, headers=dict(headers or {}),
        )  # fmt: skip
        self._operations = Operations(self._options)
        self._start(http_client)

    @abstractmethod
    def _start(self, http_client: H | None) -> None:
        """Make the driver, over the given HTTP client or one of its own."""

    @property
    def base_url(self) -> str:
        """The address under which the API lies, `/api/v1` included."""
        return self._options.root

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}>"

    verify_webhook = staticmethod(webhooks.verify_webhook)


def _blocking(
    verb: Callable[Concatenate[Operations, P], Operation[T]],
) -> Callable[Concatenate["PixelDojoClient", P], T]:
    def method(client: "PixelDojoClient", *args: P.args, **kwargs: P.kwargs) -> T:
        return client._driver.run(verb(client._operations, *args, **kwargs))

    made: Callable[Concatenate[PixelDojoClient, P], T] = _like(verb, method, lambda kind: get_args(kind)[2])
    return made


def _iterating(
    verb: Callable[Concatenate[Operations, P], Items[T]],
) -> Callable[Concatenate["PixelDojoClient", P], Generator[T, None, None]]:
    def method(client: "PixelDojoClient", *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return client._driver.iterate(verb(client._operations, *args, **kwargs))

    made: Callable[Concatenate[PixelDojoClient, P], Generator[T, None, None]] = _like(verb, method, _generator)
    return made


def _awaiting(
    verb: Callable[Concatenate[Operations, P], Operation[T]],
) -> Callable[Concatenate["AsyncPixelDojoClient", P], Coroutine[Any, Any, T]]:
    async def method(client: "AsyncPixelDojoClient", *args: P.args, **kwargs: P.kwargs) -> T:
        return await client._driver.run(verb(client._operations, *args, **kwargs))

    made: Callable[Concatenate[AsyncPixelDojoClient, P], Coroutine[Any, Any, T]] = _like(
        verb, method, lambda kind: get_args(kind)[2]
    )
    return made


def _async_iterating(
    verb: Callable[Concatenate[Operations, P], Items[T]],
) -> Callable[Concatenate["AsyncPixelDojoClient", P], AsyncGenerator[T, None]]:
    def method(client: "AsyncPixelDojoClient", *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        return client._driver.iterate(verb(client._operations, *args, **kwargs))

    made: Callable[Concatenate[AsyncPixelDojoClient, P], AsyncGenerator[T, None]] = _like(
        verb,
        method,
        lambda kind: AsyncGenerator[_item(kind), None],  # type: ignore[misc]
    )
    return made


def _item(kind: Any) -> Any:
    """`Job` of `Items[Job]`."""
    emitted = [get_args(each) for each in get_args(get_args(kind)[0])]
    return next(each[0] for each in emitted if each)


def _generator(kind: Any) -> Any:
    return Generator[_item(kind), None, None]  # type: ignore[misc]


class PixelDojoClient(_Client[httpx2.Client]):
    """A client of a PixelDojo service. Threads may share one. Close it, or use it in a `with`."""

    def _start(self, http_client: httpx2.Client | None) -> None:
        self._driver = Blocking(http_client)

    def close(self) -> None:
        """Close the connections."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    list_models = _blocking(Operations.list_models)
    get_model = _blocking(Operations.get_model)
    get_model_schema = _blocking(Operations.get_model_schema)
    estimate = _blocking(Operations.estimate)
    run = _blocking(Operations.run)
    generate = _blocking(Operations.generate)
    wait_for_job = _blocking(Operations.wait_for_job)
    get_job = _blocking(Operations.get_job)
    list_jobs = _blocking(Operations.list_jobs)
    iter_jobs = _iterating(Operations.iter_jobs)
    cancel = _blocking(Operations.cancel)
    delete_job = _blocking(Operations.delete_job)
    events = _iterating(Operations.events)
    get_webhook = _blocking(Operations.get_webhook)
    replay_webhook = _blocking(Operations.replay_webhook)
    account = _blocking(Operations.account)
    usage = _blocking(Operations.usage)
    ledger = _blocking(Operations.ledger)
    list_keys = _blocking(Operations.list_keys)
    create_key = _blocking(Operations.create_key)
    rotate_key = _blocking(Operations.rotate_key)
    revoke_key = _blocking(Operations.revoke_key)
    webhook_secret = _blocking(Operations.webhook_secret)
    rotate_webhook_secret = _blocking(Operations.rotate_webhook_secret)
    download_asset = _blocking(Operations.download_asset)
    save_asset = _blocking(Operations.save_asset)


class AsyncPixelDojoClient(_Client[httpx2.AsyncClient]):
    """A client of a PixelDojo service for asyncio. Close it, or use it in an `async with`."""

    def _start(self, http_client: httpx2.AsyncClient | None) -> None:
        self._driver = Asyncio(http_client)

    async def close(self) -> None:
        """Close the connections."""
        await self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    list_models = _awaiting(Operations.list_models)
    get_model = _awaiting(Operations.get_model)
    get_model_schema = _awaiting(Operations.get_model_schema)
    estimate = _awaiting(Operations.estimate)
    run = _awaiting(Operations.run)
    generate = _awaiting(Operations.generate)
    wait_for_job = _awaiting(Operations.wait_for_job)
    get_job = _awaiting(Operations.get_job)
    list_jobs = _awaiting(Operations.list_jobs)
    iter_jobs = _async_iterating(Operations.iter_jobs)
    cancel = _awaiting(Operations.cancel)
    delete_job = _awaiting(Operations.delete_job)
    events = _async_iterating(Operations.events)
    get_webhook = _awaiting(Operations.get_webhook)
    replay_webhook = _awaiting(Operations.replay_webhook)
    account = _awaiting(Operations.account)
    usage = _awaiting(Operations.usage)
    ledger = _awaiting(Operations.ledger)
    list_keys = _awaiting(Operations.list_keys)
    create_key = _awaiting(Operations.create_key)
    rotate_key = _awaiting(Operations.rotate_key)
    revoke_key = _awaiting(Operations.revoke_key)
    webhook_secret = _awaiting(Operations.webhook_secret)
    rotate_webhook_secret = _awaiting(Operations.rotate_webhook_secret)
    download_asset = _awaiting(Operations.download_asset)
    save_asset = _awaiting(Operations.save_asset)
