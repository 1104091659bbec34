"""What tools take and give, as JSON Schemas whose descriptions are written for agents."""

from typing import Any

Schema = dict[str, Any]

MOST_WAIT_S = 30
_ID = {"type": "string", "minLength": 1, "maxLength": 200}

MODEL: Schema = {**_ID, "description": "A model's apiId, as list_models or search_models gives it."}
MODALITY: Schema = {"type": "string", "enum": ["image", "video"], "description": "Only models that make this."}
JOB_ID: Schema = {**_ID, "description": "The jobId that generate, edit_image, image_to_video or list_jobs gave."}
WAIT: Schema = {
    "type": "number",
    "minimum": 0,
    "maximum": MOST_WAIT_S,
    "description": "How many seconds to wait for the result before the answer is just the job's id.",
}
INPUT: Schema = {
    "type": "object",
    "description": "Further parameters of the model, as its schema names them (model_schema): aspect_ratio, seed, "
    "num_outputs, …; also max_credit_cost (refuse a dearer job), metadata, webhook_url.",
}
PROMPT: Schema = {"type": "string", "description": "What to show. Some models read a few words only: see model_schema."}
IDEMPOTENCY_KEY: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    "pattern": "^[!-~]( *[!-~])*$",
    "description": "A text of your own (ASCII) for this very request, such as a UUID. A call that is repeated with the "
    "same key and arguments within 24 hours gives the same job and is charged once.",
}
IMAGE: Schema = {
    "type": "string",
    "minLength": 1,
    "description": "The picture: an https URL; a jobId (its first result; job_…/1 is the second) or a result's URL; "
    "an id from upload_image; or a data URI (data:image/png;base64,…). PNG, JPEG or WebP.",
}


def takes(required: tuple[str, ...] = (), *, closed: bool = True, **properties: Schema) -> Schema:
    """The schema of a tool's arguments."""
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    if closed:
        schema["additionalProperties"] = False
    return schema


def gives(required: tuple[str, ...], **properties: Schema) -> Schema:
    """The schema of a tool's result. More may be in it."""
    return {"type": "object", "properties": properties, "required": list(required)}


_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_OBJECT: Schema = {"type": "object"}
_TIME: Schema = {"type": ["string", "null"], "description": "RFC 3339, UTC."}

CARD: Schema = gives(
    ("apiId", "name", "modality", "capabilities", "creditCost"),
    apiId={**_TEXT, "description": "The id that the other tools take as `model`."},
    name=_TEXT,
    description=_TEXT,
    modality={"type": "string", "enum": ["image", "video"]},
    capabilities={"type": "array", "items": _TEXT},
    creditCost={**_OBJECT, "description": "The price: `default` is what a job without parameters costs."},
)
MODELS: Schema = gives(
    ("models", "total"),
    models={"type": "array", "items": CARD},
    total={"type": "integer", "description": "How many models there are in `models`."},
    hint={**_TEXT, "description": "What to try when nothing was found."},
)
MODEL_DETAIL: Schema = gives(
    ("apiId", "requestSchema"),
    apiId=_TEXT,
    requestSchema={**_OBJECT, "description": "JSON Schema of the model's parameters."},
    examples={"type": "array", "items": _OBJECT, "description": "Parameters that work."},
    limits={"type": "array", "items": _TEXT, "description": "What the model can't do."},
    pricing={**_TEXT, "description": "How the price is computed."},
)
ESTIMATE: Schema = gives(
    ("creditCost",),
    creditCost={**_NUMBER, "description": "What the job would cost, in credits."},
    creditsRemaining={**_NUMBER, "description": "The credits there are now."},
)
OUTPUT: Schema = gives(
    ("url",),
    url={**_TEXT, "description": "Where to download it, without a key, until the job's expiresAt."},
    type={"type": "string", "enum": ["image", "video"]},
    contentType=_TEXT,
    width={"type": "integer"},
    height={"type": "integer"},
    bytes={"type": "integer"},
    seed={"type": ["integer", "null"]},
    durationSeconds=_NUMBER,
    inline={"type": "boolean", "description": "Whether the picture itself is in this result's content too."},
)
JOB: Schema = gives(
    ("jobId", "status"),
    jobId={**_TEXT, "description": "The id that job_status and cancel_job take."},
    status={"type": "string", "enum": ["pending", "processing", "completed", "failed"]},
    model=_TEXT,
    creditCost={**_NUMBER, "description": "What was charged, in credits."},
    creditsRemaining={**_NUMBER, "description": "The credits left right after the charge."},
    creditsRefunded={**_NUMBER, "description": "What came back because the job failed."},
    replayed={"type": "boolean", "description": "True: an earlier call with this idempotency_key made the job."},
    progress={**_NUMBER, "description": "From 0 to 1, while it is worked on."},
    queuePosition={"type": ["integer", "null"]},
    etaSeconds={"type": ["number", "null"]},
    createdAt=_TIME,
    completedAt=_TIME,
    expiresAt={**_TIME, "description": "From then on the results are gone."},
    expired={"type": "boolean"},
    prompt=_TEXT,
    outputs={"type": "array", "items": OUTPUT},
    error={**_OBJECT, "description": "Why the job failed: code and message."},
    next={**_TEXT, "description": "What to call next."},
)
JOBS: Schema = gives(
    ("jobs", "nextCursor"),
    jobs={"type": "array", "items": JOB},
    nextCursor={"type": ["string", "null"], "description": "Give it as `cursor` for the next page; null: no more."},
)
CANCELLED: Schema = gives(
    ("jobId", "result", "status"),
    jobId=_TEXT,
    result={"type": "string", "enum": ["cancelled", "cancelling", "too_late"]},
    status=_TEXT,
    next=_TEXT,
)
BALANCE: Schema = gives(
    ("credits",),
    credits={**_NUMBER, "description": "What the account has."},
    key={**_OBJECT, "description": "This key: its cap, what it has spent, its models and scopes."},
    limits={**_OBJECT, "description": "Rate limit, jobs at work at once, largest request, seconds results are kept."},
)
UPLOADED: Schema = gives(
    ("uploadId", "width", "height"),
    uploadId={**_TEXT, "description": "Give it as `image` or as a picture parameter of a model."},
    contentType=_TEXT,
    width={"type": "integer"},
    height={"type": "integer"},
    bytes={"type": "integer"},
    next=_TEXT,
)
