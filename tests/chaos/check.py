"""What must hold afterwards, whatever happened: the rows, the books, the files and the receiver against each other.

Each function reads and returns sentences, one for each fault; none means that all is well.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook

from chaos.clients import Account, Clients
from pixeldojo.db import Row, Tx
from pixeldojo.db.open import open_database
from pixeldojo.ledger import service as ledger
from postbox import Received

_JOB = (
    "id", "account_id", "status", "attempt", "cost_milli", "refunded_milli", "error_code", "assets", "webhook_url",
    "metadata", "created_ms", "started_ms", "completed_ms", "expires_ms", "swept_ms", "lease",
)  # fmt: skip
_DELIVERY = ("id", "job_id", "type", "terminal", "payload", "status", "attempts")


@dataclass
class Books:
    """Every row that matters, as dicts."""

    jobs: dict[str, dict[str, Any]]
    entries: list[dict[str, Any]]
    balances: dict[str, int]
    disagreements: list[Row]
    deliveries: list[dict[str, Any]]
    inputs: int  # pictures of jobs that have ended

    @property
    def by_order(self) -> dict[str, list[str]]:
        """The ids of the jobs that each order made."""
        found = defaultdict(list)
        for job in self.jobs.values():
            found[json.loads(job["metadata"])["order"]].append(job["id"])
        return found


async def read(url: str) -> Books:
    """The books of a database."""
    db = open_database(url)
    try:
        return await db.scan(_read)
    finally:
        await db.close()


def _rows(tx: Tx, table: str, columns: Iterable[str]) -> list[dict[str, Any]]:
    names = tuple(columns)
    return [dict(zip(names, row, strict=True)) for row in tx.all(f"SELECT {', '.join(names)} FROM {table}")]


def _read(tx: Tx) -> Books:
    sql = "SELECT COUNT(*) FROM job_inputs WHERE job_id IN (SELECT id FROM jobs WHERE completed_ms IS NOT NULL)"
    return Books(
        jobs={job["id"]: job for job in _rows(tx, "jobs", _JOB)},
        entries=_rows(tx, "entries", ("account_id", "kind", "amount_milli", "job_id", "request_key")),
        balances={row["id"]: row["balance_milli"] for row in _rows(tx, "accounts", ("id", "balance_milli"))},
        disagreements=[tuple(row) for row in ledger.audit(tx)],
        deliveries=_rows(tx, "deliveries", _DELIVERY),
        inputs=_count(tx, sql),
    )


def _count(tx: Tx, sql: str) -> int:
    row = tx.one(sql)
    return int(row[0]) if row else 0


def unfinished(tx: Tx) -> int:
    """How many jobs have not ended."""
    return _count(tx, "SELECT COUNT(*) FROM jobs WHERE completed_ms IS NULL")


def undelivered(tx: Tx) -> int:
    """How many deliveries are still to be made."""
    return _count(tx, "SELECT COUNT(*) FROM deliveries WHERE status IN ('due', 'sending', 'waiting')")


def unswept(tx: Tx) -> int:
    """How many ended jobs may still have files."""
    return _count(tx, "SELECT COUNT(*) FROM jobs WHERE swept_ms IS NULL")


async def ask(url: str, fn: Callable[[Tx], int]) -> int:
    """One number from a database."""
    db = open_database(url)
    try:
        return await db.scan(fn)
    finally:
        await db.close()


# --- jobs and what the clients were told


def jobs(books: Books, clients: Clients) -> list[str]:
    """Every accepted job is there, once and ended as its client was told; every other row has an order behind it."""
    faults = list(clients.wrong)
    by_order, known = books.by_order, {order.name: order for order in clients.orders}
    for name, made in by_order.items():
        if name not in known:
            faults.append(f"nobody ordered {made}")
        elif len(made) > 1:
            faults.append(f"the order {name} made {len(made)} jobs: {made}")
        elif known[name].refused and not known[name].jobs:
            faults.append(f"the order {name} was refused with {known[name].refused} and made {made}")
        elif known[name].free and not known[name].lost and not known[name].jobs:
            faults.append(f"the order {name} was told that nothing was charged, and made {made}")
    for order in clients.orders:
        if len(set(order.jobs)) > 1:
            faults.append(f"the order {order.name} was answered with {sorted(set(order.jobs))}")
        for job_id in set(order.jobs):
            job = books.jobs.get(job_id)
            if job is None or by_order[order.name] != [job_id]:
                faults.append(f"{job_id} was accepted for {order.name} and is not there")
                continue
            told = (order.ended or {}).get("status", job["status"])
            if told != job["status"]:
                faults.append(f"{job_id} was shown as {told} and is {job['status']}")
            if order.cancelled in ("cancelled", "cancelling") and job["status"] != "failed":
                faults.append(f"{job_id} was {order.cancelled} and is {job['status']}")
    faults += [f"{job['id']} is {job['status']}" for job in books.jobs.values() if job["completed_ms"] is None]
    if books.inputs:
        faults.append(f"{books.inputs} input pictures of ended jobs are left")
    return faults + [fault for job in books.jobs.values() for fault in _times(job)]


def _times(job: Mapping[str, Any]) -> list[str]:
    moments = [job[name] for name in ("created_ms", "started_ms", "completed_ms") if job[name] is not None]
    return [] if moments == sorted(moments) else [f"{job['id']} ended before it began: {moments}"]


# --- money


def money(books: Books, people: list[Account], grants: Mapping[str, bool]) -> list[str]:
    """Balance = grants − charges + refunds for each account; each job is charged once, refunded once if it failed."""
    faults = [f"the ledger disagrees: {row}" for row in books.disagreements]
    times = Counter((entry["job_id"], entry["kind"]) for entry in books.entries if entry["job_id"])
    sums: Counter[tuple[str, str]] = Counter()
    for entry in books.entries:
        sums[entry["account_id"], entry["kind"]] += entry["amount_milli"]
    for job in books.jobs.values():
        failed = job["status"] == "failed"
        if times[job["id"], "charge"] != 1 or times[job["id"], "refund"] != int(failed):
            counts = {kind: times[job["id"], kind] for kind in ("charge", "refund")}
            faults.append(f"{job['id']} is {job['status']}: {counts}")
        if job["refunded_milli"] != (job["cost_milli"] if failed else 0):
            faults.append(f"{job['id']} is {job['status']} and {job['refunded_milli']} of it were refunded")
    faults += [f"an entry for no job: {job_id} {kind}" for job_id, kind in times if job_id not in books.jobs]
    for person in people:
        mine = [job for job in books.jobs.values() if job["account_id"] == person.id]
        owed = sum(job["cost_milli"] - job["refunded_milli"] for job in mine)
        granted, balance = sums[person.id, "grant"], books.balances[person.id]
        if balance != granted - owed:
            faults.append(f"{person.id} has {balance}, and {granted} were granted and {owed} are paid")
        if balance != sum(sums[person.id, kind] for kind in ("grant", "charge", "refund")):
            faults.append(f"{person.id} has {balance}, which is not what its entries say")
    return faults + _grants(books, people, grants)


def _grants(books: Books, people: list[Account], grants: Mapping[str, bool]) -> list[str]:
    made = Counter(entry["request_key"] for entry in books.entries if entry["request_key"])
    faults = [f"the grant {name} was made {count} times" for name, count in made.items() if count > 1]
    faults += [f"the grant {name} was confirmed, not made" for name, sure in grants.items() if sure and not made[name]]
    for person in people:
        mine = [entry for entry in books.entries if entry["kind"] == "grant" and entry["account_id"] == person.id]
        if [entry["amount_milli"] for entry in mine if not entry["request_key"]] != [person.granted_milli]:
            faults.append(f"{person.id} was granted {mine}")
    return faults


# --- webhooks


def webhooks(books: Books, people: list[Account], received: list[Received]) -> list[str]:
    """Every end was told, under one id, with one text, well signed, and true."""
    faults: list[str] = []
    secrets = {person.id: person.secrets for person in people}
    by_id: dict[str, list[Received]] = defaultdict(list)
    for each in received:
        by_id[each.id].append(each)
    known = {row["id"]: row for row in books.deliveries}
    stray = [got[0] for name, got in by_id.items() if name not in known]
    faults += [f"{each.id} was received and has no row" for each in stray if _lasting(each)]
    ends = Counter(row["job_id"] for row in books.deliveries if row["terminal"])
    for job in books.jobs.values():
        if ends[job["id"]] != int(job["webhook_url"] is not None):
            faults.append(f"{job['id']} has {ends[job['id']]} webhooks for its end")
    for row in books.deliveries:
        job, got = books.jobs[row["job_id"]], by_id.get(row["id"], [])
        if row["status"] in ("due", "sending", "waiting"):
            faults.append(f"{row['id']} is {row['status']}")
        if row["terminal"]:
            faults += _told(row, job, got)
        faults += [f"{row['id']} is signed badly" for each in got if not _signed(each, secrets[job["account_id"]])]
    return faults


def _lasting(each: Received) -> bool:
    return each.event["type"] in ("job.completed", "job.failed")


def _told(row: Mapping[str, Any], job: Mapping[str, Any], got: list[Received]) -> list[str]:
    faults = []
    if not got and row["status"] != "skipped":
        faults.append(f"{row['id']} of {job['id']} is {row['status']} and was never received")
    texts = {each.body for each in got} | ({bytes(row["payload"])} if row["payload"] else set())
    if len(texts) > 1:
        faults.append(f"{row['id']} has {len(texts)} different texts")
    for text in texts:
        event = json.loads(text)
        if (event["type"], event["data"]["jobId"]) != (f"job.{job['status']}", job["id"]):
            faults.append(f"{row['id']} tells of {event['type']} for {event['data']['jobId']}: {job}")
    return faults


def _signed(each: Received, secrets: tuple[str, ...]) -> bool:
    """Whether one of the secrets made the signature, at whatever time its clock showed."""
    at = datetime.fromtimestamp(int(each.headers["webhook-timestamp"]), UTC)
    right = {Webhook(secret).sign(each.id, at, each.body.decode()) for secret in secrets}
    return bool(right & set(each.headers["webhook-signature"].split(" ")))


# --- files and processes


def files(books: Books, folder: Path, *, now_ms: int) -> tuple[list[str], Counter[str]]:
    """No file without a row, no row without its file. `now_ms` is the service's time; nothing may be running."""
    faults: list[str] = []
    counts: Counter[str] = Counter()
    there = {path.name: {each.name: each for each in path.iterdir()} for path in (folder / "assets").iterdir()}
    for job_id, found in there.items():
        job = books.jobs.get(job_id)
        if job is None:
            faults.append(f"files without a row: {job_id} {sorted(found)}")
        elif job["swept_ms"] is not None:
            faults.append(f"{job_id} was swept and has files: {sorted(found)}")
        elif job["status"] == "failed":
            counts["files of failed jobs, left to the sweep"] += len(found)
    for job in books.jobs.values():
        if job["status"] != "completed" or job["swept_ms"] is not None or job["expires_ms"] <= now_ms:
            counts["swept or expired jobs"] += 1
            continue
        wanted = {asset["key"].partition("/")[2]: asset["bytes"] for asset in json.loads(job["assets"])}
        found = there.get(job["id"], {})
        if set(found) != set(wanted):
            faults.append(f"{job['id']} should have {sorted(wanted)} and has {sorted(found)}")
            continue
        counts["completed jobs with their files"] += 1
        counts["files"] += len(found)
        for name, size in wanted.items():
            if found[name].stat().st_size != size:
                faults.append(f"{job['id']}/{name} has {found[name].stat().st_size} bytes, not {size}")
    return faults, counts


def leftovers(folder: Path) -> list[str]:
    """Files and folders that a service must not leave when it was stopped and all its jobs have expired."""
    faults = [f"{path.name} outlived the sweep" for path in (folder / "assets").iterdir()]
    faults += [f"left in work: {path.name}" for path in (folder / "work").iterdir()]
    if (folder / "service.json").exists():
        faults.append("service.json is left")
    known = {"assets", "work", "pixeldojo.db", "pixeldojo.db-wal", "pixeldojo.db-shm"}
    faults += [f"left in the data folder: {path.name}" for path in folder.iterdir() if path.name not in known]
    return faults
