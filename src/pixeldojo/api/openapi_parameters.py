"""The parameters and response headers of the API as data: components of the OpenAPI document.

Nothing enters; what leaves are constants.
"""

from pixeldojo.api.openapi_schemas import MODALITY, STATUS, Schema, _parameter

HEADERS: dict[str, Schema] = {
    "X-Request-Id": {
        "description": "The id of this request, on every response.",
        "required": True,
        "schema": {"type": "string", "examples": ["req_0f1e2d3c4b5a69788796"]},
    },
    "X-RateLimit-Limit": {
        "description": "How many requests this key (or address, without a key) may make in a window. The three are "
        "absent where the service or the key has no limit.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "X-RateLimit-Remaining": {
        "description": "How many of them are left in this window.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "X-RateLimit-Reset": {
        "description": "When the window ends and the next one may begin: seconds since 1970.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Idempotent-Replayed": {
        "description": "`true` when an earlier submit with this `Idempotency-Key` made the job: "
        "nothing was charged this time. Absent otherwise.",
        "schema": {"type": "string", "const": "true"},
    },
    "Preference-Applied": {
        "description": "`wait=N` when `Prefer: wait=N` was honoured.",
        "schema": {"type": "string", "examples": ["wait=30"]},
    },
    "X-Accel-Buffering": {
        "description": "Tells a proxy not to hold events back.",
        "schema": {"type": "string", "const": "no"},
    },
    "Retry-After": {
        "description": "How many seconds to wait before the next try.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {
        "description": "How to authenticate.",
        "schema": {"type": "string", "examples": ['Bearer realm="pixeldojo"']},
    },
    "Content-Range": {
        "description": "Which bytes these are, and of how many.",
        "schema": {"type": "string", "examples": ["bytes 0-1023/204800", "bytes */204800"]},
    },
    "Content-Length": {
        "description": "How many bytes the body has (or would have, for HEAD).",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Accept-Ranges": {
        "description": "Parts can be asked for, in bytes.",
        "schema": {"type": "string", "const": "bytes"},
    },
    "ETag": {
        "description": "Names the content. It never changes: a file is written once.",
        "schema": {"type": "string"},
    },
}

_STRING = {"type": "string"}
_DURATION = {"type": "string", "pattern": r"^\d{1,9}(\.\d{1,3})? *(ms|s|m|h)?$"}
_EMPTY = {"allowEmptyValue": True}  # a query parameter without a value counts as absent

PARAMETERS: dict[str, Schema] = {
    "apiId": _parameter("apiId", "path", "The model's id, as `GET /api/v1/models` lists it.", _STRING),
    "jobId": _parameter("jobId", "path", "The job's id, as the submit response gives it.", _STRING),
    "fileName": _parameter("name", "path", "The file's name, as the asset's URL gives it.", _STRING),
    "modality": _parameter("modality", "query", "Only models of this modality.", MODALITY),
    "detailed": _parameter(
        "detailed", "query", "Add each model's `requestSchema`.", {"type": "boolean", "default": False}
    )
    | _EMPTY,
    "limit": _parameter(
        "limit", "query", "How many jobs a page has.", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    ),
    "cursor": _parameter("cursor", "query", "The `nextCursor` of the page before.", _STRING) | _EMPTY,
    "status": _parameter("status", "query", "Only jobs in this state.", STATUS) | _EMPTY,
    "model": _parameter("model", "query", "Only jobs of the model with this `apiId`.", _STRING) | _EMPTY,
    "key": _parameter("key", "query", "Only jobs submitted with the key of this id.", _STRING) | _EMPTY,
    "createdAfter": _parameter(
        "createdAfter", "query", "Only jobs submitted at this time or later.", {"type": "string", "format": "date-time"}
    )
    | _EMPTY,
    "createdBefore": _parameter(
        "createdBefore", "query", "Only jobs submitted before this time.", {"type": "string", "format": "date-time"}
    )
    | _EMPTY,
    "metadata.NAME": _parameter(
        "metadata.NAME",
        "query",
        "Only jobs whose metadata has this value under NAME; may be given for several.",
        _STRING,
    ),
    "Prefer": _parameter(
        "Prefer",
        "header",
        "`wait=N`: answer when the job has ended (`200` with the whole job), or after N seconds, 60 at most (`202`).",
        {"type": "string", "examples": ["wait=30"]},
    ),
    "Cancel-After": _parameter(
        "Cancel-After",
        "header",
        "Cancel the job when it has not ended by then: seconds, or with a unit (`1500ms`, `90s`, `5m`, `1h`); at most "
        "seven days.",
        _DURATION | {"examples": ["90s"]},
    ),
    "Start-Within": _parameter(
        "Start-Within",
        "header",
        "Fail the job when it has not been begun by then; written as `Cancel-After` is.",
        _DURATION | {"examples": ["5m"]},
    ),
    "Last-Event-ID": _parameter(
        "Last-Event-ID", "header", "The id of the last event you have had: it is not told again.", _STRING
    ),
    "expires": _parameter("expires", "query", "Until when the URL works: epoch seconds, signed.", _STRING)
    | {"required": True},
    "signature": _parameter("signature", "query", "The signature of the path and `expires`.", _STRING)
    | {"required": True},
    "Idempotency-Key": _parameter(
        "Idempotency-Key",
        "header",
        "Any text of your own, new for each new job. The same key with the same request within 24 hours gives the "
        "same job and charges nothing; with another request it is a `validation_error`.",
        {"type": "string", "minLength": 1, "maxLength": 255},
    ),
    "Range": _parameter(
        "Range",
        "header",
        "One range of bytes, such as `bytes=0-1023` or `bytes=-500`. Several ranges get the whole file.",
        _STRING,
    ),
    "If-Range": _parameter("If-Range", "header", "Honour `Range` only if the `ETag` is this one.", _STRING),
    "If-None-Match": _parameter("If-None-Match", "header", "An `ETag`: answer 304 if it still is this one.", _STRING),
}
