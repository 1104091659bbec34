"""A database that goes away in the middle of things: what is not known is not claimed."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from crash.conftest import open_account
from pixeldojo import app
from pixeldojo.accounts import service as accounts
from pixeldojo.db import CommitUnknown, Tx
from pixeldojo.jobs import service as jobs
from pixeldojo.settings import Settings


def _cut(tx: Tx, url: str) -> None:
    """End the transaction's connection, unnoticed until its COMMIT."""
    row = tx.one("SELECT pg_backend_pid()")
    assert row is not None
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [row[0]])


def test_a_submit_whose_commit_was_cut_off_does_not_claim_that_nothing_was_charged(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = jobs.submit

    def cut(tx: Tx, **given: Any) -> Any:
        receipt = submit(tx, **given)
        _cut(tx, postgres_url)
        return receipt

    async def story() -> None:
        settings = Settings(data_dir=tmp_path, database_url=postgres_url, testcard=True)
        async with app.open_house(settings) as house:
            caller = await house.db.write(open_account)
            _, key = await house.db.write(accounts.create_key, account_id=caller.account_id, name="test")
            with pytest.raises(CommitUnknown, match="not known"):
                await house.db.write(_cut, postgres_url)
            monkeypatch.setattr(jobs, "submit", cut)
            door: Any = app.application(house)
            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(door), base_url="http://test") as client:
                headers = {"authorization": f"Bearer {key}"}
                answer = await client.post("/api/v1/models/testcard/run", json={"prompt": "bars"}, headers=headers)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (500, "submission_failed")
            assert "not known" in error["message"]
            assert "nothing was charged" not in error["message"]

    asyncio.run(story())
