"""`/api/v1/openapi.json`: the API in OpenAPI 3.1, made from the live catalogue.

The catalogue and the address of the service go in, one document comes out. Each listed model has an operation of
its own with its own request schema. Examples are rendered by the code that renders the real answers.
"""

import functools
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from litestar import Response, get

from pixeldojo import __version__, errors, metrics
from pixeldojo.api import openapi_account as account
from pixeldojo.api import openapi_docs as docs
from pixeldojo.api import openapi_webhooks as hooks
from pixeldojo.api.openapi_parameters import HEADERS, PARAMETERS
from pixeldojo.api.openapi_parts import AGAIN as _AGAIN
from pixeldojo.api.openapi_parts import COUNTED as _COUNTED
from pixeldojo.api.openapi_parts import UNAUTHORIZED as _UNAUTHORIZED
from pixeldojo.api.openapi_parts import USUAL as _USUAL
from pixeldojo.api.openapi_parts import all_headers as _headers
from pixeldojo.api.openapi_parts import answer as _answer
from pixeldojo.api.openapi_parts import body as _body
from pixeldojo.api.openapi_parts import faults as _faults
from pixeldojo.api.openapi_parts import link as _link
from pixeldojo.api.openapi_parts import operation as _operation
from pixeldojo.api.openapi_schemas import SCHEMAS, Schema, ref
from pixeldojo.api.respond import JSON, ApiRequest, base_url, reply
from pixeldojo.assets.files import CONTENT_TYPES
from pixeldojo.assets.signing import Signer
from pixeldojo.catalogue.card import Card
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.house import House
from pixeldojo.jobs.service import Job, Receipt
from pixeldojo.jobs.view import View

_PUBLIC: list[Schema] = []  # as `security`: no key needed

_ABOUT = """Make images and videos with the models of this service, as jobs: submit, poll, download.

1. `GET /api/v1/models` lists the models, with prices; no key is needed.
2. `POST /api/v1/models/{apiId}/run` with `Authorization: Bearer YOUR_API_KEY` charges the job and answers `202` \
with a `statusUrl`.
3. `GET` the `statusUrl` every second or few, until `status` is `completed` or `failed`. Failed jobs are refunded.
4. Download the URLs in `output` or `assets`, without a key, before `expiresAt`.

Every error, at every address, is `{"error": {"code", "message", "status", "requestId"}}`. Ignore fields you don't know.
"""

_TAGS = {
    "models": "What can run here, and what it costs.",
    "image": "Submit a job to an image model: one operation a model.",
    "video": "Submit a job to a video model: one operation a model.",
    "jobs": "Submit, poll and list jobs.",
    **account.TAGS,
    "assets": "Download results.",
    **docs.TAGS,
    "service": "The service itself.",
}

_MADE_MS = 1_737_547_200_000
_DAY_MS = 24 * 3600 * 1000
_JOB = Job(
    id="job_01948de236004f1c0d3e5b7a9c8d6e2f", account_id="", key_id="", model="dojo-mini", modality="image",
    status="pending",
    input='{"prompt": "panda on a green background", "aspect_ratio": "1:1", "num_outputs": 1, "seed": 1}',
    webhook_url=None, cost_milli=100, refunded_milli=0, progress_ppm=0, attempt=0, error_code=None, error_message=None,
    assets=None, engine_ms=None, created_ms=_MADE_MS, started_ms=None, completed_ms=None, expires_ms=_MADE_MS + _DAY_MS,
)  # fmt: skip
_ASSET = {
    "key": f"{_JOB.id}/0.png", "type": "image", "contentType": "image/png", "width": 512, "height": 512,
    "bytes": 204_800, "seed": 1,
}  # fmt: skip
_RUNNING = _JOB._replace(status="processing", started_ms=_MADE_MS + 40)
_ENDED = _RUNNING._replace(completed_ms=_MADE_MS + 900, engine_ms=850, expires_ms=_MADE_MS + 900 + _DAY_MS)
_JOBS = {
    "pending": _JOB,
    "processing": _RUNNING._replace(progress_ppm=500_000),
    "completed": _ENDED._replace(status="completed", assets=msgspec.json.encode([_ASSET]).decode()),
    "failed": _ENDED._replace(
        status="failed", error_code="timeout", refunded_milli=100,
        error_message="The model did not finish within its time limit of 120 s (after 3 attempts)",
    ),
}  # fmt: skip

