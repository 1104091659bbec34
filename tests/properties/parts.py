"""What the tests of jobs share: people with credits and keys, orders, and looks at the tables."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pixeldojo.accounts import service as accounts
from pixeldojo.accounts.service import Caller
from pixeldojo.catalogue.card import Card, read_all
from pixeldojo.catalogue.service import Order
from pixeldojo.db import Row, Tx
from pixeldojo.ledger import service as ledger
from pixeldojo.ledger import store as ledger_store

Run = Callable[[Any], Any]

START_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
LEASE_S = 15.0
RETENTION_S = 24 * 3600
MAX_ATTEMPTS = 3
CARD = next(card for card in read_all(None) if card.api_id == "testcard")


class Clock:
    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms


@dataclass
class Person:
    caller: Caller
    balance: int
    cap: int | None
    spent: int = 0
    used: dict[str, tuple[int, str, int]] = field(default_factory=dict)  # idempotency key → (variant, job, time)


def order_of(
    card: Card, *, cost: int, variant: int, hook: str | None = None, events: list[str] | None = None, priority: int = 0
) -> Order:
    asked = {"prompt": "bars", "variant": variant}
    return Order(card, asked, [], cost, hook, asked, webhook_events=events, priority=priority)


def open_person(tx: Tx, *, milli: int, cap_milli: int | None) -> Person:
    account = accounts.create_account(tx, name=secrets.token_hex(8))
    ledger.grant(tx, account_id=account.id, amount_milli=milli)
    key, _ = accounts.create_key(tx, account_id=account.id, name="test", cap_milli=cap_milli)
    return Person(Caller(account.id, key.id, None), milli, cap_milli)


def rows_of(tx: Tx, model: str) -> list[Row]:
    sql = (
        "SELECT id, status, attempt, ready_ms, lease, lease_until_ms, completed_ms, error_code, swept_ms, progress_ppm,"
        " expires_ms, refunded_milli, assets, started_ms, created_ms, cost_milli, cancel_ms"
        " FROM jobs WHERE model = ? ORDER BY id"
    )
    return tx.all(sql, model)


def money_of(tx: Tx, account_id: str) -> tuple[int, dict[str, int], list[tuple[str, str | None, int]]]:
    entries = ledger_store.entries(tx, account_id, limit=1_000)
    spent = {key.id: key.spent_milli for key in accounts.list_keys(tx, account_id=account_id)}
    found = [(entry.kind, entry.job_id, entry.amount_milli) for entry in entries]
    return ledger.balance(tx, account_id=account_id), spent, found
