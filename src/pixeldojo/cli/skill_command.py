"""`skill`: write the agent skill of a service into a folder of skills."""

import asyncio
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from pixeldojo.cli import show
from pixeldojo.cli.connect import connect, shaped
from pixeldojo.cli.outcome import CommandFailed, Exit

BaseUrl = Annotated[
    str | None, Parameter("--base-url", help="Address of a service [PIXELDOJO_BASE_URL]; else the local one.")
]
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,100}")


class _File(msgspec.Struct):
    path: str
    text: str
    executable: bool = False

    @property
    def is_inside(self) -> bool:
        """Whether it stays in the skill's folder, whatever the service says."""
        return all(_PART.fullmatch(part) for part in self.path.split("/"))


class _Skill(msgspec.Struct):
    name: str
    files: list[_File]


async def _fetch(base_url: str | None) -> dict[str, Any]:
    async with connect(base_url=base_url, key=None, needs_key=False) as remote:
        return await remote.call("GET", "/skill")


def skill(folder: Path, /, *, base_url: BaseUrl = None, json: show.Json = False) -> None:
    """Write the agent skill, with the models of the service, into a folder of skills.

    Parameters
    ----------
    folder
        Where skills lie; a folder `pixeldojo` is made in it, or brought up to date.
    """
    found = shaped(asyncio.run(_fetch(base_url)), _Skill)
    if not _PART.fullmatch(found.name) or not all(file.is_inside for file in found.files):
        text = "the service names files outside the skill's folder; nothing was written"
        raise CommandFailed(text, code="bad_answer", ends=Exit.UNREACHABLE)
    home = folder.expanduser() / found.name
    for file in found.files:
        path = home / PurePosixPath(file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding="utf-8", newline="\n")
        path.chmod(0o755 if file.executable else 0o644)
    written = [str(home / file.path) for file in found.files]
    if json:
        show.document({"name": found.name, "files": written})
        return
    for each in written:
        show.line(each)
