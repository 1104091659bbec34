"""`/api/v1/account`: the caller's own balance, limits, usage, ledger and keys."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from litestar import Response, delete, get, post
from litestar.params import FromPath

from pixeldojo import clock, errors, limits
from pixeldojo.accounts import handing
from pixeldojo.accounts import service as accounts
from pixeldojo.accounts import view as accounts_view
from pixeldojo.api import fields
from pixeldojo.api.fields import Fields
from pixeldojo.api.respond import ApiRequest, header, reply
from pixeldojo.db import Tx
from pixeldojo.house import House
from pixeldojo.ledger import service as ledger
from pixeldojo.ledger import view as ledger_view

T = TypeVar("T")

_DAY_MS = 86_400_000
_USUAL_DAYS = 30
_MOST, _USUAL = 100, 20
_KEY_ID = re.compile(r"key_[0-9a-f]{32}")
_NO_STORE = {"Cache-Control": "no-store"}  # an answer with a key in it


def house_of(request: ApiRequest) -> House:
    """The rooms behind this request."""
    house: House = request.app.state.house
    return house


async def check(request: ApiRequest, *, needs: str) -> accounts.Caller:
    """Who calls, once that is somebody who may. So a stranger's body is never read, and nobody else's faults told."""
    caller: accounts.Caller = await house_of(request).db.read(
        accounts.as_caller, header(request, b"authorization"), _caller, needs=needs
    )
    return caller


def _caller(_: Tx, *, caller: accounts.Caller) -> accounts.Caller:
    return caller


def mine(tx: Tx, /, *, caller: accounts.Caller, act: Callable[..., T], **arguments: Any) -> T:
    """`act` on the caller's account."""
    return act(tx, account_id=caller.account_id, **arguments)


def page(wanted: Fields, *, prefix: str, usual: int = _USUAL) -> tuple[int, str | None]:
    """`limit` and `cursor` of a list whose rows have ids with this prefix."""
    limit = wanted.whole("limit", least=1, most=_MOST) or usual
    cursor = wanted.text("cursor")
    if cursor is not None and not re.fullmatch(prefix + r"_[0-9a-f]{32}", cursor):
        wanted.fault("cursor", "must be the nextCursor of an earlier page")
    return limit, cursor


def paged(found: list[Any], *, limit: int, name: str, view: Callable[[Any], Any]) -> dict[str, Any]:
    """A page of `limit` rows and the cursor for the next one; `found` has one row more where there is one."""
    following = found[limit - 1].id if len(found) > limit else None
    return {name: [view(each) for each in found[:limit]], "nextCursor": following}


@get("/api/v1/account")
async def get_account(request: ApiRequest) -> Response[bytes]:
    """The caller's account, its key, and what limits both."""
    house = house_of(request)
    account, key = await house.db.read(
        accounts.as_caller, header(request, b"authorization"), accounts.whoami, needs="account:read"
    )
    settings = house.settings
    told = {
        "rateLimit": key.rate_limit or limits.tidy(settings.rate_limit),
        "concurrency": account.concurrency or settings.account_concurrency or None,
        "maxBodyBytes": settings.max_body_bytes,
        "retentionSeconds": settings.retention_s,
    }
    shown = accounts_view.account(account)
    del shown["concurrency"]
    return reply(shown | {"key": accounts_view.key(key), "limits": told})


