"""The shapes of the API as data: component schemas of the OpenAPI document.

Nothing enters; what leaves are constants. They know no model: the request schemas of models come from the
catalogue and are added in `openapi.py`. Schemas are open to new fields, because clients must ignore what they
don't know.
"""

from typing import Any, get_args

from pixeldojo import errors
from pixeldojo.catalogue.card import Capability

Schema = dict[str, Any]


def ref(name: str, kind: str = "schemas") -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def _object(description: str, optional: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    """An object whose properties are required unless named in `optional`."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "description": description, "required": required, "properties": properties}


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def _list(description: str, items: Schema, **more: Any) -> Schema:
    return {"type": "array", "description": description, "items": items, **more}


def _count(description: str, *, least: int = 0) -> Schema:
    return {"type": "integer", "minimum": least, "description": description}


def _time(description: str, *, absent: bool = False) -> Schema:
    kind: Any = ["string", "null"] if absent else "string"
    return {"type": kind, "format": "date-time", "pattern": "Z$", "description": f"{description} RFC 3339, UTC."}


def _credits(description: str) -> Schema:
    text = f"{description} Credits, with up to three decimals."
    return {"type": "number", "minimum": 0, "description": text}


def _eta(description: str) -> Schema:
    return {"type": ["number", "null"], "minimum": 0, "description": f"{description} Null: not known yet."}


METADATA: Schema = {
    "type": "object",
    "description": "Names and values of your own, as they were submitted.",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
MODALITY = _text("What the model makes.", enum=["image", "video"])
STATUS = _text("The state of the job.", enum=["pending", "processing", "completed", "failed"])
_URL = {"type": "string", "format": "uri"}
_SIGNED = "Signed: fetch it as it stands, without a key, until `expiresAt`."
_UNTIL = "Null until it happens."

_COST = _object(
    "How a job's cost follows from its input. `fixed`: `amount` · `per_image`: `amount` × `num_outputs` · "
    "`per_second`: `amount` × `duration` · `by_resolution`: `amounts[input[parameter]]` × `num_outputs`.",
    ("amounts", "parameter"),
    type=_text("The rule.", enum=["fixed", "per_image", "per_second", "by_resolution"]),
    amount=_credits("The price of one unit; with `by_resolution`, the lowest."),
    default=_credits("The cost of a job that leaves every parameter at its default."),
    amounts={
        "type": "object",
        "additionalProperties": {"type": "number", "minimum": 0},
        "description": "Only with `by_resolution`: credits an image, by the value of `parameter`.",
    },
    parameter=_text("Only with `by_resolution`: the input parameter that decides."),
)

_REQUEST_SCHEMA = {
    "type": "object",
    "description": "The run request's body as JSON Schema, draft 2020-12, with `additionalProperties: false`.",
}

_CARD = {
    "apiId": _text("The model's id, as it stands in paths."),
    "name": _text("The model's name, for people."),
    "description": _text("What it draws, and what it does not."),
    "modality": MODALITY,
    "capabilities": _list("What it can do.", {"type": "string", "enum": list(get_args(Capability))}),
    "creditCost": ref("CreditCost"),
}

_DETAIL = {
    "requestSchema": _REQUEST_SCHEMA,
    "examples": _list("Request bodies that work as they stand.", {"type": "object"}),
    "useCases": _list("What the model is good for.", {"type": "string"}),
    "limits": _list("What the model can't do, or does badly.", {"type": "string"}),
    "pricing": _text("How the price is computed, in a sentence."),
    "license": {
        "type": "object",
        "description": "The licence of the model's weights.",
        "properties": {
            "weights": _text("The licence's name."),
            "notices": _list("What the licences of its sources ask to be said.", {"type": "string"}),
        },
    },
}


_WAITED = {
    "statusUrl": {**_URL, "description": "Only in the answer to a run with `Prefer: wait`: where to find it again."},
    "creditsRemaining": _credits("Only in the answer to a run with `Prefer: wait`: what the account had left."),
}


def _job(state: str, description: str, *, started: bool, **more: Schema) -> Schema:
    ended = state in ("completed", "failed")
    return _object(
        description,
        ("webhook", "metadata", "queuePosition", "etaSeconds", "statusUrl", "creditsRemaining"),
        jobId=_text("The job's id."),
        status=_text("The state of the job.", const=state),
        model=_text("The `apiId` of the model."),
        modality=MODALITY,
        input={
            "type": "object",
            "description": "The parameters the job runs with: the request's, and the defaults and the seed filled in. "
            "Of a picture sent as a data URI only the head is kept.",
        },
        creditCost=_credits("What the job was charged."),
        createdAt=_time("When it was submitted."),
        startedAt=_time(f"When work on it first began. {'' if started else _UNTIL}".strip(), absent=not started),
        completedAt=_time("When it ended.") if ended else {"type": "null", "description": "Null: it has not ended."},
        expiresAt=_time(
            "24 hours after submission at first, and moved to 24 hours after the end when the job ends. From then on "
            "the job answers `410 expired`, its files are gone, and its asset URLs answer 410."
        ),
        webhook=ref("Webhook"),
        metadata=METADATA,
        **(_WAITED if ended else {}),
        **more,
    )


def _output(kind: str) -> Schema:
    return _object(
        f"Where the {kind}s of a completed job are.",
        **{
            f"{kind}s": _list(f"The URL of each {kind}, in order. {_SIGNED}", _URL),
            kind: {**_URL, "description": f"The first of `{kind}s`."},
        },
    )


SCHEMAS: dict[str, Schema] = {
    "CreditCost": _COST,
    "Card": _object("A model, as the list shows it.", ("requestSchema",), **_CARD, requestSchema=_REQUEST_SCHEMA),
    "DetailedCard": _object("A model, with its request schema, examples, limits and price.", **_CARD, **_DETAIL),
    "CardList": _object(
        "The models that can run now.",
        models=_list("The cards, by `apiId`. `requestSchema` is there with `detailed=true`.", ref("Card")),
        total=_count("How many `models` there are."),
        imageCount=_count("How many of them make images."),
        videoCount=_count("How many of them make videos."),
    ),
    "ModelSchema": _object(
        "A model's request schema.",
        apiId=_text("The model's id."),
        schema=_REQUEST_SCHEMA,
    ),
    "RunRequest": {
        "type": "object",
        "description": "What models usually take. Which parameters a model takes, and which values, varies: "
        "`GET /api/v1/models/{apiId}/schema` has the exact schema, and each model listed has its own operation here.",
        "properties": {
            "prompt": _text("The text prompt for generation. Required by nearly every model."),
            "image_url": _text("The input picture of image-conditioned and image-to-video models: a URL or data URI."),
            "aspect_ratio": _text("Width to height; the values vary by model.", examples=["1:1", "16:9"]),
            "duration": {"type": "number", "description": "Video duration in seconds (video models only)."},
            "num_outputs": _count("Number of outputs to generate.", least=1),
            "seed": _count("Random seed for reproducibility; random when absent."),
            "webhook_url": _text("Webhook URL for job completion callbacks; every model accepts it.", format="uri"),
            "webhook_events_filter": _list(
                "What the webhook hears of: the job's end, completed or failed, unless told otherwise.",
                {"type": "string", "enum": ["start", "progress", "completed", "failed"]},
                minItems=1,
                uniqueItems=True,
            ),
        },
    },
    "Receipt": _object(
        "A submitted job: it is charged and queued. Poll `statusUrl` until it is completed or failed.",
        jobId=_text("The job's id."),
        status=STATUS | {"description": "`pending`; for a replayed submit, the state the job is in by now."},
        statusUrl={**_URL, "description": "Where to poll: absolute, and works as it stands (with the key)."},
        creditCost=_credits("What the job was charged."),
        creditsRemaining=_credits("What the account has left."),
        expiresAt=_time("24 hours after submission; moved when the job ends."),
    ),
    "Job": {
        "description": "A job. `status` tells which of the four states it is in: `pending` and `processing` ones are "
        "worth another poll, `completed` and `failed` ones never change again.",
        "oneOf": [ref("PendingJob"), ref("ProcessingJob"), ref("CompletedJob"), ref("FailedJob")],
        "discriminator": {
            "propertyName": "status",
            "mapping": {
                state: ref(f"{state.title()}Job")["$ref"] for state in ("pending", "processing", "completed", "failed")
            },
        },
    },
    "PendingJob": _job(
        "pending",
        "A job that waits for its turn, or for another attempt.",
        started=False,
        queuePosition=_count("Its place among the waiting jobs of its model, 1 being next. Not in lists.", least=1),
        etaSeconds=_eta("Seconds until it has probably ended."),
    ),
    "ProcessingJob": _job(
        "processing",
        "A job that is being worked on.",
        started=True,
        progress={"type": "number", "minimum": 0, "maximum": 1, "description": "How much is done, from 0 to 1."},
    ),
    "CompletedJob": _job(
        "completed",
        "A job whose results can be downloaded.",
        started=True,
        output={
            "description": "Where the results are, in short.",
            "oneOf": [ref("ImageOutput"), ref("VideoOutput")],
        },
        assets=_list("The results, in the same order as in `output`.", ref("Asset")),
        metrics=_object(
            "What the work took.",
            engineSeconds={"type": "number", "minimum": 0, "description": "How long the model itself worked."},
        ),
    ),
    "ExpiredJob": _job(
        "completed",
        "In lists only: a completed job whose results have expired.",
        started=True,
        expired={"const": True, "description": "Its files were removed."},
    ),
    "FailedJob": _job(
        "failed",
        "A job that came to nothing. Its credits are refunded in full.",
        started=False,
        error=ref("JobError"),
        creditsRefunded=_credits("What was given back: the whole cost."),
    ),
    "ImageOutput": _output("image"),
    "VideoOutput": _output("video"),
    "Asset": _object(
        "One file that a job made.",
        ("durationSeconds",),
        url={**_URL, "description": f"Where it is. {_SIGNED}"},
        type=_text("What it is.", enum=["image", "video"]),
        contentType=_text("Its media type.", examples=["image/png", "video/mp4"]),
        width=_count("Its width in pixels.", least=1),
        height=_count("Its height in pixels.", least=1),
        bytes=_count("Its size in bytes.", least=1),
        seed=_count("The seed that makes this one again: that of the job, plus its place in the list."),
        durationSeconds={"type": "number", "minimum": 0, "description": "Only of videos: how long it plays."},
    ),
    "JobEvent": {
        "description": "One event of a job. Its `data` is JSON: the job, or with `preview` a picture of how far it is.",
        "oneOf": [ref("JobMoved"), ref("JobPreview")],
        "discriminator": {
            "propertyName": "event",
            "mapping": {
                **dict.fromkeys(("status", "progress", "completed", "failed"), ref("JobMoved")["$ref"]),
                "preview": ref("JobPreview")["$ref"],
            },
        },
    },
    "JobMoved": _object(
        "The job is in another state, or has come further.",
        ("retry",),
        event=_text(
            "`status`: another state, or the first event · `progress`: further · `completed`, `failed`: the end.",
            enum=["status", "progress", "completed", "failed"],
        ),
        id=_text("Send it as `Last-Event-ID` to go on after it."),
        data=_text("The job.", contentMediaType="application/json", contentSchema=ref("Job")),
        retry=_text("How long to wait before coming back, in milliseconds.", pattern=r"^\d+$"),
    ),
    "JobPreview": _object(
        "A picture of a job that is being worked on, where its model shows some.",
        event=_text("Always `preview`.", const="preview"),
        id=_text("That of the event before it."),
        data=_text(
            "The picture.",
            contentMediaType="application/json",
            contentSchema=_object(
                "A preview.",
                jobId=_text("The job's id."),
                progress={"type": "number", "minimum": 0, "maximum": 1, "description": "How much is done."},
                picture=_text("A data URI.", format="uri"),
            ),
        ),
    ),
    "JobError": _object(
        "Why a job failed.",
        code=_text(
            "A word for programs. New ones may come.",
            examples=["validation_error", "engine_failed", "timeout", "input_unavailable", "worker_lost", "expired"],
        ),
        message=_text("A sentence for people."),
    ),
    "JobList": _object(
        "A page of the caller's jobs, newest first.",
        jobs=_list(
            "The jobs, each as `GET /api/v1/jobs/{jobId}` shows it; those whose files are gone say `expired`.",
            {"oneOf": [ref("Job"), ref("ExpiredJob")]},
        ),
        nextCursor={
            "type": ["string", "null"],
            "description": "Pass it as `cursor` for the next page; null on the last page.",
        },
    ),
    "Estimate": _object(
        "What a run would cost, and how long it would take from now.",
        apiId=_text("The `apiId` of the model."),
        creditCost=_credits("What it would be charged."),
        creditsRemaining=_credits("What the account has now."),
        affordable={"type": "boolean", "description": "Whether the account could pay it."},
        queuePosition=_count("The place it would get among the waiting jobs of its model.", least=1),
        etaSeconds=_eta("Seconds until it would probably have ended."),
    ),
    "Cancellation": _object(
        "What became of the wish to cancel.",
        jobId=_text("The job's id."),
        result=_text(
            "`cancelled`: it has failed with code `cancelled`, and is refunded. `cancelling`: it will within about a "
            "second. `too_late`: it had ended before.",
            enum=["cancelled", "cancelling", "too_late"],
        ),
        status=STATUS,
    ),
    "Removal": _object(
        "The job's files are gone; from now on it answers `410 expired`.",
        jobId=_text("The job's id."),
        deleted={"type": "boolean", "const": True, "description": "They are gone."},
    ),
    "Error": _object(
        "The one envelope of every error, at every address.",
        error=_object(
            "What went wrong.",
            ("details",),
            code=_text("A word for programs.", enum=[each.code for each in errors.TABLE]),
            message=_text("What went wrong and what to do about it, for the person or agent who must act."),
            status={"type": "integer", "minimum": 400, "maximum": 599, "description": "The HTTP status, once more."},
            details=_list("Only of `validation_error`: every fault in the input.", ref("ErrorDetail")),
            requestId=_text("The id in `X-Request-Id`: name it when you ask for help."),
        ),
    ),
    "ErrorDetail": _object(
        "One fault in the input.",
        path=_text("Where: a dotted path such as `prompt`; empty for the whole body."),
        message=_text("What is wrong there."),
    ),
    "Health": _object(
        "The process lives.",
        status=_text("Always `ok`.", const="ok"),
        version=_text("The version of PixelDojo."),
    ),
    "Readiness": _object(
        "The service can do its work.",
        status=_text("Always `ready`; otherwise the answer is an error.", const="ready"),
        models=_count("How many models are listed."),
    ),
}


def _parameter(name: str, place: str, description: str, schema: Schema) -> Schema:
    required = {"required": True} if place == "path" else {}
    return {"name": name, "in": place, **required, "description": description, "schema": schema}
