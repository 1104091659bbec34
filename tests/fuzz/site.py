"""The service that is fuzzed: its own process and database, two accounts, keys, a finished job of each.

with site.open_site(folder) as made:
    made.address, made.facts
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx2

from pixeldojo import opening
from pixeldojo.accounts import service as accounts
from pixeldojo.db import Tx
from pixeldojo.ledger import service as ledger
from pixeldojo.settings import Settings

_RICH_MILLI = 10**12
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Facts:
    """What the hooks must know. The admin's key does the fuzzing; its own account and key must survive it."""

    admin: str
    admin_key_id: str
    admin_account_id: str
    ordinary: str  # a usual key of the same account: no admin scope, may not manage keys
    stranger: str  # an admin-less key of another account, with every scope that such a key may have
    spare_account_id: str
    job: str  # ended, with a webhook; must not be removed
    asset: str  # the signed URL of a result, of the stranger's job


@dataclass(frozen=True)
class Site:
    """A running service."""

    address: str
    facts: Facts
    folder: Path
    settings: Settings  # as far as they say where its database is
    process: subprocess.Popen[str]

    def log(self) -> str:
        """All that it has logged."""
        return (self.folder / "service.log").read_text(encoding="utf-8")

    def audit(self) -> list[str]:
        """Accounts whose balance is not the sum of its entries."""

        async def ask() -> list[str]:
            async with opening.open_database_for(self.settings) as db:
                return [str(each) for each in await db.scan(ledger.audit)]

        return asyncio.run(ask())


def _people(tx: Tx) -> dict[str, str]:
    own, other, spare = (accounts.create_account(tx, name=name) for name in ("fuzz", "stranger", "spare"))
    for account in (own, other, spare):
        ledger.grant(tx, account_id=account.id, amount_milli=_RICH_MILLI)
    admin, text = accounts.create_key(tx, account_id=own.id, name="admin", scopes=["admin"])
    every = [scope for scope in accounts.SCOPES if scope != "admin"]
    return {
        "admin": text,
        "admin_key_id": admin.id,
        "admin_account_id": own.id,
        "ordinary": accounts.create_key(tx, account_id=own.id, name="ordinary")[1],
        "stranger": accounts.create_key(tx, account_id=other.id, name="every", scopes=every)[1],
        "spare_account_id": spare.id,
    }


async def _open_accounts(settings: Settings) -> dict[str, str]:
    async with opening.open_database_for(settings) as db:
        made: dict[str, str] = await db.write(_people)
        return made


def _ended(client: httpx2.Client, key: str, **more: str) -> dict[str, object]:
    """A job of the test card that has ended."""
    headers = {"authorization": f"Bearer {key}", "prefer": "wait=30"}
    response = client.post("/models/testcard/run", json={"prompt": "bars", **more}, headers=headers)
    assert response.status_code == 200, response.text
    job: dict[str, object] = response.json()
    return job


@contextlib.contextmanager
def open_site(folder: Path, *, database_url: str = "") -> Iterator[Site]:
    """The service, until the block ends; on SQLite in the folder unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(data_dir=folder / "data", database_url=database_url)
    people = asyncio.run(_open_accounts(settings))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIXELDOJO_")} | {
        "PIXELDOJO_DATA_DIR": str(settings.data_dir),
        "PIXELDOJO_DATABASE_URL": database_url,
        "PIXELDOJO_TESTCARD": "1",
        "PIXELDOJO_RATE_LIMIT": "off",
        "PIXELDOJO_ACCESS_LOG": "1",
        "PIXELDOJO_LOG_FORMAT": "json",
        "PIXELDOJO_WEBHOOK_RETRY_SCHEDULE": "0",
    }
    command = [sys.executable, "-m", "pixeldojo", "serve", "--port", "0", "--json"]
    with (
        (folder / "service.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["address"]
            with httpx2.Client(base_url=f"{address}/api/v1", timeout=_PATIENCE_S) as client:
                job = _ended(client, people["admin"], webhook_url="https://fuzz.invalid/hook")
                output = _ended(client, people["stranger"])["output"]
            assert isinstance(output, dict)
            facts = Facts(**people, job=str(job["jobId"]), asset=output["image"])
            (folder / "facts.json").write_text(json.dumps(asdict(facts)))
            yield Site(address, facts, folder, settings, process)
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    until = time.monotonic() + _PATIENCE_S
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, until - time.monotonic()))
    process.kill()
