"""`/api/v1/admin/accounts`: every account, its limits, grants and keys, for whoever runs the service."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from litestar import Response, get, patch, post
from litestar.params import FromPath

from pixeldojo import errors
from pixeldojo.accounts import handing
from pixeldojo.accounts import service as accounts
from pixeldojo.accounts import view as accounts_view
from pixeldojo.api import account as own
from pixeldojo.api import fields
from pixeldojo.api.respond import ApiRequest, header, reply
from pixeldojo.db import Tx
from pixeldojo.jobs import intake
from pixeldojo.ledger import service as ledger
from pixeldojo.ledger import view as ledger_view

T = TypeVar("T")

_ACCOUNT_ID = re.compile(r"acct_[0-9a-f]{32}")
_MOST_CONCURRENCY = 1_000_000


def _as_admin(tx: Tx, /, *, caller: accounts.Caller, act: Callable[..., T], **arguments: Any) -> T:
    return act(tx, **arguments)


async def _write(request: ApiRequest, act: Callable[..., T], **arguments: Any) -> T:
    written: T = await own.house_of(request).db.write(
        accounts.as_caller, header(request, b"authorization"), _as_admin, needs="admin", act=act, **arguments
    )
    return written


def _known(account_id: str) -> str:
    if not _ACCOUNT_ID.fullmatch(account_id):
        raise errors.NotFound(f"There is no account {account_id[:80]!r}.")
    return account_id


@get("/api/v1/admin/accounts")
async def list_accounts(request: ApiRequest) -> Response[bytes]:
    """Every account, newest first."""
    await own.check(request, needs="admin")
    wanted = fields.of_query(request)
    limit, cursor = own.page(wanted, prefix="acct")
    wanted.finish(closed=False)
    found = await own.house_of(request).db.read(
        accounts.as_caller, header(request, b"authorization"), _as_admin, needs="admin",
        act=accounts.account_page, limit=limit + 1, before=cursor,
    )  # fmt: skip
    return reply(own.paged(found, limit=limit, name="accounts", view=accounts_view.account))


@post("/api/v1/admin/accounts")
async def create_account(request: ApiRequest) -> Response[bytes]:
    """A new account, with no credits and no keys."""
    await own.check(request, needs="admin")
    wanted = await fields.of_body(request)
    name = wanted.text("name", needed=True)
    concurrency = wanted.whole("concurrency", least=1, most=_MOST_CONCURRENCY)
    wanted.finish()
    made = await _write(request, accounts.create_account, name=name, concurrency=concurrency)
    return reply(accounts_view.account(made), status=201)


@get("/api/v1/admin/accounts/{account_id:str}")
async def get_account(request: ApiRequest, account_id: FromPath[str]) -> Response[bytes]:
    """One account."""
    await own.check(request, needs="admin")
    found = await own.house_of(request).db.read(
        accounts.as_caller, header(request, b"authorization"), _as_admin, needs="admin",
        act=accounts.account_of, account_id=_known(account_id),
    )  # fmt: skip
    return reply(accounts_view.account(found))


@patch("/api/v1/admin/accounts/{account_id:str}")
async def change_account(request: ApiRequest, account_id: FromPath[str]) -> Response[bytes]:
    """Change an account's name or how many of its jobs may be worked on at once."""
    await own.check(request, needs="admin")
    wanted = await fields.of_body(request)
    name = wanted.text("name")
    concurrency = wanted.whole("concurrency", least=1, most=_MOST_CONCURRENCY)
    if concurrency is None and wanted.has("concurrency"):
        concurrency = 0  # null: the service's own
    wanted.finish()
    changed = await _write(
        request, accounts.change_account, account_id=_known(account_id), name=name, concurrency=concurrency
    )
    return reply(accounts_view.account(changed))


def _grant(tx: Tx, /, *, account_id: str, **wanted: Any) -> tuple[ledger.Entry, bool]:
    accounts.account_of(tx, account_id=account_id)
    return ledger.grant_once(tx, account_id=account_id, **wanted)


@post("/api/v1/admin/accounts/{account_id:str}/grants")
async def grant(request: ApiRequest, account_id: FromPath[str]) -> Response[bytes]:
    """Give an account credits, or take some back; with an `Idempotency-Key`, once however often it is sent."""
    await own.check(request, needs="admin")
    wanted = await fields.of_body(request)
    milli = wanted.credits("credits", needed=True, negative=True)
    note = wanted.text("note", most=500, blank=True) or ""
    if milli == 0:
        wanted.fault("credits", "must not be zero")
    wanted.finish()
    key = intake.idempotency_key(header(request, b"idempotency-key"))
    entry, replayed = await _write(
        request, _grant, account_id=_known(account_id), amount_milli=milli, note=note, request_key=key
    )
    return reply(ledger_view.entry(entry), status=201, headers={"Idempotent-Replayed": "true"} if replayed else None)


def _create_key(tx: Tx, /, *, account_id: str, terms: handing.Terms) -> tuple[accounts.Key, str]:
    accounts.account_of(tx, account_id=account_id)
    return handing.create_key(tx, account_id=account_id, terms=terms)


@post("/api/v1/admin/accounts/{account_id:str}/keys")
async def create_key(request: ApiRequest, account_id: FromPath[str]) -> Response[bytes]:
    """A new key of any account, with any scopes."""
    await own.check(request, needs="admin")
    terms = own.key_terms(await fields.of_body(request), own.house_of(request))
    return own.new_key(*await _write(request, _create_key, account_id=_known(account_id), terms=terms))
