"""Who uses the service all the while: submits, submits again what was not answered, polls, cancels, removes, replays.

Each order carries its own name in the job's metadata, so afterwards every row can be traced to the request that made
it, answered or not. A client notes what it was told, and what must never have been told.
"""

import asyncio
import base64
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2

from chaos.site import Site
from pixeldojo.accounts import service as accounts
from pixeldojo.db import Tx
from pixeldojo.db.open import open_database
from pixeldojo.ledger import service as ledger
from pixeldojo.webhooks import service as webhooks

GRANTED_MILLI = (1_000_000_000, 1_000_000_000, 20_000)  # the last account is poor
_TOP_UP = 10  # credits
_PIXEL = base64.b64encode(
    base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")
).decode()
_PROMPTS = {
    "bars": 80, "!slow": 3, "!raise": 2, "!crash": 1, "!kill": 1, "!refuse": 2, "!missing": 1, "!print": 1,
    "!hang": 0.5,
}  # fmt: skip
PATHS = ["/ok"] * 4 + ["/flaky"] * 3 + ["/late", "/hang"]
_ENDED = ("completed", "failed")
_BARE = " without an envelope"


@dataclass(frozen=True)
class Lost:
    """No answer came. `begun`: the request may have been read."""

    begun: bool
    is_success: bool = False
    status_code: int = 0


@dataclass
class Account:
    """Somebody with credits."""

    id: str
    key: str
    admin_key: str
    secrets: tuple[str, ...]
    granted_milli: int


@dataclass
class Order:
    """One submit, and what its client was told about it."""

    name: str
    account: Account
    body: dict[str, Any]
    headers: dict[str, str]
    jobs: list[str] = field(default_factory=list)  # as answered, each time it was asked
    away: int = 0  # requests that found nobody
    lost: int = 0  # requests that were begun and not answered
    refused: int = 0  # the status of the last refusal
    free: bool = False  # whether the last failure said that nothing was charged
    cancelled: str = ""  # the answer to a cancel
    ended: dict[str, Any] | None = None  # what was shown first of its end
    removed: bool = False

    @property
    def keyed(self) -> bool:
        return "idempotency-key" in self.headers


async def open_accounts(site: Site) -> list[Account]:
    """Accounts with credits, keys and webhook secrets."""

    def make(tx: Tx) -> list[Account]:
        found = []
        for number, milli in enumerate(GRANTED_MILLI):
            account = accounts.create_account(tx, name=f"chaos-{number}")
            ledger.grant(tx, account_id=account.id, amount_milli=milli)
            _, key = accounts.create_key(tx, account_id=account.id, name="jobs")
            _, admin_key = accounts.create_key(tx, account_id=account.id, name="admin", scopes=["admin"])
            secrets = tuple(secret for secret, *_ in webhooks.valid_secrets(tx, account_id=account.id))
            found.append(Account(account.id, key, admin_key, secrets, milli))
        return found

    db = open_database(site.database)
    try:
        await db.migrate()
        return await db.write(make)
    finally:
        await db.close()


