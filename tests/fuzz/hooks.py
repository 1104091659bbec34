"""Runs inside schemathesis: keeps the fuzz from sawing off its branch, adds our own checks, and counts.

Loaded by schemathesis with FUZZ_FOLDER in the environment: `facts.json` comes from there, `tally.json` goes there.
"""

import atexit
import json
import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import requests
import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.openapi.checks import RejectedPositiveData

from exact import Exact
from fuzz import rules
from fuzz.site import Facts

Case = schemathesis.Case[Any]

_FOLDER = Path(os.environ["FUZZ_FOLDER"])
_FACTS = Facts(**json.loads((_FOLDER / "facts.json").read_text()))
_NOBODY = "0" * 32
_WAIT = re.compile(r"(wait\s*=\s*)\"?\d+\"?", re.IGNORECASE | re.ASCII)
_HOST = re.compile(r"^(https?://)[\w.-]+(:\d+)?(?=[/?#]|$)", re.IGNORECASE | re.ASCII)
_PROMPT_CHARS = 8  # different ones: `00000000` may stand anywhere

_calls: defaultdict[str, Counter[str]] = defaultdict(Counter)
_prompts: set[str] = set()
_tried: set[str] = set()
_last_key = [f"key_{_NOBODY}"]
_strangers: set[str] = set()
_judges: list[Exact] = []


def _operation_id(case: Case) -> str:
    return str(case.operation.definition.raw["operationId"])


def _positive_at(case: Case, location: ParameterLocation) -> bool:
    return case.meta is not None and not case.meta.is_negative_at(location)


@schemathesis.hook
def after_load_schema(context: schemathesis.HookContext, schema: schemathesis.BaseSchema) -> None:
    """The document is there."""
    _judges.append(Exact(schema.raw_schema))


# --- before a request


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Keep what the run stands on, wait for seconds only, and ask nothing of the world outside."""
    _spare_the_branch(case)
    if _positive_at(case, ParameterLocation.PATH):
        _aim(case)
    seconds = 1 if _operation_id(case) == "run_testcard" else 0  # the others' jobs take their time
    for name, value in (case.headers or {}).items():
        if name.lower() == "prefer" and isinstance(value, str):
            case.headers[name] = _WAIT.sub(rf"\g<1>{seconds}", value)
    if isinstance(case.body, dict):
        _stay_at_home(case.body)


def _spare_the_branch(case: Case) -> None:
    """The run's own key is not revoked or rotated, its account not impoverished, its job not removed."""
    path, operation = case.path_parameters or {}, _operation_id(case)
    if operation in ("revokeKey", "rotateKey") and path.get("keyId") == _FACTS.admin_key_id:
        path["keyId"] = _last_key[0]
    if operation in ("grant", "changeAccount") and path.get("accountId") == _FACTS.admin_account_id:
        path["accountId"] = _FACTS.spare_account_id
    if operation == "deleteJob" and path.get("jobId") == _FACTS.job:
        path["jobId"] = f"job_{_NOBODY}"


def _aim(case: Case) -> None:
    """Signed URLs can't be guessed, and few jobs have a webhook: two of three requests get a real one."""
    path, operation = case.path_parameters, _operation_id(case)
    if not path or len(_tried) % 3 == 2 or (case.meta is not None and case.meta.phase.name.value == "stateful"):
        return
    if operation in ("getWebhook", "replayWebhook"):
        path["jobId"] = _FACTS.job
    elif operation in ("getAsset", "headAsset") and _positive_at(case, ParameterLocation.QUERY):
        url = urlsplit(_FACTS.asset)
        path["jobId"], path["name"] = url.path.split("/")[-2:]
        case.query = {name: values[0] for name, values in parse_qs(url.query).items()}


def _stay_at_home(body: dict[str, Any]) -> None:
    """Hosts become one that can't exist (RFC 6761), and pictures few: the fuzz is of the API, not of the model."""
    for name in ("webhook_url", "image_url"):
        if isinstance(body.get(name), str):
            body[name] = _HOST.sub(r"\g<1>fuzz.invalid\g<2>", body[name])
    for name, least, most in (("steps", 4, 50), ("num_outputs", 1, 4)):
        if type(body.get(name)) is int and least <= body[name] <= most:
            body[name] = least


