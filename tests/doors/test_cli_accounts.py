"""Rotating keys, scopes, usage and limits of accounts on the command line."""

import json
from pathlib import Path

import pytest

from doors.test_cli import Cli


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """A data directory that nothing has used yet."""
    return Cli(tmp_path / "data", tmp_path / "work")


def test_scopes(cli: Cli) -> None:
    made = cli.json_here("keys", "create", "--scopes", "account:read, admin")
    assert made["scopes"] == ["account:read", "admin"]
    assert cli.json_here("keys", "create")["scopes"] == ["jobs:read", "jobs:write", "account:read"]
    for wrong in ("root", "", "jobs:read,root"):
        cli.here("keys", "create", "--scopes", wrong, ends=2)
        assert "must be some of jobs:read" in cli.stderr


def test_rotation(cli: Cli) -> None:
    first = cli.json_here("keys", "create", "--cap", "2", "--models", "testcard")
    second = cli.json_here("keys", "rotate", first["key"], "--grace", "30m")
    assert second["key"] != first["key"]
    assert (second["capCredits"], second["models"], second["budgetId"]) == (2, ["testcard"], first["budgetId"])
    assert (second["replaces"]["id"], second["replaces"]["replacedBy"]) == (first["id"], second["id"])
    assert second["replaces"]["expiresAt"] is not None
    third = cli.here("keys", "rotate", second["id"], "--account", "default", "--grace", "0s").strip()
    assert third.startswith("pd_")
    assert "works until" in cli.stderr
    statuses = [key["status"] for key in cli.json_here("keys", "list")["keys"]]
    assert statuses == ["active", "expired", "active"]
    for key, grace, ends in ((first["id"], "1h", 2), ("key_none", "1h", 3), (third, "8d", 2), (third, "soon", 2)):
        cli.here("keys", "rotate", key, "--grace", grace, ends=ends)


def test_usage(cli: Cli) -> None:
    assert cli.json_here("credits", "usage")["rows"] == []
    cli.here("credits", "grant", "10")
    cli("generate", "bars", "-m", "testcard", "-o", "a.png")
    told = cli.json_here("credits", "usage", "--days", "1")
    assert (told["account"], told["groupBy"]) == ("default", ["day", "model"])
    assert [(row["model"], row["jobs"], row["charged"]) for row in told["rows"]] == [("testcard", 1, 1)]
    assert told["total"] == {"jobs": 1, "charged": 1, "refunded": 0, "net": 1}
    lines = cli.here("credits", "usage").splitlines()
    assert lines[0].split("\t") == ["DAY", "MODEL", "JOBS", "CHARGED", "REFUNDED", "NET"]
    assert lines[1].split("\t")[1:] == ["testcard", "1", "1", "0", "1"]
    for days in ("0", "367", "x"):
        cli.here("credits", "usage", "--days", days, ends=2)


def test_limits_of_an_account(cli: Cli) -> None:
    cli.here("accounts", "create", "studio")
    assert cli.json_here("accounts", "set", "studio", "--concurrency", "3")["concurrency"] == 3
    assert "at once: 3." in cli.here("accounts", "set", "studio", "--concurrency", "3")
    found = json.loads(cli.here("accounts", "list", "--json"))["accounts"]
    assert {account["name"]: account["concurrency"] for account in found}["studio"] == 3
    assert cli.json_here("accounts", "set", "studio", "--concurrency", "0")["concurrency"] is None
    for name, most, ends in (("studio", "-1", 2), ("studio", "many", 2), ("nobody", "3", 3)):
        cli.here("accounts", "set", name, "--concurrency", most, ends=ends)
