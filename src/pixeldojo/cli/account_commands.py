"""`accounts`, `keys`, `credits`: for whoever runs the service. They work on the database, beside a running service."""

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import msgspec
from cyclopts import Parameter

from pixeldojo import clock, errors, ids, money, opening, settings
from pixeldojo.accounts import service as accounts
from pixeldojo.accounts.store import Account, Key
from pixeldojo.cli import show
from pixeldojo.cli.outcome import usage
from pixeldojo.db import Tx
from pixeldojo.ledger import service as ledger
from pixeldojo.ledger.store import Entry

P = ParamSpec("P")
T = TypeVar("T")

_LASTS = re.compile(r"(\d{1,9})([smhdw])")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_LAST_MS = 253_402_300_799_000  # the end of the year 9999, the last one that RFC 3339 can write


def _in_database(fn: Callable[Concatenate[Tx, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn(tx, …)` in a transaction on the database of the settings."""

    async def work() -> T:
        async with opening.open_database_for(settings.load()) as db:
            return await db.write(fn, *args, **kwargs)

    return asyncio.run(work())


def _milli(text: str, *, what: str) -> int:
    try:
        return money.to_milli(text)
    except ValueError as error:
        raise usage(f"{what}: {error}") from None


def _time(time_ms: int | None) -> str | None:
    return None if time_ms is None else clock.rfc3339(time_ms)


def expiry_ms(text: str) -> int:
    """`30d`, `12h`, … from now, or an RFC 3339 time or date, in milliseconds since 1970."""
    if found := _LASTS.fullmatch(text.strip()):
        time_ms = clock.now_ms() + int(found[1]) * _UNIT_MS[found[2]]
    else:
        try:
            moment = datetime.fromisoformat(text.strip())
        except ValueError:
            wanted = "30d, 12h, or a time such as 2030-01-31T12:00:00Z"
            raise usage(f"--expires: {text!r} can't be read; write {wanted}") from None
        # a time without an offset is UTC, like every time this program prints
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        time_ms = int(moment.timestamp() * 1000)
    if time_ms > _LAST_MS:
        raise usage(f"--expires: {text!r} is too far away")
    return time_ms


def _key_view(key: Key, account: Account) -> dict[str, Any]:
    expired = key.expires_ms is not None and key.expires_ms <= clock.now_ms()
    return {
        "id": key.id,
        "prefix": key.prefix,
        "name": key.name,
        "account": account.name,
        "status": "revoked" if key.revoked_ms is not None else "expired" if expired else "active",
        "models": msgspec.json.decode(key.models) if key.models else None,
        "capCredits": None if key.cap_milli is None else money.to_credits(key.cap_milli),
        "spentCredits": money.to_credits(key.spent_milli),
        "createdAt": _time(key.created_ms),
        "expiresAt": _time(key.expires_ms),
        "revokedAt": _time(key.revoked_ms),
    }


def _create_key(tx: Tx, account_name: str, /, **wanted: Any) -> tuple[Account, Key, str]:
    account = accounts.get_account(tx, name=account_name)
    return account, *accounts.create_key(tx, account_id=account.id, **wanted)


def create_key(
    *,
    name: str = "key",
    account: show.Account = accounts.DEFAULT_ACCOUNT,
    models: str | None = None,
    cap: str | None = None,
    expires: str | None = None,
    json: show.Json = False,
) -> None:
    """Make an API key and show it, once.

    Parameters
    ----------
    name
        What the key is for.
    models
        Only these models, comma-separated.
    cap
        The most credits the key may spend in all.
    expires
        When it stops working: 30d, 12h, or 2030-01-31T12:00:00Z.
    """
    only = [part.strip() for part in models.split(",") if part.strip()] if models is not None else None
    if only == []:
        raise usage("--models: name at least one model, or leave the option out")
    cap_milli = None if cap is None else _milli(cap, what="--cap")
    expires_ms = None if expires is None else expiry_ms(expires)
    if only:
        listed = {card.api_id for card in opening.listed_cards(settings.load())}
        for model in sorted(set(only) - listed):
            show.note(f"note: there is no model {show.printable(model)!r} here at the moment")
    owner, key, secret = _in_database(
        _create_key, account, name=name, models=only, cap_milli=cap_milli, expires_ms=expires_ms
    )
    if json:
        show.document({"key": secret} | _key_view(key, owner))
        return
    show.line(secret)
    show.note(f"Keep it: it is not shown again. {key.name} ({key.id}) of account {owner.name}.")


def _list_keys(tx: Tx, account_name: str) -> tuple[Account, list[Key]]:
    account = accounts.get_account(tx, name=account_name)
    return account, accounts.list_keys(tx, account_id=account.id)


def list_keys(*, account: show.Account = accounts.DEFAULT_ACCOUNT, json: show.Json = False) -> None:
    """Show an account's keys, without their secrets."""
    owner, keys = _in_database(_list_keys, account)
    seen = [_key_view(key, owner) for key in keys]
    if json:
        show.document({"keys": seen})
        return
    heads = ("ID", "PREFIX", "NAME", "STATUS", "MODELS", "SPENT", "CAP", "EXPIRES")
    rows = [
        (k["id"], k["prefix"], k["name"], k["status"], ",".join(k["models"] or ["all"]), k["spentCredits"],
         k["capCredits"], k["expiresAt"])
        for k in seen
    ]  # fmt: skip
    show.table(heads, rows, empty="There are no keys; `pixeldojo keys create` makes one.")


def _revoke_key(tx: Tx, account_name: str | None, key: str) -> tuple[Account, Key]:
    owners = [accounts.get_account(tx, name=account_name)] if account_name else accounts.list_accounts(tx)
    found = []
    for owner in owners:
        named = [k for k in accounts.list_keys(tx, account_id=owner.id) if key in (k.id, k.prefix)]
        found += [(owner, k) for k in named]
    if len(found) > 1:
        raise errors.ValidationError.at("key", f"{key!r} is the prefix of {len(found)} keys; give the id")
    if not found:
        raise errors.NotFound(f"There is no key {key!r}; `pixeldojo keys list` shows ids and prefixes.")
    owner, revoked = found[0]
    accounts.revoke_key(tx, account_id=owner.id, key=revoked.id)
    after = next(k for k in accounts.list_keys(tx, account_id=owner.id) if k.id == revoked.id)
    return owner, after


def revoke_key(
    key: str, *, account: Annotated[str | None, Parameter("--account")] = None, json: show.Json = False
) -> None:
    """Revoke a key: it stops working at once.

    Parameters
    ----------
    key
        Its id, its prefix, or the whole key.
    account
        Look only among this account's keys.
    """
    if key.startswith("pd_"):
        key = key[: ids.KEY_PREFIX_CHARS]  # whoever revokes a leaked key has it whole
    owner, revoked = _in_database(_revoke_key, account, key)
    if json:
        show.document(_key_view(revoked, owner))
    else:
        show.line(f"Revoked {revoked.id} ({revoked.prefix}…, {revoked.name}) of account {owner.name}.")


def _balance(tx: Tx, account_name: str) -> Account:
    return accounts.get_account(tx, name=account_name)


def balance(*, account: show.Account = accounts.DEFAULT_ACCOUNT, json: show.Json = False) -> None:
    """Show how many credits an account has."""
    owner = _in_database(_balance, account)
    left = money.to_credits(owner.balance_milli)
    if json:
        show.document({"account": owner.name, "credits": left})
    else:
        show.line(str(left))


def _grant(tx: Tx, account_name: str, *, amount_milli: int, note: str) -> tuple[Account, Entry]:
    account = accounts.get_account(tx, name=account_name)
    return account, ledger.grant(tx, account_id=account.id, amount_milli=amount_milli, note=note)


def grant(
    amount: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    account: show.Account = accounts.DEFAULT_ACCOUNT,
    note: str = "",
    json: show.Json = False,
) -> None:
    """Give an account credits; a negative amount takes some back.

    Parameters
    ----------
    amount
        Credits, with at most three decimals.
    note
        What for, kept in the ledger.
    """
    if len(note) > 500 or not (note.isprintable() or not note):
        raise usage("--note: use at most 500 printable characters")
    amount_milli = _milli(amount, what="AMOUNT")
    owner, entry = _in_database(_grant, account, amount_milli=amount_milli, note=note)
    granted, left = money.to_credits(entry.amount_milli), money.to_credits(entry.balance_milli)
    if json:
        show.document({"account": owner.name, "granted": granted, "credits": left, "entry": entry.id})
    else:
        show.line(f"{owner.name} now has {left} credits ({granted:+}).")


def _ledger(tx: Tx, account_name: str, *, limit: int) -> tuple[Account, list[Entry]]:
    account = accounts.get_account(tx, name=account_name)
    return account, ledger.list_entries(tx, account_id=account.id, limit=limit)


def list_entries(*, account: show.Account = accounts.DEFAULT_ACCOUNT, limit: int = 50, json: show.Json = False) -> None:
    """Show what came and went, the newest first.

    Parameters
    ----------
    limit
        How many entries.
    """
    if not 1 <= limit <= 10_000:
        raise usage("--limit: use 1 to 10000")
    owner, entries = _in_database(_ledger, account, limit=limit)
    seen = [
        {
            "id": e.id, "kind": e.kind, "amount": money.to_credits(e.amount_milli),
            "credits": money.to_credits(e.balance_milli), "jobId": e.job_id, "keyId": e.key_id,
            "note": e.note, "createdAt": _time(e.created_ms),
        }
        for e in entries
    ]  # fmt: skip
    if json:
        show.document({"account": owner.name, "entries": seen})
        return
    rows = [(e["createdAt"], e["kind"], e["amount"], e["credits"], e["jobId"] or e["note"]) for e in seen]
    show.table(("TIME", "KIND", "AMOUNT", "CREDITS", "FOR"), rows, empty="Nothing came or went yet.")


def _account_view(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "name": account.name,
        "credits": money.to_credits(account.balance_milli),
        "createdAt": _time(account.created_ms),
    }


def create_account(name: str, *, json: show.Json = False) -> None:
    """Make an account, with no credits and no keys.

    Parameters
    ----------
    name
        A name that no other account has.
    """
    made = _in_database(accounts.create_account, name=name)
    if json:
        show.document(_account_view(made))
    else:
        show.line(f"Made account {made.name} ({made.id}).")


def list_accounts(*, json: show.Json = False) -> None:
    """Show every account."""
    seen = [_account_view(account) for account in _in_database(accounts.list_accounts)]
    if json:
        show.document({"accounts": seen})
        return
    rows = [(a["name"], a["credits"], a["id"], a["createdAt"]) for a in seen]
    show.table(("NAME", "CREDITS", "ID", "CREATED"), rows, empty="There are no accounts yet.")
