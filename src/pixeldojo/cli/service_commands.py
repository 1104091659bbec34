"""`doctor` and `db migrate`: what an operator asks before and after the service runs."""

import asyncio
import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pixeldojo import __version__, errors, money, opening, settings
from pixeldojo.catalogue.card import CardError
from pixeldojo.cli import connect, show
from pixeldojo.cli.outcome import Exit
from pixeldojo.ledger import service as ledger
from pixeldojo.settings import Settings

_LIBRARIES = ("litestar", "uvicorn", "uvloop", "msgspec", "onnxruntime", "pillow", "obstore", "psycopg")
_LITTLE_ROOM = 256 * 2**20


@dataclass(frozen=True, slots=True)
class _Check:
    name: str
    ok: bool
    detail: str


def _data_dir(wanted: Settings) -> _Check:
    """Looks only: a doctor run by root must not leave files that the service can't write."""
    path = wanted.data_dir
    there = next((p for p in (path, *path.parents) if p.exists()), Path("/"))
    if not there.is_dir():
        return _Check("data directory", False, f"{there} is not a folder; set PIXELDOJO_DATA_DIR to another")
    if not os.access(there, os.W_OK | os.X_OK):
        return _Check("data directory", False, f"{there} can't be written by this user; set PIXELDOJO_DATA_DIR")
    free = shutil.disk_usage(there).free
    room = f"{free / 2**30:.1f} GiB free"
    if free < _LITTLE_ROOM:
        return _Check("data directory", False, f"{path}: only {room}")
    made = "" if there == path else ", made on the first start"
    return _Check("data directory", True, f"{path}: writable, {room}{made}")


async def _database(wanted: Settings) -> list[_Check]:
    if not wanted.database_url and not (wanted.data_dir / "pixeldojo.db").exists():
        return [_Check("database", True, "not made yet: the first command or start makes it")]
    kind = wanted.database.partition("://")[0]
    try:
        applied = await opening.migrate(wanted)
        async with opening.open_database_for(wanted) as db:
            wrong = await db.scan(ledger.audit)
    except (errors.DatabaseUnavailable, OSError) as error:
        return [_Check("database", False, f"{kind}: {error}")]
    schema = f"applied now: {', '.join(applied)}" if applied else "up to date"
    found = [_Check("database", True, f"{kind}: reachable, schema {schema}")]
    if wrong:
        account, balance, total = wrong[0]
        text = f"{len(wrong)} accounts disagree with their entries; {account}: "
        text += f"balance {money.to_credits(balance)}, entries {money.to_credits(total)}"
        return [*found, _Check("ledger", False, text)]
    return [*found, _Check("ledger", True, "every balance is the sum of its entries")]


def _storage(wanted: Settings) -> _Check:
    fault = opening.storage_fault(wanted)
    if fault:
        return _Check("storage", False, f"PIXELDOJO_STORAGE_URL: {fault}")
    return _Check("storage", True, "the one of PIXELDOJO_STORAGE_URL" if wanted.storage_url else "the data directory")


def _models(wanted: Settings) -> list[_Check]:
    if wanted.models_dir is not None and not wanted.models_dir.is_dir():
        return [_Check("models", False, f"PIXELDOJO_MODELS_DIR: there is no folder {wanted.models_dir}")]
    try:
        cards = opening.listed_cards(wanted)
    except CardError as error:
        return [_Check("models", False, str(error))]
    found = []
    for card in cards:
        fault = opening.engine_fault(card)
        found.append(_Check(f"model {card.api_id}", fault is None, fault or f"engine {card.engine.family} can run"))
    return found or [_Check("models", False, "no model can run here")]


async def _service(wanted: Settings) -> _Check:
    address = await connect.running_address(wanted)
    text = f"runs at {address}" if address else "none runs on this data directory; `pixeldojo serve` starts one"
    return _Check("service", True, text)


async def _examine(wanted: Settings) -> list[_Check]:
    return [_data_dir(wanted), *await _database(wanted), _storage(wanted), *_models(wanted), await _service(wanted)]


def _versions() -> dict[str, str]:
    found = {"pixeldojo": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _effective(wanted: Settings) -> list[tuple[str, str, str]]:
    told = settings.client()
    return [
        *settings.describe(wanted),
        ("PIXELDOJO_BASE_URL", told.base_url, "for clients: the address of a service"),
        ("PIXELDOJO_API_KEY", "••••" if told.api_key else "", "for clients: the API key"),
    ]


def doctor(*, json: show.Json = False) -> Exit:
    """Check settings, database, models and the running service; exit 1 when something is wrong."""
    wanted = settings.load()
    checks = asyncio.run(_examine(wanted))
    ok = all(check.ok for check in checks)
    rows = _effective(wanted)
    if json:
        data: dict[str, Any] = {
            "ok": ok,
            "versions": _versions(),
            "settings": [{"name": name, "value": value, "about": about} for name, value, about in rows],
            "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks],
        }
        show.document(data)
        return Exit.OK if ok else Exit.FAILED
    show.pairs([(name, value) for name, value, _ in rows])
    show.line("")
    show.pairs(list(_versions().items()))
    show.line("")
    show.pairs([(check.name, f"{'ok' if check.ok else 'WRONG'}: {check.detail}") for check in checks])
    return Exit.OK if ok else Exit.FAILED


def migrate(*, json: show.Json = False) -> None:
    """Bring the database's schema up to date. Every command and `serve` do so too."""
    applied = asyncio.run(opening.migrate(settings.load()))
    if json:
        show.document({"applied": applied})
    else:
        show.line(f"Applied {', '.join(applied)}." if applied else "The schema is up to date.")