class Clients:
    """Several clients at work until `stop`."""

    def __init__(self, site: Site, people: list[Account], *, seed: int, hooks: str, pause_s: float = 0.2) -> None:
        self.site, self.people, self.hooks, self.pause_s = site, people, hooks, pause_s
        self.seed = seed
        self.orders: list[Order] = []
        self.answers: Counter[str] = Counter()  # what came back, by request and status
        self.wrong: list[str] = []  # what must never be
        self.grants: dict[str, bool] = {}  # the key of each grant over HTTP, and whether it was confirmed
        self._stopping = asyncio.Event()
        self._http = httpx2.AsyncClient(timeout=5, limits=httpx2.Limits(max_keepalive_connections=4))

    async def run(self, count: int) -> None:
        """Work until `stop`."""
        async with self._http, asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self._client(number))
            group.create_task(self._top_up())

    @property
    def done(self) -> int:
        """How many jobs were seen to have ended."""
        return sum(order.ended is not None for order in self.orders)

    def stop(self) -> None:
        """Let each client end what it is at."""
        self._stopping.set()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _ask(
        self, method: str, path: str, *, what: str, key: str, headers: dict[str, str] | None = None, json: Any = None
    ) -> httpx2.Response | Lost:
        """The answer, or how it was lost."""
        given = {"authorization": f"Bearer {key}"} | (headers or {})
        try:
            answer = await self._http.request(method, self.site.address + path, headers=given, json=json)
        except httpx2.TransportError as error:
            self.answers[f"{what} lost: {type(error).__name__}"] += 1
            return Lost(begun=not isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)))
        text = "" if answer.is_success else f" {_code(answer)}"
        if text == _BARE:
            self.wrong.append(f"{method} {path} was answered with {answer.status_code} and {answer.text[:100]!r}")
        self.answers[f"{what} {answer.status_code}{text}"] += 1
        return answer

    def _order(self, dice: random.Random, name: str) -> Order:
        account = dice.choices(self.people, weights=[4, 4, 1])[0]
        body: dict[str, Any] = {
            "prompt": dice.choices(list(_PROMPTS), weights=list(_PROMPTS.values()))[0],
            "num_outputs": dice.choice((1, 1, 1, 2, 4)), "seed": dice.randint(0, 99),
            "metadata": {"order": name},
        }  # fmt: skip
        if dice.random() < 0.75:
            body["webhook_url"] = self.hooks + dice.choice(PATHS)
            if dice.random() < 0.15:
                body["webhook_events_filter"] = ["start", "progress", "completed", "failed"]
        if dice.random() < 0.15:
            body["image_url"] = f"data:image/png;base64,{_PIXEL}"
        if dice.random() < 0.05:
            body["prompt"] = ""  # refused, whatever happens
        headers = {"idempotency-key": name} if dice.random() < 0.75 else {}
        if dice.random() < 0.05:
            headers["cancel-after"] = "1s"
        if dice.random() < 0.1:
            headers["prefer"] = "wait=1"
        return Order(name, account, body, headers)

    async def _client(self, number: int) -> None:
        dice = random.Random(self.seed * 1000 + number)
        mine: list[Order] = []
        count = 0
        while not self._stopping.is_set():
            count += 1
            order = self._order(dice, f"{self.seed}-{number}-{count}")
            self.orders.append(order)
            mine.append(order)
            await self._submit(order)
            await self._do_something(dice, mine)
            await self._pause(dice.uniform(0, 2 * self.pause_s))

    async def _submit(self, order: Order) -> None:
        """Submit; without an answer, and with a key, again and again."""
        while True:
            answer = await self._ask(
                "POST", "/api/v1/models/testcard/run", what="submit", key=order.account.key, headers=order.headers,
                json=order.body,
            )  # fmt: skip
            if isinstance(answer, Lost):
                order.lost += answer.begun
                order.away += not answer.begun
            elif answer.is_success:
                order.jobs.append(answer.json()["jobId"])
                return
            elif answer.status_code < 500:
                order.refused = answer.status_code
                return
            order.free = isinstance(answer, httpx2.Response) and "nothing was charged" in answer.text
            if not order.keyed or self._stopping.is_set():
                return
            await self._pause(0.15)

    async def _do_something(self, dice: random.Random, mine: list[Order]) -> None:
        """Look at a recent job, or do what else a client may."""
        known = [order for order in mine[-40:] if order.jobs and not order.removed]
        if not known:
            return
        order, luck = dice.choice(known), dice.random()
        if luck < 0.12:
            answer = await self._on(order, "POST", "/cancel", "cancel")
            if isinstance(answer, httpx2.Response) and answer.is_success:
                order.cancelled = order.cancelled or answer.json()["result"]
        elif luck < 0.17:
            if order.keyed:  # a client that forgot that it was answered
                await self._submit(order)
        elif luck < 0.20 and order.ended is not None:
            order.removed = True
            await self._on(order, "DELETE", "", "remove")
        elif luck < 0.25 and order.ended is not None and "webhook_url" in order.body:
            await self._on(order, "POST", "/webhook", "replay")
        else:
            await self._look(order)

    async def _on(self, order: Order, method: str, path: str, what: str) -> httpx2.Response | Lost:
        return await self._ask(method, f"/api/v1/jobs/{order.jobs[0]}{path}", what=what, key=order.account.key)

    async def _look(self, order: Order) -> None:
        """Poll; what was once told of a job's end must stay so."""
        answer = await self._on(order, "GET", "", "poll")
        if answer.status_code == 404:
            self.wrong.append(f"{order.jobs[0]} was accepted and is not found")
        if isinstance(answer, Lost) or not answer.is_success:
            return
        job = answer.json()
        if job["status"] not in _ENDED:
            if order.ended is not None:
                self.wrong.append(f"{order.jobs[0]} was {order.ended['status']} and is {job['status']}")
            return
        told = {name: job.get(name) for name in ("status", "error", "completedAt", "creditsRefunded")}
        if order.ended is None:
            order.ended = told
        elif told != order.ended and not order.removed:
            self.wrong.append(f"{order.jobs[0]} ended as {order.ended} and then as {told}")
        if job["status"] == "completed":
            await self._download(job)

    async def _download(self, job: dict[str, Any]) -> None:
        asset = job["assets"][0]
        url = asset["url"].replace(asset["url"].split("/api/")[0], self.site.address)
        try:
            answer = await self._http.get(url)
        except httpx2.TransportError:
            return
        self.answers[f"download {answer.status_code}"] += 1
        if answer.is_success and (len(answer.content) != asset["bytes"] or answer.content[:4] != b"\x89PNG"):
            self.wrong.append(f"the picture of {job['jobId']} has {len(answer.content)} bytes, not {asset['bytes']}")

    async def _top_up(self) -> None:
        """Somebody gives the poor account credits now and then, and asks until it is confirmed."""
        poor, count = self.people[-1], 0
        while not self._stopping.is_set():
            count += 1
            name = f"{self.seed}-grant-{count}"
            self.grants[name] = False
            while not self.grants[name] and not self._stopping.is_set():
                answer = await self._ask(
                    "POST", f"/api/v1/admin/accounts/{poor.id}/grants", what="grant", key=poor.admin_key,
                    headers={"idempotency-key": name}, json={"credits": _TOP_UP, "note": "more"},
                )  # fmt: skip
                self.grants[name] = answer.status_code == 201
                await self._pause(0.2)
            await self._pause(8 * self.pause_s)


def _code(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return _BARE.strip()