# --- after it


@schemathesis.hook
def after_call(context: schemathesis.HookContext, case: Case, response: schemathesis.Response) -> None:
    """Count, and remember prompts that must not turn up in the log."""
    _tried.add(case.id)
    declared = response.request.method == case.operation.method.upper()
    _calls[_operation_id(case) if declared else "undeclared"][str(response.status_code)] += 1
    if _operation_id(case) == "createKey" and response.status_code == 201:
        _last_key[0] = json.loads(response.content)["id"]
    prompt = case.body.get("prompt") if isinstance(case.body, dict) else None
    if isinstance(prompt, str) and len(set(prompt)) >= _PROMPT_CHARS and prompt.isprintable():
        _prompts.add(prompt)


@atexit.register
def _tell() -> None:
    (_FOLDER / "tally.json").write_text(json.dumps({"calls": _calls, "prompts": sorted(_prompts)}))


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Failure, case: Case, response: schemathesis.Response
) -> bool:
    """False drops a failure: a refusal by a rule that no schema can say."""
    if not isinstance(failure, RejectedPositiveData) or response.status_code != 400:
        return True
    return not rules.excused(_operation_id(case), json.loads(response.content)["error"])


# --- our own checks


def _as_httpx(response: schemathesis.Response) -> httpx2.Response:
    headers = [(name, value) for name, values in response.headers.items() for value in values]
    sent = response.request
    request = httpx2.Request(str(sent.method), str(sent.url))
    # without the length and coding of the wire, which the content here no longer has
    wire = ("transfer-encoding", "content-encoding")
    kept = [(name, value) for name, value in headers if name.lower() not in wire]
    return httpx2.Response(response.status_code, headers=kept, content=response.content, request=request)


@schemathesis.check
def nothing_undocumented(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: Case) -> None:
    """No header, body member or error code that the document does not mention for this operation and status."""
    if response.request.method != case.operation.method.upper():
        return
    try:
        _judges[0].answer(case.operation.definition.raw, _as_httpx(response))
    except KeyError as error:
        raise AssertionError(f"not documented: {error}") from error
    except ValueError as error:  # a schema's
        raise AssertionError(str(error)[:2000]) from error


@schemathesis.check
def one_envelope(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: Case) -> None:
    """Every error has the one envelope, undeclared methods too: they are `not_found`."""
    ids = response.headers.get("x-request-id", [])
    assert len(ids) == 1, "no request id"
    if response.request.method not in (case.operation.method.upper(), "OPTIONS"):
        assert response.status_code == 404, f"{response.request.method} is not documented, and answered"
    if response.status_code < 400 or response.request.method == "HEAD":
        return
    error = json.loads(response.content)["error"]
    assert error["status"] == response.status_code
    assert error["requestId"] == ids[0]
    assert error["message"].strip()
    assert "details" not in error or error["code"] == "validation_error"


@schemathesis.check
def strangers_find_nothing(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: Case) -> None:
    """What the admin's key just did, another account's key can't do to the same thing, nor a usual key an admin's."""
    operation, url = _operation_id(case), str(response.request.url)
    secured = case.operation.definition.raw.get("security", [{}]) != []
    own = any(name in ("jobId", "keyId") for name in case.path_parameters or {})
    admins = "/api/v1/admin/" in url
    declared = response.request.method == case.operation.method.upper()
    if operation in _strangers or not declared or not secured or not (own or admins):
        return
    if not 200 <= response.status_code < 300:
        return
    _strangers.add(operation)
    request = response.request.copy()
    request.headers["Authorization"] = f"Bearer {_FACTS.ordinary if admins else _FACTS.stranger}"
    with requests.Session() as session:
        answer = session.send(request, timeout=20)
    expected = 401 if admins else 404
    assert answer.status_code == expected, f"answered {answer.status_code}, not {expected}: {answer.text[:500]}"
