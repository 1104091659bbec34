"""The operations of `/account` and `/admin` in the OpenAPI document, with their shapes. Constants in, paths out.

Examples are rendered by the code that renders the real answers.
"""

from typing import Any

from pixeldojo import errors, money
from pixeldojo.accounts import service as accounts
from pixeldojo.accounts import view as accounts_view
from pixeldojo.api.openapi_parts import UNAUTHORIZED, USUAL, answer, body, faults, link, operation
from pixeldojo.api.openapi_schemas import Schema, _count, _credits, _list, _object, _parameter, _text, _time, ref
from pixeldojo.ledger import service as ledger
from pixeldojo.ledger import view as ledger_view

TAGS = {
    "account": "The account of the key: balance, usage, ledger, keys.",
    "admin": "Every account, for whoever runs the service. The key needs the scope `admin`.",
}

_KEY_TEXT = "pd_EXAMPLEexampleEXAMPLEexample1234"
_MADE_MS = 1_737_547_200_000
_ACCOUNT = accounts.Account("acct_01948de236004f1c0d3e5b7a9c8d6e2f", "studio", 98_500, _MADE_MS, 4)
_KEY = accounts.Key(
    id="key_01948de236004f1c0d3e5b7a9c8d6e2f", account_id=_ACCOUNT.id, name="ci", prefix=_KEY_TEXT[:11],
    models='["dojo-mini"]', cap_milli=50_000, spent_milli=1_500, created_ms=_MADE_MS, expires_ms=None, revoked_ms=None,
    rate_limit=None, scopes='["jobs:read","jobs:write"]', budget_id="bud_01948de236004f1c0d3e5b7a9c8d6e2f",
)  # fmt: skip
_NEXT = _KEY._replace(id="key_01948de5e3801f1c0d3e5b7a9c8d6e2f", created_ms=_MADE_MS + 240_000)
_OLD = _KEY._replace(expires_ms=_MADE_MS + 86_640_000, replaced_by=_NEXT.id)
_ENTRY = ledger.Entry(
    "ent_01948de236004f1c0d3e5b7a9c8d6e2f", _ACCOUNT.id, "charge", -100, 98_500,
    "job_01948de236004f1c0d3e5b7a9c8d6e2f", _KEY.id, "dojo-mini", "", _MADE_MS,
)  # fmt: skip
_GRANT = _ENTRY._replace(kind="grant", amount_milli=100_000, job_id=None, key_id=None, model=None, note="January")
_USAGE = ledger.Usage(20_110, "dojo-mini", None, 15, 1_500, 100)


_MOST_CREDITS = money.MOST_MILLI // 1000


def _or_null(schema: Schema) -> Schema:
    """For requests, where null says the same as leaving a member out."""
    return schema | {"type": [schema["type"], "null"]}


def _closed(description: str, optional: tuple[str, ...], /, **properties: Schema) -> Schema:
    return _object(description, optional, **properties) | {"additionalProperties": False}


_SCOPES: Schema = {"type": "string", "enum": list(accounts.SCOPES)}
_MAYBE_TEXT = {"type": ["string", "null"]}
_MAYBE_CREDITS = {"type": ["number", "null"], "minimum": 0}
_NEXT_CURSOR = _MAYBE_TEXT | {"description": "Pass it as `cursor` for the next page; null on the last page."}
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 100, "pattern": r"\S"}
_CONCURRENCY: Schema = {"type": "integer", "minimum": 1, "maximum": 1_000_000}

