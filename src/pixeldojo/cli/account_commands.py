"""`accounts`, `keys`, `credits`: for whoever runs the service. They work on the database, beside a running service."""

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter

from pixeldojo import clock, errors, ids, limits, money, opening, settings
from pixeldojo.accounts import service as accounts
from pixeldojo.accounts import view
from pixeldojo.cli import show
from pixeldojo.cli.outcome import usage
from pixeldojo.ledger import service as ledger
from pixeldojo.ledger import view as ledger_view

T = TypeVar("T")

_LASTS = re.compile(r"(\d{1,9})([smhdw])")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_GROUPS = ("day", "model")
_LAST_MS = 253_402_300_799_000  # the end of the year 9999, the last one that RFC 3339 can write


# Doors don't know what a transaction or a row is: `tx` goes through, and a room's rows are only read here.
Tx = Any
Row = Any


def _in_database(fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
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


def _lasts_ms(text: str) -> int | None:
    found = _LASTS.fullmatch(text.strip())
    return int(found[1]) * _UNIT_MS[found[2]] if found else None


def expiry_ms(text: str) -> int:
    """`30d`, `12h`, … from now, or an RFC 3339 time or date, in milliseconds since 1970."""
    lasts_ms = _lasts_ms(text)
    if lasts_ms is not None:
        time_ms = clock.now_ms() + lasts_ms
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


def _key_view(key: Row, account: Row) -> dict[str, Any]:
    return view.key(key) | {"account": account.name}


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _create_key(tx: Tx, account_name: str, /, **wanted: Any) -> tuple[Row, Row, str]:
    account = accounts.get_account(tx, name=account_name)
    return account, *accounts.create_key(tx, account_id=account.id, **wanted)


def create_key(
    *,
    name: str = "key",
    account: show.Account = accounts.DEFAULT_ACCOUNT,
    models: str | None = None,
    cap: str | None = None,
    expires: str | None = None,
    rate_limit: str | None = None,
    scopes: str | None = None,
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
    rate_limit
        A rate limit of its own: 600/minute (second, minute, hour, day), or off [PIXELDOJO_RATE_LIMIT].
    scopes
        What it may do, comma-separated: jobs:read, jobs:write, account:read (these three are the usual ones),
        account:write (manage keys and secrets), admin (manage every account, and all the rest).
    """
    only = _listed(models)
    if only == []:
        raise usage("--models: name at least one model, or leave the option out")
    cap_milli = None if cap is None else _milli(cap, what="--cap")
    expires_ms = None if expires is None else expiry_ms(expires)
    try:
        rate_limit = None if rate_limit is None else limits.tidy(rate_limit)
    except ValueError as error:
        raise usage(f"--rate-limit: {error}") from None
    if only:
        listed = {card.api_id for card in opening.listed_cards(settings.load())}
        for model in sorted(set(only) - listed):
            show.note(f"note: there is no model {show.printable(model)!r} here at the moment")
    owner, key, secret = _in_database(
        _create_key,
        account,
        name=name,
        models=only,
        cap_milli=cap_milli,
        expires_ms=expires_ms,
        rate_limit=rate_limit,
        scopes=_listed(scopes),
    )
    if json:
        show.document({"key": secret} | _key_view(key, owner))
        return
    show.line(secret)
    show.note(f"Keep it: it is not shown again. {key.name} ({key.id}) of account {owner.name}.")


def _list_keys(tx: Tx, account_name: str) -> tuple[Row, list[Row]]:
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


def _find_key(tx: Tx, account_name: str | None, key: str) -> tuple[Row, Row]:
    """The one key with that id or prefix, and its account."""
    if key.startswith("pd_"):
        key = key[: ids.KEY_PREFIX_CHARS]  # whoever deals with a leaked key has it whole
    owners = [accounts.get_account(tx, name=account_name)] if account_name else accounts.list_accounts(tx)
    found = []
    for owner in owners:
        named = [k for k in accounts.list_keys(tx, account_id=owner.id) if key in (k.id, k.prefix)]
        found += [(owner, k) for k in named]
    if len(found) > 1:
        raise errors.ValidationError.at("key", f"{key!r} is the prefix of {len(found)} keys; give the id")
    if not found:
        raise errors.NotFound(f"There is no key {key!r}; `pixeldojo keys list` shows ids and prefixes.")
    return found[0]


def _revoke_key(tx: Tx, account_name: str | None, key: str) -> tuple[Row, Row]:
    owner, found = _find_key(tx, account_name, key)
    return owner, accounts.revoke_key(tx, account_id=owner.id, key=found.id)


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
    owner, revoked = _in_database(_revoke_key, account, key)
    if json:
        show.document(_key_view(revoked, owner))
    else:
        show.line(f"Revoked {revoked.id} ({revoked.prefix}…, {revoked.name}) of account {owner.name}.")


def _rotate_key(tx: Tx, account_name: str | None, key: str, *, grace_s: int) -> tuple[Row, Row, Row, str]:
    owner, found = _find_key(tx, account_name, key)
    return owner, *accounts.rotate_key(tx, account_id=owner.id, key=found.id, grace_s=grace_s)


def rotate_key(
    key: str,
    *,
    account: Annotated[str | None, Parameter("--account")] = None,
    grace: str = "24h",
    json: show.Json = False,
) -> None:
    """Make a new key in the place of an old one, on the same terms and the same budget, and show it, once.

    Parameters
    ----------
    key
        The old one's id, its prefix, or the whole key.
    account
        Look only among this account's keys.
    grace
        How long the old one goes on working: 24h, 30m, 0s; at most 7d.
    """
    grace_ms = _lasts_ms(grace)
    if grace_ms is None or grace_ms > accounts.MOST_GRACE_S * 1000:
        raise usage(f"--grace: {grace!r} can't be used; write 24h, 30m, 0s, at most 7d")
    owner, old, new, secret = _in_database(_rotate_key, account, key, grace_s=grace_ms // 1000)
    if json:
        show.document({"key": secret} | _key_view(new, owner) | {"replaces": _key_view(old, owner)})
        return
    show.line(secret)
    show.note(f"Keep it: it is not shown again. {new.name} ({new.id}) of account {owner.name}.")
    show.note(f"{old.prefix}… ({old.id}) works until {_time(old.expires_ms)}.")


def _balance(tx: Tx, account_name: str) -> Row:
    return accounts.get_account(tx, name=account_name)


def balance(*, account: show.Account = accounts.DEFAULT_ACCOUNT, json: show.Json = False) -> None:
    """Show how many credits an account has."""
    owner = _in_database(_balance, account)
    left = money.to_credits(owner.balance_milli)
    if json:
        show.document({"account": owner.name, "credits": left})
    else:
        show.line(str(left))


def _grant(tx: Tx, account_name: str, *, amount_milli: int, note: str) -> tuple[Row, Row]:
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


def _ledger(tx: Tx, account_name: str, *, limit: int) -> tuple[Row, list[Row]]:
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
    seen = [ledger_view.entry(each) for each in entries]
    if json:
        show.document({"account": owner.name, "entries": seen})
        return
    rows = [(e["createdAt"], e["kind"], e["amount"], e["credits"], e["jobId"] or e["note"]) for e in seen]
    show.table(("TIME", "KIND", "AMOUNT", "CREDITS", "FOR"), rows, empty="Nothing came or went yet.")


def _usage(tx: Tx, account_name: str, *, from_ms: int, to_ms: int) -> tuple[Row, list[Row]]:
    account = accounts.get_account(tx, name=account_name)
    return account, ledger.usage(
        tx, account_id=account.id, from_ms=from_ms, to_ms=to_ms, group_by=_GROUPS
    )  # fmt: skip


def show_usage(*, account: show.Account = accounts.DEFAULT_ACCOUNT, days: int = 30, json: show.Json = False) -> None:
    """Show what jobs cost, by day (UTC) and model.

    Parameters
    ----------
    days
        How many days, today included.
    """
    if not 1 <= days <= ledger.MOST_DAYS:
        raise usage(f"--days: use 1 to {ledger.MOST_DAYS}")
    to_ms, day_ms = clock.now_ms() + 1, _UNIT_MS["d"]
    from_ms = (to_ms // day_ms - days + 1) * day_ms
    owner, rows = _in_database(_usage, account, from_ms=from_ms, to_ms=to_ms)
    seen = ledger_view.usage(rows, from_ms=from_ms, to_ms=to_ms, group_by=_GROUPS)
    if json:
        show.document({"account": owner.name} | seen)
        return
    names = ("day", "model", "jobs", "charged", "refunded", "net")
    table = [tuple(row[name] for name in names) for row in seen["rows"]]
    show.table([name.upper() for name in names], table, empty="No job was charged or refunded.")


def create_account(name: str, *, json: show.Json = False) -> None:
    """Make an account, with no credits and no keys.

    Parameters
    ----------
    name
        A name that no other account has.
    """
    made = _in_database(accounts.create_account, name=name)
    if json:
        show.document(view.account(made))
    else:
        show.line(f"Made account {made.name} ({made.id}).")


def _change_account(tx: Tx, account_name: str, *, concurrency: int) -> Row:
    account = accounts.get_account(tx, name=account_name)
    return accounts.change_account(tx, account_id=account.id, concurrency=concurrency)


def set_account(name: str, *, concurrency: int, json: show.Json = False) -> None:
    """Change what limits an account.

    Parameters
    ----------
    name
        Name or id of the account.
    concurrency
        How many of its jobs may be worked on at once; 0 for the service's own bound.
    """
    if not 0 <= concurrency <= 1_000_000:
        raise usage("--concurrency: use 0 to 1000000")
    changed = _in_database(_change_account, name, concurrency=concurrency)
    if json:
        show.document(view.account(changed))
    else:
        bound = changed.concurrency or "as many as the service lets it"
        show.line(f"Jobs of {changed.name} at work at once: {bound}.")


def list_accounts(*, json: show.Json = False) -> None:
    """Show every account."""
    seen = [view.account(account) for account in _in_database(accounts.list_accounts)]
    if json:
        show.document({"accounts": seen})
        return
    rows = [(a["name"], a["credits"], a["id"], a["createdAt"]) for a in seen]
    show.table(("NAME", "CREDITS", "ID", "CREATED"), rows, empty="There are no accounts yet.")