_MONEY = ("insufficient_credits", "credit_error", "submission_failed")
_NO_MODEL = errors.NotFound("There is no model 'dojo-max'; GET /api/v1/models lists them.")
_RUN_FAULTS = (
    errors.InvalidJSON("The request body is empty: send a JSON object."),
    errors.ValidationError.at("num_outputs", "must be at most 4, not 9"),
    _UNAUTHORIZED,
    errors.InsufficientCredits("Your account has insufficient credits: this job costs 0.1 and you have 0."),
    _NO_MODEL,
    *_USUAL,
    errors.CreditError(),
    errors.SubmissionFailed(headers=_AGAIN),
)


def _uncounted(paths: Schema) -> Schema:
    """Operations that no rate limit counts, without its headers."""
    for item in paths.values():
        for operation in item.values():
            for response in operation["responses"].values():
                response["headers"] = {name: each for name, each in response["headers"].items() if name not in _COUNTED}
    return paths


def _models(catalogue: Catalogue) -> Schema:
    page = detail = schema = None
    for first in catalogue.cards[:1]:
        counts = {f"{kind}Count": int(first.modality == kind) for kind in ("image", "video")}
        page = {"models": [catalogue.view(first)], "total": 1, **counts}
        detail = catalogue.detail(first)
        schema = {"apiId": first.api_id, "schema": catalogue.request_schema(first.api_id)}
    wrong = errors.ValidationError.at("modality", "must be image or video")
    operations = {
        "": _operation(
            "listModels", "models", "List the models", "Only models that can run now. Public: no key needed.",
            {"200": _answer("The models.", "CardList", page,
                            links=_link("getModel", "The first of them.", apiId="/models/0/apiId")),
             **_faults(wrong, *_USUAL)}, "modality", "detailed",
        ),
        "/{apiId}": _operation(
            "getModel", "models", "Get a model",
            "The model's card with its request schema, examples, limits and how the price is computed. Public.",
            {"200": _answer("The model.", "DetailedCard", detail,
                            links=_link("run", "Run it.", apiId="/apiId") | _link("estimate", "Price it.",
                                                                                  apiId="/apiId")),
             **_faults(_NO_MODEL, *_USUAL)}, "apiId",
        ),
        "/{apiId}/schema": _operation(
            "getModelSchema", "models", "Get a model's request schema", "What its run request may contain. Public.",
            {"200": _answer("The schema.", "ModelSchema", schema), **_faults(_NO_MODEL, *_USUAL)}, "apiId",
        ),
    }  # fmt: skip
    return {f"/api/v1/models{path}": {"get": each | {"security": _PUBLIC}} for path, each in operations.items()}


def _jobs(view: View) -> Schema:
    shown = {state: msgspec.json.decode(msgspec.json.encode(view.job(job))) for state, job in _JOBS.items()}
    one = _answer("The job, in the state it is in.", "Job")
    one["content"][JSON]["examples"] = {state: {"value": job} for state, job in shown.items()}
    page = _answer(
        "A page of jobs.", "JobList", {"jobs": [shown["completed"]], "nextCursor": None},
        links=_link("getJob", "The newest of them.", jobId="/jobs/0/jobId")
        | _link("listJobs", "The next page, where there is one.", cursor="/nextCursor"),
    )  # fmt: skip
    missing = errors.NotFound("There is no job 'job_abc123' in your account.")
    gone = errors.Expired("The job expired at 2025-01-23T12:00:00.900Z and its files were removed.")
    wrong = errors.ValidationError.at("limit", "must be a whole number from 1 to 100")
    running = errors.ValidationError.at("jobId", "the job is processing; cancel it first")
    stopped = {"jobId": _JOB.id, "result": "cancelled", "status": "failed"}
    return {
        "/api/v1/jobs": {"get": _operation(
            "listJobs", "jobs", "List your jobs", "The jobs of the key's account, newest first.",
            {"200": page, **_faults(wrong, _UNAUTHORIZED, *_USUAL)},
            "limit", "cursor", "status", "model", "key", "createdAfter", "createdBefore", "metadata.NAME",
            needs="jobs:read",
        )},
        "/api/v1/jobs/{jobId}": {"get": _operation(
            "getJob", "jobs", "Get a job",
            "Poll it every second or few, until `status` is `completed` or `failed`. Another account's job is "
            "`not_found`, as an unknown one.",
            {"200": one, **_faults(_UNAUTHORIZED, missing, gone, *_USUAL)}, "jobId", needs="jobs:read",
        ), "delete": _operation(
            "deleteJob", "jobs", "Remove an ended job's files", "Now, instead of when they expire.",
            {"200": _answer("They are gone.", "Removal", {"jobId": _JOB.id, "deleted": True}),
             **_faults(running, _UNAUTHORIZED, missing, gone, *_USUAL)}, "jobId", needs="jobs:write",
        )},
        "/api/v1/jobs/{jobId}/cancel": {"post": _operation(
            "cancelJob", "jobs", "Cancel a job",
            "A waiting job ends at once, one that is being worked on within about a second. It fails with code "
            "`cancelled`, and is refunded in full.",
            {"200": _answer("What became of it.", "Cancellation", stopped),
             **_faults(_UNAUTHORIZED, missing, gone, *_USUAL)}, "jobId", needs="jobs:write",
        )},
        "/api/v1/jobs/{jobId}/events": {"get": _operation(
            "jobEvents", "jobs", "Follow a job",
            "Server-Sent Events until the job has ended: `status`, `progress`, then `completed` or `failed`, each with "
            "the whole job as its data; between them `preview` where the model shows some.",
            {"200": {"description": "The events. The schema is that of one.",
                     "headers": _headers(("X-Accel-Buffering",)),
                     "content": {"text/event-stream": {"schema": ref("JobEvent")}}},
             **_faults(_UNAUTHORIZED, missing, gone, *_USUAL)}, "jobId", "Last-Event-ID", needs="jobs:read",
        )},
    }  # fmt: skip


