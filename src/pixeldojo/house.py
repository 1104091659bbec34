"""The rooms a door needs, opened once: settings, database, catalogue, files, signer, the counter of calls."""

from dataclasses import dataclass, field

from pixeldojo import limits
from pixeldojo.assets.files import Files
from pixeldojo.assets.signing import Signer
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.db import Database
from pixeldojo.jobs.queue import Timings
from pixeldojo.settings import Settings


@dataclass(frozen=True, slots=True)
class House:
    """An open house. `pixeldojo.app.open_house` opens one."""

    settings: Settings
    db: Database
    catalogue: Catalogue
    files: Files
    signer: Signer
    timings: Timings
    counter: limits.Counter = field(default_factory=limits.MemoryCounter)

    @property
    def sees_every_change(self) -> bool:
        """Whether wake-ups of every change of a job reach this process: on PostgreSQL, or with the worker here."""
        return "worker" in self.settings.roles or not self.settings.database.startswith("sqlite:")
