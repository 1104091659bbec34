"""The agent skill for a service: a folder of instructions, references and a shell client, as texts by path."""

import functools
import shlex
from typing import Any

from pixeldojo.guide import pages
from pixeldojo.guide.inputs import as_json
from pixeldojo.guide.place import Place
from pixeldojo.guide.samples import file_name, sample_input

NAME = "pixeldojo"


class Client:
    """Samples of the skill's shell client; they run in the skill's folder."""

    def __init__(self, place: Place) -> None:
        card = place.starter
        given = sample_input(card)
        prompt = shlex.quote(str(given.pop("prompt", "")))
        rest = " ".join(shlex.quote(f"{name}={_plain(value)}") for name, value in given.items())
        self._job = " ".join(part for part in (card.api_id if card else "MODEL_ID", prompt, rest) if part != "''")
        self._file = file_name(card, sample_input(card))

    @property
    def generate(self) -> str:
        """All in one."""
        return f"sh scripts/pixeldojo.sh generate {self._job} -o {self._file}\n"

    @property
    def steps(self) -> str:
        """Step by step."""
        return (
            f"JOB=$(sh scripts/pixeldojo.sh run {self._job} | jq -r .jobId)\n"
            'sh scripts/pixeldojo.sh status "$JOB"\n'
            f'sh scripts/pixeldojo.sh wait "$JOB" -o {self._file}\n'
        )


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else as_json(value)


@functools.lru_cache(maxsize=8)
def files(place: Place) -> dict[str, str]:
    """Every file of the skill, by its path in the folder."""
    return {
        "SKILL.md": pages.render("skill.md.j2", place, client=Client(place)),
        "references/models.md": pages.render("skill-models.md.j2", place),
        "references/api.md": pages.render("skill-api.md.j2", place),
        "scripts/pixeldojo.sh": pages.plain("pixeldojo.sh").replace("@ADDRESS@", place.address),
    }
