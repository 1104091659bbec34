"""The verbs about the account: what it costs, what came and went, its keys, and the secret of its webhooks. No IO."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pixeldojo_sdk import _requests as requests
from pixeldojo_sdk._effects import Operation
from pixeldojo_sdk._requests import Ask, Options, time_text
from pixeldojo_sdk.types import Account, AccountKey, KeyList, Ledger, NewKey, RotatedKey, Usage, WebhookSecrets

Group = Literal["day", "model", "key"]


class AccountOperations:
    """The verbs."""

    options: Options

    def account(self, *, timeout: float | None = None) -> Operation[Account]:
        """The account of the key: its balance and limits."""
        return (yield from requests.fetch(Ask(path="/account", timeout=timeout), self.options, Account))

    def usage(
        self, *, start: datetime | str | None = None, end: datetime | str | None = None,
        group_by: Sequence[Group] | None = None, timeout: float | None = None,
    ) -> Operation[Usage]:  # fmt: skip
        """What the account's jobs cost, by `day` (which is usual), `model` or `key`.

        From `start` to `end`: aware datetimes, texts with their zone, or days such as `2025-01-23`, in UTC; the last
        30 days if absent.
        """
        groups = ",".join(group_by) if group_by else None
        query = {"from": time_text(start), "to": time_text(end), "groupBy": groups}
        return (
            yield from requests.fetch(Ask(path="/account/usage", query=query, timeout=timeout), self.options, Usage)
        )

    def ledger(
        self, *, limit: int | None = None, cursor: str | None = None,
        kind: Literal["grant", "charge", "refund"] | None = None, timeout: float | None = None,
    ) -> Operation[Ledger]:  # fmt: skip
        """A page of what came and went, newest first. `limit` is from 1 to 100, by default 20."""
        ask = Ask(path="/account/ledger", query={"limit": limit, "cursor": cursor, "kind": kind}, timeout=timeout)
        return (yield from requests.fetch(ask, self.options, Ledger))

    def list_keys(
        self, *, limit: int | None = None, cursor: str | None = None, timeout: float | None = None
    ) -> Operation[KeyList]:
        """A page of the account's keys, newest first, without their texts. Needs the scope `account:write`."""
        ask = Ask(path="/account/keys", query={"limit": limit, "cursor": cursor}, timeout=timeout)
        return (yield from requests.fetch(ask, self.options, KeyList))

    def create_key(
        self, name: str, *, scopes: Sequence[str] | None = None, models: Sequence[str] | None = None,
        cap_credits: float | None = None, expires_at: datetime | str | None = None, expires_in: int | None = None,
        rate_limit: str | None = None, timeout: float | None = None,
    ) -> Operation[NewKey]:  # fmt: skip
        """Make a key, which can do no more than the one that asks for it. The only answer that shows its text.

        `cap_credits` is the most it may spend in all; `expires_in` is seconds from now, instead of `expires_at`.
        """
        terms = {
            "name": name, "scopes": scopes and list(scopes), "models": models and list(models),
            "capCredits": cap_credits, "expiresAt": time_text(expires_at), "expiresIn": expires_in,
            "rateLimit": rate_limit,
        }  # fmt: skip
        json = {field: value for field, value in terms.items() if value is not None}
        ask = Ask(method="POST", path="/account/keys", json=json, retry="refused", timeout=timeout)
        return (yield from requests.fetch(ask, self.options, NewKey))

    def rotate_key(
        self, key_id: str, *, grace_seconds: int | None = None, timeout: float | None = None
    ) -> Operation[RotatedKey]:
        """Put a new key in the place of an old one, on the same terms and the same budget.

        The old one goes on working for `grace_seconds`, by default a day.
        """
        path = f"/account/keys/{requests.segment(key_id, 'key_id')}/rotate"
        json = {} if grace_seconds is None else {"graceSeconds": grace_seconds}
        ask = Ask(method="POST", path=path, json=json, retry="refused", timeout=timeout)
        return (yield from requests.fetch(ask, self.options, RotatedKey))

    def revoke_key(self, key_id: str, *, timeout: float | None = None) -> Operation[AccountKey]:
        """Revoke a key: it stops working at once. Any key may revoke itself."""
        ask = Ask(method="DELETE", path=f"/account/keys/{requests.segment(key_id, 'key_id')}", timeout=timeout)
        return (yield from requests.fetch(ask, self.options, AccountKey))

    def webhook_secret(self, *, timeout: float | None = None) -> Operation[WebhookSecrets]:
        """The secret that signs the account's webhooks. Needs the scope `account:write`."""
        ask = Ask(path="/account/webhook-secret", timeout=timeout)
        return (yield from requests.fetch(ask, self.options, WebhookSecrets))

    def rotate_webhook_secret(self, *, timeout: float | None = None) -> Operation[WebhookSecrets]:
        """Make a new secret; the one before it stays valid for a day."""
        ask = Ask(method="POST", path="/account/webhook-secret/rotate", retry="refused", timeout=timeout)
        return (yield from requests.fetch(ask, self.options, WebhookSecrets))