def _webhooks() -> Schema:
    bare = errors.NotFound("The job job_abc123 has no webhook: give `webhook_url` when you submit one.")
    gone = errors.Expired("The job expired at 2025-01-23T12:00:00.900Z and its files were removed.")
    early = errors.ValidationError.at("jobId", "the job is pending; its webhook is called when it has ended")
    sent = _answer("The webhook and what was sent to it.", "WebhookInspection", hooks.INSPECTION)
    again = _answer("It will be sent once more.", "Replay", hooks.REPLAY)
    secrets = _answer("The secrets.", "WebhookSecrets", hooks.SECRETS)
    usual = (_UNAUTHORIZED, *_USUAL)
    return {
        "/api/v1/jobs/{jobId}/webhook": {
            "get": _operation(
                "getWebhook", "jobs", "Inspect a job's webhook",
                "How it is set up, and every attempt to deliver its events.",
                {"200": sent, **_faults(bare, gone, *usual)}, "jobId", needs="jobs:read",
            ),
            "post": _operation(
                "replayWebhook", "jobs", "Replay a job's webhook",
                "Sends the event of a completed or failed job once more, at once: the same bytes under the same "
                "`webhook-id`. Where that attempt fails, the usual retries follow.",
                {"202": again, **_faults(early, bare, gone, *usual)}, "jobId", needs="jobs:write",
            ),
        },
        "/api/v1/account/webhook-secret": {"get": _operation(
            "getWebhookSecret", "account", "Get the webhook secret",
            "The secret that signs the account's webhooks after the Standard Webhooks specification. It is made when "
            "it is first asked for, or used. Whoever has it can sign as this service, so a usual key can't read it.",
            {"200": secrets, **_faults(*usual)}, needs="account:write",
        )},
        "/api/v1/account/webhook-secret/rotate": {"post": _operation(
            "rotateWebhookSecret", "account", "Rotate the webhook secret",
            "Makes a new secret. The one before it stays valid for 24 hours, in which webhooks carry a signature by "
            "each; one before that ends at once.",
            {"200": secrets, **_faults(*usual)}, needs="account:write",
        )},
    }  # fmt: skip


def _assets() -> Schema:
    binary: Schema = {kind: {} for kind in dict.fromkeys(CONTENT_TYPES.values())}
    always = ("Accept-Ranges", "Content-Length", "ETag")
    whole: Schema = {"description": "The file.", "headers": _headers(always)}
    part: Schema = {"description": "The part asked for.", "headers": _headers((*always, "Content-Range"))}
    same = {"description": "You have it already.", "headers": _headers(("Accept-Ranges", "ETag"))}
    # 416 is the one status outside the table: HTTP's own word for a range that lies outside the file.
    outside = errors.ValidationError("The file has 204800 bytes.", headers={"Content-Range": "bytes */204800"})
    outside.status = 416
    faults = _faults(
        errors.NotFound("There is no such file, or the URL was changed: use it exactly as the job gives it."),
        errors.Expired("This file has expired and was removed."),
        outside,
        errors.InternalError(),
    )
    parameters = ("jobId", "fileName", "expires", "signature", "Range", "If-Range", "If-None-Match")

    def operation(name: str, summary: str, content: Schema) -> Schema:
        text = "The URLs in a job's `output` and `assets` lead here. They are signed: no key needed, until `expiresAt`."
        answers = {"200": whole | content, "206": part | content, "304": same, **faults}
        return _operation(name, "assets", summary, text, answers, *parameters) | {"security": _PUBLIC}

    return _uncounted(
        {
            "/api/v1/assets/{jobId}/{name}": {
                "get": operation("getAsset", "Download a result", {"content": binary}),
                "head": operation("headAsset", "Ask for a result's size and type", {}),
            }
        }
    )