def _period(wanted: Fields) -> tuple[int, int]:
    """From and to, in milliseconds: the last 30 days, today included, unless the query says otherwise."""
    to_ms = wanted.time("to", ends_day=True)
    from_ms = wanted.time("from")
    to_ms = clock.now_ms() if to_ms is None else to_ms
    if from_ms is None:
        from_ms = max(0, (to_ms - 1) // _DAY_MS - (_USUAL_DAYS - 1)) * _DAY_MS
    if from_ms >= to_ms:
        wanted.fault("from", "must be before `to`")
    elif to_ms - from_ms > ledger.MOST_DAYS * _DAY_MS:
        wanted.fault("from", f"must be at most {ledger.MOST_DAYS} days before `to`")
    return from_ms, to_ms


@get("/api/v1/account/usage")
async def get_usage(request: ApiRequest) -> Response[bytes]:
    """What the account's jobs cost, by day, model or key."""
    await check(request, needs="account:read")
    wanted = fields.of_query(request)
    from_ms, to_ms = _period(wanted)
    groups = [part.strip() for part in (wanted.text("groupBy", most=1000) or "day").split(",")]
    if set(groups) - set(ledger.GROUPS):
        wanted.fault("groupBy", f"must be some of {', '.join(ledger.GROUPS)}")
    wanted.finish(closed=False)
    rows = await house_of(request).db.scan(
        accounts.as_caller, header(request, b"authorization"), mine, needs="account:read",
        act=ledger.usage, from_ms=from_ms, to_ms=to_ms, group_by=groups,
    )  # fmt: skip
    return reply(ledger_view.usage(rows, from_ms=from_ms, to_ms=to_ms, group_by=groups))


@get("/api/v1/account/ledger")
async def get_ledger(request: ApiRequest) -> Response[bytes]:
    """What came and went, newest first."""
    await check(request, needs="account:read")
    wanted = fields.of_query(request)
    limit, cursor = page(wanted, prefix="ent")
    kind = wanted.one_of("kind", ledger.KINDS)
    wanted.finish(closed=False)
    found = await house_of(request).db.scan(
        accounts.as_caller, header(request, b"authorization"), mine, needs="account:read",
        act=ledger.list_entries, limit=limit + 1, before=cursor, kind=kind,
    )  # fmt: skip
    return reply(paged(found, limit=limit, name="entries", view=ledger_view.entry))


@get("/api/v1/account/keys")
async def list_keys(request: ApiRequest) -> Response[bytes]:
    """The account's keys, without their secrets, newest first."""
    await check(request, needs="account:write")
    wanted = fields.of_query(request)
    limit, cursor = page(wanted, prefix="key", usual=_MOST)
    wanted.finish(closed=False)
    found = await house_of(request).db.read(
        accounts.as_caller, header(request, b"authorization"), mine, needs="account:write",
        act=accounts.key_page, limit=limit + 1, before=cursor,
    )  # fmt: skip
    return reply(paged(found, limit=limit, name="keys", view=accounts_view.key))


def _expiry_ms(wanted: Fields) -> int | None:
    at_ms = wanted.time("expiresAt")
    within_s = wanted.whole("expiresIn", least=1, most=accounts.MOST_LIFE_S)
    if at_ms is not None and at_ms <= clock.now_ms():
        wanted.fault("expiresAt", "must lie in the future")
    if at_ms is not None and within_s is not None:
        wanted.fault("expiresIn", "can't be given together with expiresAt")
    return at_ms if within_s is None else clock.now_ms() + within_s * 1000


def key_terms(wanted: Fields, house: House) -> handing.Terms:
    """What a new key shall be, as a body says it. Raises `ValidationError` for every fault that can be known here."""
    models, scopes = wanted.texts("models"), wanted.texts("scopes")
    listed = {card.api_id for card in house.catalogue.cards}
    for number, model in enumerate(models or ()):
        if model not in listed:
            wanted.fault(f"models.{number}", f"there is no model {model[:80]!r}; GET /api/v1/models lists them")
    for number, scope in enumerate(scopes or ()):
        if scope not in accounts.SCOPES:
            wanted.fault(f"scopes.{number}", f"must be one of {', '.join(accounts.SCOPES)}")
    rate = wanted.text("rateLimit")
    try:
        rate = limits.tidy(rate) if rate is not None else None
    except ValueError as error:
        wanted.fault("rateLimit", str(error))
    name, cap, expires = wanted.text("name", needed=True), wanted.credits("capCredits"), _expiry_ms(wanted)
    wanted.finish()
    assert name is not None  # or `finish` has raised
    return handing.Terms(
        name=name, models=models, cap_milli=cap, expires_ms=expires, rate_limit=rate, scopes=scopes
    )  # fmt: skip


def new_key(key: accounts.Key, secret: str) -> Response[bytes]:
    """The answer that shows a key's text, the only time."""
    return reply({"key": secret} | accounts_view.key(key), status=201, headers=_NO_STORE)


@post("/api/v1/account/keys")
async def create_key(request: ApiRequest) -> Response[bytes]:
    """A new key, which can do no more than the one that asks for it."""
    await check(request, needs="account:write")
    house = house_of(request)
    terms = key_terms(await fields.of_body(request), house)
    made = await house.db.write(
        accounts.as_caller, header(request, b"authorization"), handing.issue_key, needs="account:write",
        terms=terms, service_rate=house.settings.rate_limit,
    )  # fmt: skip
    return new_key(*made)


def _known(key_id: str) -> str:
    if not _KEY_ID.fullmatch(key_id):
        raise errors.NotFound(f"There is no key {key_id[:80]!r} in this account.")
    return key_id


@post("/api/v1/account/keys/{key_id:str}/rotate")
async def rotate_key(request: ApiRequest, key_id: FromPath[str]) -> Response[bytes]:
    """A new key in the place of an old one, which works for a grace time."""
    await check(request, needs="account:write")
    wanted = await fields.of_body(request, optional=True)
    grace_s = wanted.whole("graceSeconds", least=0, most=accounts.MOST_GRACE_S)
    wanted.finish()
    old, new, secret = await house_of(request).db.write(
        accounts.as_caller, header(request, b"authorization"), handing.rotate_key, needs="account:write",
        key_id=_known(key_id), grace_s=accounts.GRACE_S if grace_s is None else grace_s,
    )  # fmt: skip
    shown = {"key": secret} | accounts_view.key(new) | {"replaces": accounts_view.key(old)}
    return reply(shown, status=201, headers=_NO_STORE)


@delete("/api/v1/account/keys/{key_id:str}", status_code=200)
async def revoke_key(request: ApiRequest, key_id: FromPath[str]) -> Response[bytes]:
    """Revoke a key: it stops working at once. Any key may revoke itself."""
    authorization = header(request, b"authorization")
    revoked = await house_of(request).db.write(
        accounts.as_caller, authorization, _revoke, needs=None, key_id=key_id
    )  # fmt: skip
    return reply(accounts_view.key(revoked))


def _revoke(tx: Tx, /, *, caller: accounts.Caller, key_id: str) -> accounts.Key:
    if key_id != caller.key_id:
        accounts.require(caller, "account:write")  # whoever may not is not told which keys there are
    return handing.revoke_key(tx, caller=caller, key_id=_known(key_id))
