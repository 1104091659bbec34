"""The schema's history: `NNNN_name.sql` for both engines, then `NNNN_name.<engine>.sql` where they differ.

Applied in order, each once, in one transaction with the row that says so. A landed file never changes.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from pixeldojo.db import DatabaseUnavailable, Tx

_LOCK = 0x70697865  # any number, as long as every PixelDojo takes the same
_FOLDER = Path(__file__).parent
_TYPES = {"sqlite": {"{bytes}": "BLOB"}, "postgres": {"{bytes}": "BYTEA"}}


def names() -> list[str]:
    """Every migration in order: `0001_house`, …"""
    return sorted(path.stem for path in _FOLDER.glob("*.sql") if "." not in path.stem)


def _statements(name: str, engine: str) -> Iterator[str]:
    for path in (_FOLDER / f"{name}.sql", _FOLDER / f"{name}.{engine}.sql"):
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        for token, kind in _TYPES[engine].items():
            text = text.replace(token, kind)
        if engine == "postgres":  # takes a whole script; its function bodies hold semicolons
            yield text
            continue
        statement = ""
        for line in text.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                yield statement
                statement = ""


def apply(tx: Tx, engine: str, now_ms: int, /) -> list[str]:
    """Apply what is missing; the names applied now. Raises when the database is newer than this program."""
    if engine == "postgres":  # two processes starting together: even CREATE … IF NOT EXISTS would collide
        tx.run("SELECT pg_advisory_xact_lock(?)", _LOCK)
    tx.run("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_ms BIGINT NOT NULL)")
    done = {name for (name,) in tx.all("SELECT name FROM migrations")}
    newer = done - set(names())
    if newer:
        raise DatabaseUnavailable(f"the database was made by a newer PixelDojo ({max(newer)}); upgrade this program")
    missing = [name for name in names() if name not in done]
    for name in missing:
        for statement in _statements(name, engine):
            tx.run(statement)
        tx.run("INSERT INTO migrations (name, applied_ms) VALUES (?, ?)", name, now_ms)
    return missing