def _service() -> Schema:
    down = errors.InternalError("The database does not answer.")
    health = _answer("The process lives.", "Health", {"status": "ok", "version": __version__})
    ready = _answer("It can.", "Readiness", {"status": "ready", "models": 1})
    document = {"description": "This document.", "headers": _headers(()), "content": {JSON: {"schema": {
        "type": "object", "description": "An OpenAPI 3.1 document.",
    }}}}  # fmt: skip
    figures = {"description": "The figures.", "headers": _headers(()), "content": {metrics.CONTENT_TYPE: {"schema": {
        "type": "string", "description": "Prometheus's text format, version 0.0.4.",
    }}}}  # fmt: skip
    hidden = errors.NotFound("There is nothing at GET /metrics for this address (PIXELDOJO_METRICS_ALLOW).")
    operations = {
        "/metrics": _operation("metrics", "service", "Figures for Prometheus",
                               "For callers in the networks that the service's settings name, by default the machine "
                               "itself.", {"200": figures, **_faults(hidden, errors.InternalError(headers=_AGAIN))}),
        "/healthz": _operation("healthz", "service", "Does the process live?", "Always 200 while it does.",
                               {"200": health}),
        "/readyz": _operation("readyz", "service", "Can the service do its work?", "200 when the database answers.",
                              {"200": ready, **_faults(down)}),
        "/api/v1/openapi.json": _operation("getOpenapi", "service", "Get this document",
                                           "Made from the live catalogue, so it changes with the models.",
                                           {"200": document, **_faults(*_USUAL)}),
    }  # fmt: skip
    paths = {path: {"get": each | {"security": _PUBLIC}} for path, each in operations.items()}
    return paths | _uncounted({path: paths[path] for path in ("/metrics", "/healthz", "/readyz")})


def _at_home(schema: Any, home: str) -> Any:
    """A copy of a card's schema in which references to itself (`#/$defs/…`) lead to where it lies here."""
    if isinstance(schema, list):
        return [_at_home(each, home) for each in schema]
    if not isinstance(schema, dict):
        return schema
    copied = {name: _at_home(each, home) for name, each in schema.items()}
    if isinstance(target := schema.get("$ref"), str) and target.startswith("#"):
        copied["$ref"] = home + target[1:]
    return copied


def _run_names(cards: Iterable[Card]) -> dict[str, str]:
    """The operation id of each model: `run_` and its id in letters, digits and `_`; a number tells twins apart."""
    names: dict[str, str] = {}
    for card in cards:
        plain = name = "run_" + re.sub(r"[^a-z0-9]", "_", card.api_id)
        number = 2
        while name in names.values():
            name, number = f"{plain}_{number}", number + 1
        names[card.api_id] = name
    return names


