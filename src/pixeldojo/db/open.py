"""A database URL in, an open `Database` out."""

from pathlib import Path

from pixeldojo.db import Database, DatabaseUnavailable
from pixeldojo.db.sqlite import SqliteDatabase


def open_database(url: str) -> Database:
    """Open `sqlite:///path` or `postgresql://…`. Raises `DatabaseUnavailable` with the remedy."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return SqliteDatabase(Path(rest if rest.startswith("//") else rest[1:]).absolute())
    if scheme in ("postgresql", "postgres"):
        try:
            from pixeldojo.db.postgres import PostgresDatabase  # psycopg is an extra
        except ImportError as error:
            raise DatabaseUnavailable("PostgreSQL needs the extra: pip install 'pixeldojo[postgres]'") from error
        return PostgresDatabase(url)
    raise DatabaseUnavailable(
        f"{scheme or url!r} is no database URL: use sqlite:///path or postgresql://user@host/name"
    )
