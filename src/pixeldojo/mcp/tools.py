"""Every tool: its name, what it says to agents, what it takes and gives, and the function that does it.

`offered` tells which of them there are now, given the models; `perform` checks a call's arguments and makes it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import jsonschema_rs

from pixeldojo.catalogue import checks
from pixeldojo.mcp import asking, making, schemas
from pixeldojo.mcp.backend import Fault, Object
from pixeldojo.mcp.calling import INLINE_BYTES, Call, Result
from pixeldojo.mcp.schemas import Schema, takes

INSTRUCTIONS = """PixelDojo makes images and videos with the models of this service, for credits.
1. search_models or list_models finds a model; model_schema tells its parameters, estimate the price (all free).
2. generate submits a job and waits up to 30 seconds. If the answer has a jobId but no outputs, call job_status with it
   until the status is completed or failed. Do not generate again: the job goes on and is paid for.
3. Results are URLs that work without a key until expiresAt; small pictures are in the answer too.
A job that fails or is cancelled is refunded. Errors tell what to change."""

_EDITS = frozenset(("image-to-image", "inpainting", "upscale"))
_MOVES = frozenset(("image-to-video",))
_CAPABILITIES = ["text-to-image", "text-to-video", *sorted(_EDITS | _MOVES)]


Kind = Literal["reads", "keeps", "makes", "ends"]
# the protocol's annotations; what makes something may fetch pictures from elsewhere and call webhooks
_HINTS: dict[Kind, dict[str, bool]] = {
    "reads": {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False},
    "keeps": {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False},
    "makes": {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False, "openWorldHint": True},
    "ends": {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True, "openWorldHint": False},
}


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. `needs`: it is offered where a model has one of these capabilities; empty: always."""

    name: str
    title: str
    text: str
    run: Callable[[Call], Awaitable[Result]]
    takes: Schema
    gives: Schema
    kind: Kind = "reads"
    needs: frozenset[str] = frozenset()
    validator: jsonschema_rs.Draft202012Validator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "validator", jsonschema_rs.Draft202012Validator(self.takes))

    @property
    def hints(self) -> dict[str, bool]:
        """The protocol's annotations."""
        return _HINTS[self.kind]


_WAITS = (
    "Waits up to 30 seconds, with progress, then answers with the outputs; pictures up to "
    f"{INLINE_BYTES // 2**20} MiB are shown in the answer, and all have a URL. A job that takes longer goes on: the "
    "answer is its jobId for job_status. Costs credits; a failed job is refunded."
)
_MAKING = {"input": schemas.INPUT, "wait_seconds": schemas.WAIT, "idempotency_key": schemas.IDEMPOTENCY_KEY}

_UPLOAD_DATA: Schema = {"type": "string", "description": "The picture in base64, or a data URI: PNG, JPEG or WebP."}
_UPLOAD_LOCAL = takes(
    data=_UPLOAD_DATA, path={"type": "string", "description": "A picture file on this machine, instead of data."}
)


def _upload(*, local: bool) -> Tool:
    return Tool(
        "upload_image", "Upload a picture",
        "Keep a picture for a while, to be used as `image` in edit_image or image_to_video, or as a picture parameter "
        f"in generate. At most {making.MOST_UPLOAD // 2**20} MiB. Needless for pictures that have an https URL or come "
        "from a job: give those directly.",
        making.upload_image, _UPLOAD_LOCAL if local else takes(("data",), data=_UPLOAD_DATA), schemas.UPLOADED,
        "keeps", _EDITS | _MOVES,
    )  # fmt: skip


