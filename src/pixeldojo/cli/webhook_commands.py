"""`webhooks`: the secret that signs an account's webhooks (for whoever runs the service), and a job's deliveries."""

import asyncio
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from cyclopts import Parameter

from pixeldojo import opening, settings
from pixeldojo.accounts import service as accounts
from pixeldojo.cli import show
from pixeldojo.cli.client_commands import BaseUrl, Key
from pixeldojo.cli.connect import connect, shaped
from pixeldojo.webhooks import service as webhooks
from pixeldojo.webhooks import view

Tx = Any  # doors don't know what a transaction is: it goes through


def _secrets(tx: Tx, account_name: str, *, rotate: bool) -> tuple[str, dict[str, Any]]:
    account = accounts.get_account(tx, name=account_name)
    valid = (webhooks.rotate_secret if rotate else webhooks.valid_secrets)(tx, account_id=account.id)
    return account.name, view.secrets(valid)


def secret(
    *,
    rotate: Annotated[bool, Parameter(negative=())] = False,
    account: show.Account = accounts.DEFAULT_ACCOUNT,
    json: show.Json = False,
) -> None:
    """Show the secret that signs an account's webhooks; it is made when it is first asked for.

    Parameters
    ----------
    rotate
        Make a new one. The one before it stays valid for 24 hours.
    """

    async def work() -> tuple[str, dict[str, Any]]:
        async with opening.open_database_for(settings.load()) as db:
            return await db.write(_secrets, account, rotate=rotate)

    owner, shown = asyncio.run(work())
    if json:
        show.document({"account": owner} | shown)
        return
    show.line(shown["secret"])
    for earlier in shown["secrets"][1:]:
        show.note(f"The one before it is valid until {earlier['expiresAt']}.")


class _Attempt(msgspec.Struct, rename="camel"):
    number: int
    at: str
    duration_ms: int
    response_status: int | None = None
    error: str | None = None


class _Delivery(msgspec.Struct, rename="camel"):
    id: str
    type: str
    status: str
    next_attempt_at: str | None = None
    attempts: list[_Attempt] = []


class _Webhook(msgspec.Struct, rename="camel"):
    url: str
    status: str
    deliveries: list[_Delivery] = []


def show_webhook(
    id: str,  # noqa: A002 - the name in the help
    /,
    *,
    replay: Annotated[bool, Parameter(negative=())] = False,
    key: Key = None,
    base_url: BaseUrl = None,
    json: show.Json = False,
) -> None:
    """Show what was sent to a job's webhook, and what it answered.

    Parameters
    ----------
    id
        A job's id.
    replay
        Send the end of the job once more, now.
    """
    path = f"/jobs/{quote(id, safe='')}/webhook"

    async def work() -> dict[str, Any]:
        async with connect(base_url=base_url, key=key) as remote:
            return await remote.call("POST" if replay else "GET", path)

    raw = asyncio.run(work())
    if json:
        show.document(raw)
        return
    if replay:
        show.line(f"{raw.get('webhookId')} is sent once more; `pixeldojo webhooks show {id}` tells what came of it.")
        return
    found = shaped(raw, _Webhook)
    show.note(f"{show.printable(found.url)}: {show.printable(found.status)}")
    rows: list[tuple[object, ...]] = []
    for each in found.deliveries:
        rows += [
            (each.type, each.status, attempt.number, attempt.at, attempt.duration_ms, attempt.response_status,
             attempt.error)
            for attempt in each.attempts
        ]  # fmt: skip
        if not each.attempts or each.next_attempt_at:
            rows.append((each.type, each.status, "", each.next_attempt_at, "", "", ""))
    show.table(("EVENT", "STATUS", "ATTEMPT", "TIME", "MS", "ANSWER", "ERROR"), rows, empty="Nothing was sent yet.")