_KEY_FIELDS: dict[str, Schema] = {
    "id": _text("The key's id, as it stands in paths."),
    "prefix": _text("How its text begins: enough to tell keys apart."),
    "name": _text("What it is for."),
    "status": _text("Whether it works.", enum=["active", "expired", "revoked"]),
    "scopes": _list("What it may do.", _SCOPES),
    "models": {
        "type": ["array", "null"],
        "items": {"type": "string"},
        "description": "The models it may run; null: any.",
    },
    "budgetId": _text("Keys with the same budget share `capCredits` and `spentCredits`."),
    "capCredits": _MAYBE_CREDITS | {"description": "The most it may spend in all, refunds given back; null: no cap."},
    "spentCredits": _credits("What was spent from its budget."),
    "rateLimit": _MAYBE_TEXT | {"description": "A rate limit of its own, `off` for none; null: the service's."},
    "createdAt": _time("When it was made."),
    "expiresAt": _time("When it stops working; null: never.", absent=True),
    "revokedAt": _time("When it was revoked; null: it was not.", absent=True),
    "replacedBy": _MAYBE_TEXT | {"description": "The id of the key that a rotation put in its place; null: none."},
}
_SECRET = {"key": _text("The key itself: `Authorization: Bearer …`. This answer is the only one that shows it.")}
_ACCOUNT_FIELDS: dict[str, Schema] = {
    "id": _text("The account's id."),
    "name": _text("The account's name."),
    "credits": _credits("What it holds."),
}
_BOUND = {
    "type": ["integer", "null"], "minimum": 1,
    "description": "How many of its jobs may be worked on at once, where it has a bound of its own; null: it has none.",
}  # fmt: skip
_SUMS: dict[str, Schema] = {
    "jobs": _count("How many jobs were charged."),
    "charged": _credits("What they were charged."),
    "refunded": _credits("What was given back, whenever the job was charged."),
    "net": {"type": "number", "description": "`charged` less `refunded`; negative where more came back. Credits."},
}

SCHEMAS: dict[str, Schema] = {
    "Key": _object("An API key, without its text.", **_KEY_FIELDS),
    "NewKey": _object("A key that was just made.", **_SECRET, **_KEY_FIELDS),
    "RotatedKey": _object(
        "A key that was just put in the place of another.", **_SECRET, **_KEY_FIELDS, replaces=ref("Key")
    ),
    "KeyList": _object(
        "Keys, newest first, revoked ones too.", keys=_list("The keys.", ref("Key")), nextCursor=_NEXT_CURSOR
    ),
    "KeyRequest": _closed(
        "What a new key shall be. Null says the same as leaving a member out.",
        ("scopes", "models", "capCredits", "expiresAt", "expiresIn", "rateLimit"),
        name=_NAME | {"description": "What it is for."},
        scopes=_or_null(_list("What it may do; `jobs:read`, `jobs:write` and `account:read` when absent.", _SCOPES,
                              minItems=1, maxItems=100)),
        models=_or_null(_list("The models it may run; all when absent.", {"type": "string"}, minItems=1, maxItems=100)),
        capCredits=_MAYBE_CREDITS | {
            "maximum": _MOST_CREDITS, "description": "The most it may spend in all, with up to three decimals.",
        },
        expiresAt={
            "description": "When it stops working: a time or a date, in the future.",
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"},
                      {"type": "null"}],
            "examples": ["2030-01-31T12:00:00Z"],
        },
        expiresIn=_or_null(_count("The same in seconds from now; not together with it.", least=1)
                           | {"maximum": accounts.MOST_LIFE_S}),
        rateLimit=_or_null(_text("A rate limit of its own.", examples=["600/minute", "off"],
                                 pattern=r"^ *(\d{1,9} */ *(second|minute|hour|day)s?|0|off|none) *$")),
    ),
    "RotateRequest": _closed(
        "How to rotate.", ("graceSeconds",),
        graceSeconds=_or_null(_count("How long the old key goes on working; a day when absent.")
                              | {"maximum": accounts.MOST_GRACE_S}),
    ),
    "OwnAccount": _object(
        "The account of the key that asks, the key, and what limits both.",
        **_ACCOUNT_FIELDS, createdAt=_time("When it was made."), key=ref("Key"),
        limits=_object(
            "What limits this account and key.",
            rateLimit=_text("How many requests the key may make: `60/minute`, or `off`."),
            concurrency=_BOUND | {"description": "How many jobs may be worked on at once; null: any number."},
            maxBodyBytes=_count("The largest request body."),
            retentionSeconds=_count("How long results are kept after a job ends."),
        ),
    ),
    "Account": _object(
        "An account.", **_ACCOUNT_FIELDS, concurrency=_BOUND, createdAt=_time("When it was made.")
    ),
    "AccountList": _object(
        "Accounts, newest first.", accounts=_list("The accounts.", ref("Account")), nextCursor=_NEXT_CURSOR
    ),
    "AccountRequest": _closed(
        "A new account.", ("concurrency",),
        name=_NAME | {"description": "A name that no other account has."},
        concurrency=_or_null(_CONCURRENCY) | {"description": "How many of its jobs may be worked on at once."},
    ),
    "AccountChange": _closed(
        "What to change; what is absent stays.", ("name", "concurrency"),
        name=_or_null(_NAME) | {"description": "A name that no other account has."},
        concurrency=_or_null(_CONCURRENCY) | {"description": "A bound of its own; null: the service's."},
    ),
    "GrantRequest": _closed(
        "Credits to give or take back.", ("note",),
        credits={
            "type": "number", "minimum": -_MOST_CREDITS, "maximum": _MOST_CREDITS, "not": {"const": 0},
            "description": "How many, with up to three decimals; negative takes them back.",
        },
        note=_or_null(_text("What for: kept in the ledger.", maxLength=500)),
    ),
    "Entry": _object(
        "One line of the ledger.",
        id=_text("The entry's id."),
        kind=_text("Why.", enum=list(ledger.KINDS)),
        amount={"type": "number", "description": "What came (positive) or went (negative). Credits."},
        credits=_credits("What the account held after it."),
        jobId=_MAYBE_TEXT | {"description": "The job that was charged or refunded; null for grants."},
        keyId=_MAYBE_TEXT | {"description": "The key it was submitted with; null for grants."},
        model=_MAYBE_TEXT | {"description": "The model it runs; null for grants."},
        note=_text("What a grant was for."),
        createdAt=_time("When."),
    ),
    "EntryList": _object(
        "Entries, newest first.", entries=_list("The entries.", ref("Entry")), nextCursor=_NEXT_CURSOR
    ),
    "UsageSums": _object("Sums over all of it.", **_SUMS),
    "Usage": _object(
        "What jobs cost. Charges and refunds count on the day they were made, so the sums are the ledger's.",
        **{"from": _time("From then on."), "to": _time("Before then.")},
        groupBy=_list("What the rows are by.", {"type": "string", "enum": list(ledger.GROUPS)}),
        rows=_list("One for each combination that occurs, in order.", _object(
            "One row.", ("day", "model", "keyId"),
            day=_text("With `day`: the UTC day.", format="date"),
            model=_text("With `model`: the model."),
            keyId=_text("With `key`: the key the jobs were submitted with."),
            **_SUMS,
        )),
        total=ref("UsageSums"),
    ),
}  # fmt: skip

_LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": 100}
_KIND: Schema = {"type": "string", "enum": list(ledger.KINDS)}
_WHEN: Schema = {
    "type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}],
    "examples": ["2025-01-23", "2025-01-23T12:00:00Z"],
}  # fmt: skip
_EMPTY = {"allowEmptyValue": True}  # a query parameter without a value counts as absent

PARAMETERS: dict[str, Schema] = {
    "pageLimit": _parameter("limit", "query", "How many a page has.", _LIMIT | {"default": 20}) | _EMPTY,
    "keysLimit": _parameter("limit", "query", "How many a page has.", _LIMIT | {"default": 100}) | _EMPTY,
    "pageCursor": _parameter("cursor", "query", "The `nextCursor` of the page before.", {"type": "string"}) | _EMPTY,
    "entryKind": _parameter("kind", "query", "Only entries of this kind.", _KIND) | _EMPTY,
    "from": _parameter("from", "query", "From this time or day on; by default 30 days. UTC.", _WHEN) | _EMPTY,
    "to": _parameter("to", "query", "Before this time, or to the day's end; by default now. At most 366 days.", _WHEN)
    | _EMPTY,
    "groupBy": _parameter("groupBy", "query", "What the rows are by; commas or repeated.", {
        "type": "array", "items": {"type": "string", "enum": list(ledger.GROUPS)}, "default": ["day"],
    }) | _EMPTY,
    "keyId": _parameter("keyId", "path", "The key's id, as `GET /api/v1/account/keys` lists it.", {"type": "string"}),
    "accountId": _parameter("accountId", "path", "The account's id.", {"type": "string"}),
    "grantKey": _parameter(
        "Idempotency-Key", "header",
        "Any text of your own, new for each new grant. The same key with the same grant to the same account gives the "
        "same entry, at any later time; with another grant it is a `validation_error`.",
        {"type": "string", "minLength": 1, "maxLength": 255},
    ),
}  # fmt: skip