_TOOLS = (
    Tool(
        "list_models", "List models", "Every model that can run now, with what it does and its price in credits.",
        asking.list_models, takes(modality=schemas.MODALITY), schemas.MODELS,
    ),
    Tool(
        "search_models", "Search models",
        "Models that match words (in id, name, description), a capability, a modality or a top price; the best first.",
        asking.search_models,
        takes(
            query={"type": "string", "maxLength": 200, "description": "Words, such as: fast icon."},
            capability={"type": "string", "enum": _CAPABILITIES, "description": "What the model must be able to do."},
            modality=schemas.MODALITY,
            max_credits={"type": "number", "minimum": 0, "description": "Only models whose usual job costs no more."},
        ),
        schemas.MODELS,
    ),
    Tool(
        "model_schema", "Show a model's parameters",
        "A model's parameters as JSON Schema with ranges and defaults, examples that work, limits, and how the price "
        "is computed. Read it before the first generate with a model.",
        asking.model_schema, takes(("model",), model=schemas.MODEL), schemas.MODEL_DETAIL,
    ),
    Tool(
        "estimate", "Estimate a job",
        "Checks the parameters of a job and tells its price in credits and how long it would take. Makes nothing and "
        "costs nothing.",
        asking.estimate,
        takes(("model",), closed=False, model=schemas.MODEL, prompt=schemas.PROMPT, input=schemas.INPUT),
        schemas.ESTIMATE,
    ),
    Tool(
        "generate", "Generate images or videos", f"Makes an image or a video from a text with a model. {_WAITS}",
        making.generate,
        takes(("model",), closed=False, model=schemas.MODEL, prompt=schemas.PROMPT, **_MAKING), schemas.JOB, "makes",
    ),
    Tool(
        "edit_image", "Edit an image",
        "Makes a new image from an image (image-to-image, inpainting with a mask, upscaling): find models with "
        f"search_models. {_WAITS}",
        making.edit_image,
        takes(
            ("model", "image"), closed=False, model=schemas.MODEL, image=schemas.IMAGE, prompt=schemas.PROMPT,
            mask={**schemas.IMAGE, "description": "For inpainting: the mask, given as `image` is. White is changed."},
            **_MAKING,
        ),
        schemas.JOB, "makes", _EDITS,
    ),
    Tool(
        "image_to_video", "Turn an image into a video",
        f"Makes a video that begins with an image; find models with search_models. {_WAITS}",
        making.edit_image,
        takes(
            ("model", "image"), closed=False, model=schemas.MODEL, image=schemas.IMAGE, prompt=schemas.PROMPT, **_MAKING
        ),
        schemas.JOB, "makes", _MOVES,
    ),
    Tool(
        "job_status", "Show a job",
        "A job's status, progress and outputs, with small pictures shown. wait_seconds waits for its end.",
        asking.job_status, takes(("job_id",), job_id=schemas.JOB_ID, wait_seconds={**schemas.WAIT, "default": 0}),
        schemas.JOB,
    ),
    Tool(
        "list_jobs", "List jobs", "The account's jobs, newest first.", asking.list_jobs,
        takes(
            limit={"type": "integer", "minimum": 1, "maximum": 100, "default": 20, "description": "How many."},
            status={"type": "string", "enum": ["pending", "processing", "completed", "failed"],
                    "description": "Only jobs in this state."},
            model={**schemas.MODEL, "description": "Only this model's jobs."},
            cursor={"type": "string", "description": "The nextCursor of the page before."},
        ),
        schemas.JOBS,
    ),
    Tool(
        "cancel_job", "Cancel a job", "Ends a job that has not ended; its credits are refunded. Its result is lost.",
        asking.cancel_job, takes(("job_id",), job_id=schemas.JOB_ID), schemas.CANCELLED, "ends",
    ),
    Tool(
        "balance", "Show the balance", "The account's credits, and what this API key may do and spend.",
        asking.balance, takes(), schemas.BALANCE,
    ),
)  # fmt: skip
_BY_PLACE = {local: {tool.name: tool for tool in (*_TOOLS, _upload(local=local))} for local in (True, False)}


def every(*, local: bool) -> list[Tool]:
    """Every tool there can be. `local`: over stdio."""
    return list(_BY_PLACE[local].values())


def offered(cards: list[Object], *, local: bool) -> list[Tool]:
    """The tools for which there is a model."""
    able = {capability for card in cards for capability in card.get("capabilities", [])}
    return [tool for tool in every(local=local) if not tool.needs or tool.needs & able]


def known(name: str, *, local: bool) -> bool:
    """Whether there is a tool of that name."""
    return name in _BY_PLACE[local]


async def perform(name: str, call: Call) -> Result:
    """Check the arguments and do it. Raises `Fault`."""
    tool = _BY_PLACE[call.local][name]
    faults = checks.faults(tool.validator, call.arguments, known=list(tool.takes["properties"]))
    if faults:
        said = [(each.path, each.message.replace("the model takes", f"{name} takes")) for each in faults]
        details: list[dict[str, Any]] = [{"path": path, "message": message} for path, message in said]
        text = "; ".join(f"{path}: {message}" if path else message for path, message in said[:5])
        remedy = f"Change the arguments named in details; {name} takes {', '.join(tool.takes['properties']) or 'none'}."
        raise Fault("validation_error", text, remedy=remedy, details=details)
    return await tool.run(call)
