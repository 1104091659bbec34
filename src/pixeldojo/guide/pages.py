"""Every document of a service as text: `llm.txt`, `llms.txt`, the plugin manifest, the page of a model, `/docs`.

A place goes in, finished text comes out. The words stand in `templates/`; what changes with the service comes from
its catalogue. jinja2 is imported with the first document: most processes never write one.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec

from pixeldojo.catalogue.card import Card
from pixeldojo.catalogue.service import ENVELOPE
from pixeldojo.guide import assets
from pixeldojo.guide.inputs import Input, Priced, as_json, worked
from pixeldojo.guide.inputs import inputs as inputs_of
from pixeldojo.guide.methods import METHODS, ROUTES
from pixeldojo.guide.place import Place
from pixeldojo.guide.remedies import FAULTS
from pixeldojo.guide.samples import Samples, sample_input

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Told:
    """A model as documents tell it. The example, its receipt and the completed job are JSON."""

    card: Card
    pricing: str
    inputs: list[Input]
    worked: list[Priced]
    example: str
    receipt: str
    completed: str


def _indented(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def told(place: Place, card: Card) -> Told:
    """The model with all that follows from its card."""
    receipt, completed = place.answers(card)
    return Told(
        card=card,
        pricing=place.catalogue.detail(card)["pricing"],
        inputs=inputs_of(card),
        worked=worked(card),
        example=as_json(sample_input(card)),
        receipt=_indented(receipt),
        completed=_indented(completed),
    )


def _cell(text: object, *, code: object = False) -> str:
    """`text` for a cell of a Markdown table; `code`: as code, unless there is none."""
    plain = " ".join(str(text).split()).replace("|", "\\|")
    return f"`{plain}`" if code and plain else plain


@functools.cache
def _environment() -> "Environment":
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["cell"] = _cell
    return made


def render(template: str, place: Place, **more: Any) -> str:
    """The template with the place and everything that follows from it filled in."""
    made = {each.name: each for each in Samples(place).every()}
    return (
        _environment()
        .get_template(template)
        .render(
            place=place,
            models=[told(place, card) for card in place.catalogue.cards],
            samples=SimpleNamespace(**{"picture": None, **made}),
            envelope=ENVELOPE,
            errors=FAULTS,
            asset=lambda name: place.root + assets.address(name),
            **more,
        )
    )


def plain(template: str) -> str:
    """A template that is no template: a file as it stands."""
    return (_TEMPLATES / template).read_text(encoding="utf-8")


def llm(place: Place) -> str:
    """`/llm.txt`: all that an agent needs to discover, price, run and collect."""
    return render("llm.txt.j2", place)


def index(place: Place) -> str:
    """`/llms.txt`: the index, in the format of llmstxt.org."""
    return render("llms.txt.j2", place)


def model(place: Place, card: Card) -> str:
    """`/models/{apiId}.md`: one model, in Markdown."""
    return render("model.md.j2", place, model=told(place, card))


def docs(place: Place) -> str:
    """`/docs`: the page for people."""
    return render("docs.html.j2", place, methods=METHODS, routes=ROUTES)


def reference(place: Place) -> str:
    """`/docs/reference`: the OpenAPI document, to be tried out."""
    return render("reference.html.j2", place)


def manifest(place: Place) -> dict[str, Any]:
    """`/.well-known/ai-plugin.json`."""
    names = ", ".join(card.api_id for card in place.catalogue.cards) or "none at the moment"
    return {
        "schema_version": "v1",
        "name_for_human": "PixelDojo",
        "name_for_model": "pixeldojo",
        "description_for_human": "Make images and videos with your own models.",
        "description_for_model": (
            "Make images and videos as asynchronous jobs paid with credits. List the models and their prices, read a "
            "model's input schema, run it, poll the job until it is completed or failed, download the result. "
            f"Models: {names}. Read {place.address}/llm.txt first."
        ),
        "auth": {"type": "user_http", "authorization_type": "bearer"},
        "api": {"type": "openapi", "url": f"{place.api}/openapi.json", "is_user_authenticated": False},
        "logo_url": f"{place.address}/docs/assets/logo.svg",
        "contact_email": place.contact_email,
        "legal_info_url": f"{place.address}/docs#licences",
    }