_LACKS = errors.Unauthorized(
    "This API key lacks the scope account:write; it has jobs:read.", headers=UNAUTHORIZED.headers
)
_USUAL = (_LACKS, *USUAL)
_BAD_JSON = errors.InvalidJSON("The request body is empty: send a JSON object.")
_NO_KEY = errors.NotFound("There is no key 'key_abc123' in this account.")
_NO_ACCOUNT = errors.NotFound("There is no account 'acct_abc123'.")
_KEY_BODY = {"name": "ci", "scopes": ["jobs:read", "jobs:write"], "models": ["dojo-mini"], "capCredits": 50}


_FOLLOW = {
    "getAccountById": "Look at it.",
    "changeAccount": "Change it.",
    "grant": "Grant it credits.",
    "createKeyFor": "Make it a key.",
}


def _wrong(path: str, message: str) -> errors.ValidationError:
    return errors.ValidationError.at(path, message)


def _shown(
    text: str,
    schema: str,
    example: Any,
    *expected: errors.PixelDojoError,
    status: str = "200",
    links: Schema | None = None,
) -> Schema:
    """The answers of an operation: the good one, and its errors with the usual ones."""
    return {status: answer(text, schema, example, links=links), **faults(*expected, *_USUAL)}


def _account() -> Schema:
    key = accounts_view.key(_KEY)
    own = {name: each for name, each in accounts_view.account(_ACCOUNT).items() if name != "concurrency"}
    limits = {"rateLimit": "60/minute", "concurrency": 4, "maxBodyBytes": 16_777_216, "retentionSeconds": 86_400}
    usage = ledger_view.usage([_USAGE], from_ms=_MADE_MS, to_ms=_MADE_MS + 86_400_000, group_by=("day", "model"))
    entries = {"entries": [ledger_view.entry(_ENTRY)], "nextCursor": None}
    bad_limit = _wrong("limit", "must be a whole number from 1 to 100")
    return {
        "/api/v1/account": {"get": operation(
            "getAccount", "account", "Get your account",
            "Balance, limits, and the key that asks. Scope `account:read`.",
            _shown("The account.", "OwnAccount", own | {"key": key, "limits": limits}), needs="account:read",
        )},
        "/api/v1/account/usage": {"get": operation(
            "getUsage", "account", "What jobs cost",
            "Jobs, charges and refunds by UTC day, model or key, from the ledger. Scope `account:read`.",
            _shown("The sums.", "Usage", usage, _wrong("groupBy", "must be some of day, model, key")),
            "from", "to", "groupBy", needs="account:read",
        )},
        "/api/v1/account/ledger": {"get": operation(
            "getLedger", "account", "What came and went",
            "Every grant, charge and refund, newest first. Scope `account:read`.",
            _shown("A page of entries.", "EntryList", entries, bad_limit), "pageLimit", "pageCursor", "entryKind",
            needs="account:read",
        )},
    }  # fmt: skip


