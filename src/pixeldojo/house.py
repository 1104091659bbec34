"""The rooms a door needs, opened once: settings, database, catalogue, files, signer, the counter of calls."""

import asyncio
import weakref
from dataclasses import dataclass, field

from pixeldojo import limits
from pixeldojo.assets.files import Files
from pixeldojo.assets.signing import Signer
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.db import Database
from pixeldojo.jobs.queue import Outlook
from pixeldojo.settings import Settings


class Leaving:
    """Tells those who wait for something that the service is going down and they should end now."""

    def __init__(self) -> None:
        self.now = False
        self._waiting: weakref.WeakSet[asyncio.Event] = weakref.WeakSet()

    def wakes(self, event: asyncio.Event) -> None:
        """Have `event` set when the time comes."""
        self._waiting.add(event)

    def tell(self) -> None:
        """The time has come."""
        self.now = True
        for event in self._waiting:
            event.set()


@dataclass(frozen=True, slots=True)
class House:
    """An open house. `pixeldojo.app.open_house` opens one."""

    settings: Settings
    db: Database
    catalogue: Catalogue
    files: Files
    signer: Signer
    outlook: Outlook
    counter: limits.Counter = field(default_factory=limits.MemoryCounter)
    leaving: Leaving = field(default_factory=Leaving)

    @property
    def sees_every_change(self) -> bool:
        """Whether wake-ups of every change of a job reach this process: on PostgreSQL, or with the worker here."""
        return "worker" in self.settings.roles or not self.settings.database.startswith("sqlite:")
