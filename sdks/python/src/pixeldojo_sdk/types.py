"""What the API says, as frozen dataclasses in snake_case.

Every object has `raw`: the JSON object it was made of, with fields that this version does not know yet. A field
without a default is always there; an answer that lacks one is an `InvalidResponseError`.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

JSONObject: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Something the API said."""

    raw: JSONObject = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditCost(Record):
    """How a job's cost follows from its input, in credits.

    `fixed`: `amount` · `per_image`: `amount` × `num_outputs` · `per_second`: `amount` × `duration` ·
    `by_resolution`: `amounts[input[parameter]]` × `num_outputs`.
    """

    type: str
    amount: float
    #: The cost of a job that leaves every parameter at its default.
    default: float | None = None
    amounts: JSONObject | None = None
    parameter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Record):
    """A model, as the list shows it."""

    api_id: str
    name: str
    description: str
    #: `image` or `video`.
    modality: str
    #: Of `text-to-image`, `image-to-image`, `inpainting`, `upscale`, `text-to-video`, `image-to-video`.
    capabilities: tuple[str, ...]
    credit_cost: CreditCost
    #: The JSON Schema of the input (draft 2020-12); in lists only with `detailed=True`.
    request_schema: JSONObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDetail(Model):
    """A model with all that is known about it."""

    #: Inputs that work as they stand.
    examples: tuple[JSONObject, ...] = ()
    use_cases: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    #: How the price is computed, in a sentence.
    pricing: str = ""
    license: JSONObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelList(Record):
    """The models that can run now."""

    models: tuple[Model, ...]
    total: int
    image_count: int = 0
    video_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSchema(Record):
    """What the input of `run` may contain: a JSON Schema, draft 2020-12."""

    api_id: str
    schema: JSONObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt(Record):
    """A submitted job: it is charged and queued."""

    job_id: str
    #: `pending`; later ones where the same idempotency key had submitted it before.
    status: str
    #: Where to poll: absolute, and works as it stands (with the key).
    status_url: str
    credit_cost: float
    credits_remaining: float
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset(Record):
    """One file that a job made."""

    #: Signed: fetch it as it stands, without a key, until the job's `expires_at`.
    url: str
    #: `image` or `video`.
    type: str = ""
    content_type: str = ""
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    #: The seed that makes this one again.
    seed: int | None = None
    #: Only of videos.
    duration_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output(Record):
    """Where the results are, in short. `image` and `video` are the first of `images` and `videos`."""

    images: tuple[str, ...] = ()
    image: str | None = None
    videos: tuple[str, ...] = ()
    video: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFault(Record):
    """Why a job failed."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookState(Record):
    """How far the delivery of a job's webhook is."""

    url: str
    status: str
    #: How many attempts there were.
    attempts: int = 0
    last_attempt_at: datetime | None = None
    last_response_status: int | None = None
    next_attempt_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Record):
    """A job in the state it is in."""

    job_id: str
    #: `pending`, `processing`, `completed` or `failed`.
    status: str
    #: The `api_id` of the model.
    model: str
    modality: str
    #: The parameters the job runs with, defaults and seed filled in.
    input: JSONObject
    credit_cost: float
    created_at: datetime
    expires_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    #: While it is pending: how many jobs come before it, and the seconds until it has probably ended.
    queue_position: int | None = None
    eta_seconds: float | None = None
    #: While it is processing: from 0 to 1.
    progress: float | None = None
    #: Once it is completed.
    output: Output | None = None
    #: Once it is completed: the results, in the same order as in `output`.
    assets: tuple[Asset, ...] = ()
    metrics: JSONObject | None = None
    #: In lists: a completed job whose results have expired and were removed.
    expired: bool = False
    #: Once it has failed.
    error: JobFault | None = None
    credits_refunded: float | None = None
    metadata: JSONObject | None = None
    webhook: WebhookState | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it is completed or failed."""
        return self.status in ("completed", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobList(Record):
    """A page of jobs, newest first."""

    jobs: tuple[Job, ...]
    #: Pass it as `cursor` for the next page; None on the last page.
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt(Record):
    """One attempt to deliver a webhook."""

    number: int
    at: datetime
    duration_ms: int | None = None
    response_status: int | None = None
    error: str | None = None
    #: The beginning of what the receiver answered.
    response: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Record):
    """One webhook message, under the id it is sent with."""

    id: str
    type: str
    status: str
    created_at: datetime
    next_attempt_at: datetime | None = None
    attempts: tuple[DeliveryAttempt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook(WebhookState):
    """A job's webhook with every attempt to deliver it."""

    #: What the webhook hears of, such as `completed`.
    events: tuple[str, ...] = ()
    deliveries: tuple[Delivery, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookReplay(Record):
    """A webhook that is sent once more."""

    job_id: str
    #: The `webhook-id` header it goes out with: the same as before.
    webhook_id: str
    webhook: WebhookState


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation(Record):
    """What became of a cancellation."""

    job_id: str
    #: `cancelled`, `cancelling` (it is being worked on, and ends within moments) or `too_late` (it had ended).
    result: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate(Record):
    """What a job would cost, and how long it would wait."""

    credit_cost: float
    credits_remaining: float | None = None
    #: Whether the account has the credits for it.
    affordable: bool | None = None
    queue_position: int | None = None
    eta_seconds: float | None = None
    api_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountKey(Record):
    """An API key, without its text."""

    id: str
    #: How the key begins.
    prefix: str
    name: str
    scopes: tuple[str, ...] = ()
    #: `active`, `expired` or `revoked`.
    status: str | None = None
    #: The only models it may run; None for all.
    models: tuple[str, ...] | None = None
    #: Keys with the same one share `cap_credits` and `spent_credits`.
    budget_id: str | None = None
    #: The most credits it may spend in all.
    cap_credits: float | None = None
    spent_credits: float | None = None
    #: Its own, such as `600/minute`; None for the service's.
    rate_limit: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    #: The id of the key that took its place.
    replaced_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLimits(Record):
    """What limits the account and its key."""

    #: Such as `60/minute`.
    rate_limit: str | None = None
    #: How many jobs are worked on at once.
    concurrency: int | None = None
    max_body_bytes: int | None = None
    #: How long results are kept.
    retention_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Record):
    """The account of the API key."""

    id: str
    name: str
    #: What there is to spend.
    credits: float
    created_at: datetime
    key: AccountKey
    limits: AccountLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey(AccountKey):
    """A key that was just made: the only time its text is shown."""

    #: The key's text: keep it.
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedKey(NewKey):
    """A key that took the place of another, which works until its `expires_at`."""

    replaces: AccountKey


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyList(Record):
    """A page of keys, newest first; revoked ones too."""

    keys: tuple[AccountKey, ...]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSums(Record):
    """What jobs cost, in credits. `net` is `charged` less `refunded`."""

    jobs: int
    charged: float
    refunded: float
    net: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow(UsageSums):
    """What the jobs of a day, model or key cost, or of several of these together."""

    #: Such as `2025-01-23`, in UTC.
    day: str | None = None
    model: str | None = None
    key_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Record):
    """What an account's jobs cost. The period is in `raw`, as `from` and `to`."""

    group_by: tuple[str, ...]
    rows: tuple[UsageRow, ...]
    total: UsageSums


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry(Record):
    """Credits that came or went."""

    id: str
    #: `grant`, `charge` or `refund`.
    kind: str
    amount: float
    #: What the account held after it.
    credits: float
    created_at: datetime
    job_id: str | None = None
    key_id: str | None = None
    model: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger(Record):
    """A page of what came and went, newest first."""

    entries: tuple[LedgerEntry, ...]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSecret(Record):
    """A secret that signs webhooks."""

    secret: str = field(repr=False)
    created_at: datetime
    #: None for the one that signs from now on.
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSecrets(Record):
    """What signs the account's webhooks. Pass the texts of all of `secrets` while they are rotated."""

    secret: str = field(repr=False)
    secrets: tuple[WebhookSecret, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal(Record):
    """A job whose files were removed."""

    job_id: str
    deleted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent(Record):
    """Something that happened to a job. Kinds that are not known yet come as they are.

    `raw` is `data` where that is an object.
    """

    #: `status`, `progress`, `preview`, `completed` or `failed`.
    type: str
    #: What to pass as `last_event_id` to go on after this event.
    id: str
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is."""

    job_id: str
    status: str
    #: From 0 to 1.
    progress: float = 0.0
    queue_position: int | None = None
    eta_seconds: float | None = None
