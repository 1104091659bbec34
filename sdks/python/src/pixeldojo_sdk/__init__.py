"""Client of the PixelDojo image and video generation API.

from pixeldojo_sdk import PixelDojoClient

with PixelDojoClient("pd_your_api_key") as pd:
    job = pd.generate("flux-1.1-pro", {"prompt": "A fantasy castle on a cliff at sunset"})
    pd.save_asset(job.assets[0], "castle.png")
"""

from pixeldojo_sdk._version import VERSION as __version__
from pixeldojo_sdk.client import AsyncPixelDojoClient, PixelDojoClient
from pixeldojo_sdk.errors import (
    ApiError,
    ErrorDetail,
    ExpiredError,
    InsufficientCreditsError,
    InvalidJSONError,
    InvalidResponseError,
    JobFailedError,
    NotFoundError,
    PixelDojoError,
    RateLimitError,
    ServerError,
    UnauthorizedError,
    ValidationError,
    WebhookVerificationError,
)
from pixeldojo_sdk.errors import ConnectionError as ConnectionError  # not in __all__: `import *` must not
from pixeldojo_sdk.errors import TimeoutError as TimeoutError  # put them in the place of the built-in ones
from pixeldojo_sdk.types import (
    Account,
    AccountKey,
    AccountLimits,
    Asset,
    Cancellation,
    CreditCost,
    Delivery,
    DeliveryAttempt,
    Estimate,
    Job,
    JobEvent,
    JobFault,
    JobList,
    Model,
    ModelDetail,
    ModelList,
    ModelSchema,
    Output,
    Progress,
    Receipt,
    Record,
    Webhook,
    WebhookReplay,
    WebhookState,
)
from pixeldojo_sdk.webhooks import WebhookEvent, verify_webhook

__all__ = [
    "Account",
    "AccountKey",
    "AccountLimits",
    "ApiError",
    "Asset",
    "AsyncPixelDojoClient",
    "Cancellation",
    "CreditCost",
    "Delivery",
    "DeliveryAttempt",
    "ErrorDetail",
    "Estimate",
    "ExpiredError",
    "InsufficientCreditsError",
    "InvalidJSONError",
    "InvalidResponseError",
    "Job",
    "JobEvent",
    "JobFailedError",
    "JobFault",
    "JobList",
    "Model",
    "ModelDetail",
    "ModelList",
    "ModelSchema",
    "NotFoundError",
    "Output",
    "PixelDojoClient",
    "PixelDojoError",
    "Progress",
    "RateLimitError",
    "Receipt",
    "Record",
    "ServerError",
    "UnauthorizedError",
    "ValidationError",
    "Webhook",
    "WebhookEvent",
    "WebhookReplay",
    "WebhookState",
    "WebhookVerificationError",
    "__version__",
    "verify_webhook",
]
