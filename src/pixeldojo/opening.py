"""Opens what a short command needs without the service around it: the database and the cards of some settings.

`app.py` builds on it. Nothing heavy is imported here, because `pixeldojo keys create` waits for these imports.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from pixeldojo.catalogue import card as cards
from pixeldojo.db import Database
from pixeldojo.db.open import open_database
from pixeldojo.engines import engine as engines
from pixeldojo.settings import Settings, SettingsError


def listed_cards(settings: Settings) -> list[cards.Card]:
    """The cards that these settings let run."""
    every = cards.read_all(settings.models_dir)
    for c in every:
        if c.engine.enabled_by is not None and not hasattr(settings, c.engine.enabled_by):
            raise cards.CardError(f"{c.api_id}.json: engine: enabledBy: there is no setting {c.engine.enabled_by!r}")
    return [c for c in every if c.engine.enabled_by is None or getattr(settings, c.engine.enabled_by)]


@contextlib.asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Database]:
    if not settings.database_url:
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SettingsError(f"PIXELDOJO_DATA_DIR: can't make {settings.data_dir}: {error.strerror}") from None
    db = await asyncio.to_thread(open_database, settings.database)
    try:
        yield db
    finally:
        await db.close()


@contextlib.asynccontextmanager
async def open_database_for(settings: Settings) -> AsyncIterator[Database]:
    """The database of these settings, migrated, closed at the end."""
    async with _database(settings) as db:
        await db.migrate()
        yield db


async def migrate(settings: Settings) -> list[str]:
    """Bring the database of these settings up to date; the names of the migrations applied now."""
    async with _database(settings) as db:
        return await db.migrate()


def engine_fault(card: cards.Card) -> str | None:
    """Why the card's engine can't be built here, None when it can. Imports its libraries; loads no weights."""
    if card.engine.family not in engines.FAMILIES:
        return f"there is no engine family {card.engine.family!r}"
    try:
        engines.build(card.engine.family, card.engine.options)
    except Exception as error:  # an import may fail in any way, and a wrong option is a TypeError
        return f"{type(error).__name__}: {error}"
    return None


def storage_fault(settings: Settings) -> str | None:
    """Why results can't be kept where `PIXELDOJO_STORAGE_URL` says, None when that can be opened."""
    if not settings.storage_url:
        return None
    from pixeldojo.assets.files import Files  # obstore: only where it is asked for

    try:
        Files(url=settings.storage_url, folder=settings.data_dir)
    except Exception as error:  # the library raises its own errors, and ValueError, and TypeError
        return str(error).partition("\n")[0]
    return None