def _keys() -> Schema:
    key, rotated = accounts_view.key(_KEY), accounts_view.key(_NEXT) | {"replaces": accounts_view.key(_OLD)}
    too_much = _wrong("scopes", "this API key can't give admin; it has account:write")
    rotate = operation(
        "rotateKey", "account", "Rotate a key",
        "A new key on the same terms. The old one works for a grace time, and both spend from the same budget. A key "
        "rotates itself and keys that may do no more than it. Scope `account:write`.",
        _shown("The new key.", "RotatedKey", {"key": _KEY_TEXT} | rotated, _BAD_JSON,
               _wrong("key", "key_abc123 has ended or was just rotated: rotate another key, or make a new one"),
               _NO_KEY, status="201", links=link("revokeKey", "Revoke it.", keyId="/id")),
        "keyId", needs="account:write",
    ) | body(ref("RotateRequest"), [{"graceSeconds": 3600}], required=False)  # fmt: skip
    return {
        "/api/v1/account/keys": {
            "get": operation(
                "listKeys", "account", "List your keys", "Without their texts, newest first. Scope `account:write`.",
                _shown("A page of keys.", "KeyList", {"keys": [key], "nextCursor": None},
                       _wrong("limit", "must be a whole number from 1 to 100")), "keysLimit", "pageCursor",
                needs="account:write",
            ),
            "post": operation(
                "createKey", "account", "Make a key",
                "It can do no more than the key that makes it: scopes, models and expiry, and with a cap it shares the "
                "cap. Its text is shown this once. Scope `account:write`.",
                _shown("The key.", "NewKey", {"key": _KEY_TEXT} | key, _BAD_JSON, too_much, status="201",
                       links=link("rotateKey", "Rotate it.", keyId="/id") | link("revokeKey", "Revoke it.",
                                                                                 keyId="/id")),
                needs="account:write",
            ) | body(ref("KeyRequest"), [_KEY_BODY]),
        },
        "/api/v1/account/keys/{keyId}": {"delete": operation(
            "revokeKey", "account", "Revoke a key",
            "It stops working at once. Every key may revoke itself; others need the scope `account:write`, and for an "
            "admin key `admin`.",
            _shown("The key.", "Key", accounts_view.key(_KEY._replace(revoked_ms=_MADE_MS + 1000)), _NO_KEY), "keyId",
        )},
        "/api/v1/account/keys/{keyId}/rotate": {"post": rotate},
    }  # fmt: skip


def _admin() -> Schema:
    account, key = accounts_view.account(_ACCOUNT), accounts_view.key(_KEY)
    taken = _wrong("name", "there is already an account named 'studio'")
    granted = answer("The entry.", "Entry", ledger_view.entry(_GRANT), headers=["Idempotent-Replayed"])
    grant_faults = faults(_BAD_JSON, _wrong("credits", "must not be zero"), _NO_ACCOUNT, *_USUAL)
    one = "/api/v1/admin/accounts/{accountId}"
    follow: Schema = {}
    for operation_id, text in _FOLLOW.items():
        follow |= link(operation_id, text, accountId="/id")
    return {
        "/api/v1/admin/accounts": {
            "get": operation(
                "listAccounts", "admin", "List accounts", "Newest first.",
                _shown("A page of accounts.", "AccountList", {"accounts": [account], "nextCursor": None},
                       _wrong("limit", "must be a whole number from 1 to 100")), "pageLimit", "pageCursor",
                needs="admin",
            ),
            "post": operation(
                "createAccount", "admin", "Make an account", "With no credits and no keys.",
                _shown("The account.", "Account", account, _BAD_JSON, taken, status="201", links=follow),
                needs="admin",
            ) | body(ref("AccountRequest"), [{"name": "studio", "concurrency": 4}]),
        },
        one: {
            "get": operation("getAccountById", "admin", "Get an account", "By its id.",
                             _shown("The account.", "Account", account, _NO_ACCOUNT), "accountId", needs="admin"),
            "patch": operation(
                "changeAccount", "admin", "Change an account", "Its name, or how many jobs may be worked on at once.",
                _shown("The account.", "Account", account, _BAD_JSON, taken, _NO_ACCOUNT), "accountId", needs="admin",
            ) | body(ref("AccountChange"), [{"concurrency": 8}, {"concurrency": None}]),
        },
        f"{one}/grants": {"post": operation(
            "grant", "admin", "Grant credits", "Gives an account credits, or takes some back, at most to zero.",
            {"201": granted, **grant_faults}, "accountId", "grantKey", needs="admin",
        ) | body(ref("GrantRequest"), [{"credits": 100, "note": "January"}])},
        f"{one}/keys": {"post": operation(
            "createKeyFor", "admin", "Make a key for an account", "With any scopes, `admin` too.",
            _shown("The key.", "NewKey", {"key": _KEY_TEXT} | key, _BAD_JSON,
                   _wrong("name", "is required"), _NO_ACCOUNT, status="201"), "accountId", needs="admin",
        ) | body(ref("KeyRequest"), [_KEY_BODY])},
    }  # fmt: skip


def paths() -> Schema:
    """Every operation of `/account` (but for webhooks') and `/admin`."""
    return _account() | _keys() | _admin()
