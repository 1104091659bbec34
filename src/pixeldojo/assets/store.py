"""SQL of assets: only the secret that signs their URLs. Which files exist is told by the jobs' rows."""

from pixeldojo.db import Tx


def signing_secret(tx: Tx, *, fresh: str) -> str:
    """The stored secret; `fresh` is stored first when there is none, so that every process signs alike."""
    tx.run("INSERT INTO secrets (name, value) VALUES ('assets', ?) ON CONFLICT (name) DO NOTHING", fresh)
    row = tx.one("SELECT value FROM secrets WHERE name = 'assets'")
    assert row is not None
    return str(row[0])
