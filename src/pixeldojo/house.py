"""The rooms a door needs, opened once: settings, database, catalogue, files, signer."""

from dataclasses import dataclass

from pixeldojo.assets.files import Files
from pixeldojo.assets.signing import Signer
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.db import Database
from pixeldojo.settings import Settings


@dataclass(frozen=True, slots=True)
class House:
    """An open house. `pixeldojo.app.open_house` opens one."""

    settings: Settings
    db: Database
    catalogue: Catalogue
    files: Files
    signer: Signer