def _runs(catalogue: Catalogue) -> tuple[Schema, Schema]:
    """The run operations, and the request schemas they refer to."""
    usual = {"prompt": "A sunset", "aspect_ratio": "1:1"}
    any_model = _operation(
        "run", "jobs", "Submit a job",
        "Submit an async generation job for a specific model. Credit costs vary by model (per image for images, per "
        "second for video). The answer comes at once; poll its `statusUrl`.",
        _RUN_REFS, "apiId", *_RUN_HEADERS, needs="jobs:write",
    )  # fmt: skip
    told = {"apiId": "dojo-mini", "creditCost": 0.1, "creditsRemaining": 99.9, "affordable": True, "queuePosition": 1,
            "etaSeconds": 0.3}  # fmt: skip
    estimate = _operation(
        "estimate", "jobs", "Estimate a run", "Takes the body of a run, checks and prices it, and runs nothing.",
        {"200": _answer("The estimate.", "Estimate", told),
         **_faults(*_ESTIMATE_FAULTS)},
        "apiId", needs="jobs:read",
    )  # fmt: skip
    paths = {
        "/api/v1/models/{apiId}/run": {"post": any_model | _body(ref("RunRequest"), [usual])},
        "/api/v1/models/{apiId}/estimate": {"post": estimate | _body(ref("RunRequest"), [usual])},
    }
    schemas: Schema = {}
    for api_id, name in _run_names(catalogue.cards).items():
        card = catalogue.card(api_id)
        shown = catalogue.detail(card)
        home = f"{api_id}-input"
        schemas[home] = _at_home(catalogue.request_schema(api_id), ref(home)["$ref"])
        schemas[home].pop("$schema", None)
        parts = {"Good for": card.use_cases, "Limits": card.limits, "Price": [shown["pricing"]]}
        lists = [f"{title}:\n" + "\n".join(f"- {line}" for line in lines) for title, lines in parts.items() if lines]
        text = "\n\n".join([card.description, *lists])
        operation = _operation(
            name, card.modality, f"Run {card.name}", text, _RUN_REFS, *_RUN_HEADERS, needs="jobs:write"
        )
        operation |= _body(ref(home), card.examples) | {"x-pixeldojo-price": shown["creditCost"]}
        paths[f"/api/v1/models/{api_id}/run"] = {"post": operation}
    return paths, schemas


_RUN_RESPONSES = {f"Run{status}": response for status, response in _faults(*_RUN_FAULTS).items()}
_RUN_REFS = {name.removeprefix("Run"): ref(name, "responses") for name in ("Run200", "Run202", *_RUN_RESPONSES)}
_ESTIMATE_FAULTS = [fault for fault in _RUN_FAULTS if fault.code not in _MONEY]
_RUN_HEADERS = ("Idempotency-Key", "Prefer", "Cancel-After", "Start-Within")
_RUN_LINKS = {
    name: made
    for operation_id, text in {
        "getJob": "Poll the job.", "jobEvents": "Follow the job.", "cancelJob": "Cancel the job.",
        "deleteJob": "Remove its files, once it has ended.", "getWebhook": "Inspect its webhook.",
        "replayWebhook": "Send its end to the webhook again.",
    }.items()
    for name, made in _link(operation_id, text, jobId="/jobId").items()
}  # fmt: skip


def document(catalogue: Catalogue, *, base_url: str) -> dict[str, Any]:
    """The OpenAPI document of the service at `base_url` (scheme, host and port, no slash at the end)."""
    view = View(signer=Signer("example"), base_url=base_url)
    runs, inputs = _runs(catalogue)
    receipt = view.receipt(Receipt(_JOB, balance_milli=99_900, replayed=False))
    submitted = _answer(
        "The job was charged and queued.", "Receipt", receipt,
        headers=["Idempotent-Replayed", "Preference-Applied"], links=_RUN_LINKS,
    )  # fmt: skip
    ended = _answer(
        "With `Prefer: wait`: the job has ended.", "Job",
        receipt | msgspec.json.decode(msgspec.json.encode(view.job(_JOBS["completed"]))),
        headers=["Idempotent-Replayed", "Preference-Applied"], links=_RUN_LINKS,
    )  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "PixelDojo API",
            "version": __version__,
            "summary": "An agent-first API for image and video generation.",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": base_url, "description": "This service."}],
        "security": [{"key": []}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "webhooks": hooks.calls({state: msgspec.json.encode(view.job(job)) for state, job in _JOBS.items()}),
        "paths": _models(catalogue)
        | runs
        | _jobs(view)
        | _webhooks()
        | account.paths()
        | _assets()
        | docs.paths()
        | _service(),
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, `pd_…`: `Authorization: Bearer YOUR_API_KEY`.",
                }
            },
            "parameters": PARAMETERS | account.PARAMETERS,
            "headers": HEADERS,
            "responses": {"Run200": ended, "Run202": submitted, **_RUN_RESPONSES},
            "schemas": SCHEMAS | hooks.SCHEMAS | account.SCHEMAS | inputs,
        },
    }


@functools.lru_cache(maxsize=8)  # bounded: the address comes from the request's Host header
def _encoded(catalogue: Catalogue, base_url: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(document(catalogue, base_url=base_url)))


@get("/api/v1/openapi.json", sync_to_thread=False)
def get_openapi(request: ApiRequest) -> Response[bytes]:
    """The document, with the address this request came to unless a public one is set."""
    house: House = request.app.state.house
    return reply(_encoded(house.catalogue, base_url(request)))
