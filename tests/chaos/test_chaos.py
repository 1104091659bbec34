"""A short storm on each database in every run of the tests; `make chaos` is the long one."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import postgres
from chaos import report
from chaos.run import Plan, chaos


def _survives(home: Path, plan: Plan, *, database_url: str = "") -> dict[str, Any]:
    told = asyncio.run(chaos(home, plan, database_url=database_url))
    assert told["broken"] == [], report.text("a short storm", told)
    assert told["kills"]["in all"] >= plan.kills
    assert told["jobs"]["completed"] > 0
    assert told["webhooks"]["ends told"] > 0
    return told


def test_a_short_storm(tmp_path: Path) -> None:
    told = _survives(tmp_path / "site", Plan(seed=1, kills=10, pace=3, clients=3, jobs=5, own_disk=False))
    assert set(told["kills"]) > {"in all", "engine"}


@pytest.mark.long
def test_a_short_storm_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    postgres.keep_commits(postgres_url)
    told = _survives(tmp_path / "site", Plan(seed=2, kills=12, pace=3, clients=3, jobs=10), database_url=postgres_url)
    assert told["trouble"]["dropped connections"] > 0
