"""The sections of the benchmark. Each returns figures by name; targets and printing are in `__main__`."""

import asyncio
import contextlib
import functools
import json
import sqlite3
import statistics
import time
from collections.abc import Callable
from typing import Any

from bench import load, receiver, service

CONNECTIONS = 32
Figures = dict[str, float]


def _run_body(number: int) -> bytes:
    return json.dumps({"prompt": f"bars number {number}", "seed": number}).encode()


async def submits(*, total: int = 30_000, fill: int = 100_000) -> Figures:
    """Durable submits against a constant reply of the same server, on one core; memory after many jobs."""
    with service.running(roles="api") as s, service.echo() as echo:

        def run(number: int) -> bytes:
            return load.request("POST", "/api/v1/models/testcard/run", key=s.key, body=_run_body(number))

        rates: dict[str, list[float]] = {"submit": [], "echo": []}
        p99: list[float] = []
        await load.hammer(s.address, run, connections=CONNECTIONS, total=2_000, expect=202)
        for _ in range(3):  # in turn, so that a drifting machine treats both alike
            constant = await load.hammer(echo, run, connections=CONNECTIONS, total=total // 3, expect=202)
            submitted = await load.hammer(s.address, run, connections=CONNECTIONS, total=total // 3, expect=202)
            assert not constant.wrong and not submitted.wrong
            rates["echo"].append(constant.rate)
            rates["submit"].append(submitted.rate)
            p99.append(submitted.quantile_ms(0.99))
        rest = fill - total - 2_000
        if rest > 0:
            await load.hammer(s.address, run, connections=CONNECTIONS, total=rest, expect=202)
        pairs = zip(rates["submit"], rates["echo"], strict=True)
        return {
            "submit_per_s": statistics.median(rates["submit"]),
            "echo_per_s": statistics.median(rates["echo"]),
            "submit_over_echo": statistics.median(a / b for a, b in pairs),
            "submit_p99_ms": statistics.median(p99),
            "api_rss_mb": s.rss_mb,
            "ready_s": s.ready_s,
        }


async def whole_job(
    line: load.Connection, key: str, number: int, *, model: str, body: bytes, poll_s: float
) -> dict[str, Any]:
    """Submit and poll until the job has ended; the finished job."""
    status, answer = await line.send(load.request("POST", f"/api/v1/models/{model}/run", key=key, body=body))
    assert status == 202, answer
    poll = load.request("GET", "/api/v1/jobs/" + json.loads(answer)["jobId"], key=key)
    while True:
        await asyncio.sleep(poll_s)
        _, answer = await line.send(poll)
        if b'"status":"completed"' in answer:
            return dict(json.loads(answer))
        assert b'"status":"failed"' not in answer, answer


async def jobs(*, clients: int = 2, quiet: int = 400, busy_s: float = 15, busy_clients: int = 32) -> Figures:
    """Whole jobs on the test card: latency with a few clients, then throughput with many."""
    with service.running() as s:
        await _settle(s)
        seconds: list[float] = []
        count = 0

        async def wait_for_each(until: float) -> None:
            """Jobs one after the other, each answered when it has ended (`Prefer: wait`)."""
            nonlocal count
            line = await load.connect(*s.address)
            while time.perf_counter() < until:
                count += 1
                path = "/api/v1/models/testcard/run"
                ask = load.request("POST", path, key=s.key, body=_run_body(count), headers="Prefer: wait=20\r\n")
                status, answer = await line.send(ask)
                assert status == 200 and b'"status":"completed"' in answer, answer
                seconds.append(0.0)
            line.close()

        async def work(until: float, *, poll_s: float, most: int) -> None:
            nonlocal count
            line = await load.connect(*s.address)
            while time.perf_counter() < until and count < most:
                count += 1
                started = time.perf_counter()
                await whole_job(line, s.key, count, model="testcard", body=_run_body(count), poll_s=poll_s)
                seconds.append(time.perf_counter() - started)
            line.close()

        far = time.perf_counter() + 60
        await asyncio.gather(*(work(far, poll_s=0.001, most=quiet) for _ in range(clients)))
        quiet_tally = load.Tally(seconds=seconds[:])
        seconds.clear()
        count = 0
        started = time.perf_counter()
        until = started + busy_s
        await asyncio.gather(*(wait_for_each(until) for _ in range(busy_clients)))
        return {
            "job_p50_ms": quiet_tally.quantile_ms(0.5),
            "job_p99_ms": quiet_tally.quantile_ms(0.99),
            "jobs_per_s": len(seconds) / (time.perf_counter() - started),
        }


async def _settle(s: service.Service) -> None:
    """One job of the model, so that its engine is loaded."""
    line = await load.connect(*s.address)
    await whole_job(line, s.key, 0, model="testcard", body=_run_body(0), poll_s=0.01)
    line.close()


def _fill_deliveries(s: service.Service, *, rows: int, lines: int, url: str) -> None:
    """So many due deliveries, to so many addresses, with the jobs they belong to."""
    payload = json.dumps({"type": "job.failed", "data": {"jobId": "job", "filled": "x" * 1000}})
    sql = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)"
        " INSERT INTO deliveries (id, job_id, account_id, line, url, type, terminal, payload, status, next_ms,"
        " created_ms, expires_ms) SELECT printf('msg_%024d', i), printf('job_00%024d', i), :account,"
        " :account || ' ' || (i % :lines), :url || (i % :lines), 'job.failed', 1, CAST(:payload AS BLOB), 'due', 0, i,"
        " 1 << 52 FROM n"
    )
    with contextlib.closing(sqlite3.connect(s.data_dir / "pixeldojo.db", timeout=60)) as db, db:
        account, key = db.execute("SELECT account_id, id FROM keys").fetchone()
        db.execute(_FILL, (rows, account, key, 2**52))
        db.execute(sql, {"rows": rows, "account": account, "lines": lines, "url": url, "payload": payload})


def _delivered(s: service.Service) -> int:
    with contextlib.closing(sqlite3.connect(s.data_dir / "pixeldojo.db", timeout=60)) as db:
        return int(db.execute("SELECT COUNT(*) FROM deliveries WHERE status = 'delivered'").fetchone()[0])


async def _until(check: Callable[[], bool], *, within_s: float = 120) -> None:
    async with asyncio.timeout(within_s):
        while not check():  # noqa: ASYNC110 - a benchmark may look
            await asyncio.sleep(0.01)


async def deliveries(*, rows: int = 20_000, busy_s: float = 8, hung: int = 600) -> Figures:
    """Webhooks a second from a courier on one core; then how long others wait while one receiver hangs."""
    async with receiver.receiving() as r:
        settings = {"allow_networks": "127.0.0.0/8", "rate_limit": "off"}
        with service.running(roles="api,courier", **settings) as s:
            _fill_deliveries(s, rows=rows, lines=20, url=r.url("/filled/"))
            await _until(lambda: r.count >= rows)
            await _until(lambda: _delivered(s) >= rows)  # and written down
            rate = rows / (time.perf_counter() - r.first)
        r.delays.clear()
        with service.running(**settings) as s:
            await _settle(s)
            quiet = await _hooked(s, r, busy_s=busy_s)
            line = await load.connect(*s.address)
            for number in range(hung):
                body = {"prompt": "bars", "seed": number, "webhook_url": r.url("/hang")}
                sent = load.request("POST", "/api/v1/models/testcard/run", key=s.key, body=json.dumps(body).encode())
                await line.send(sent)
            await _until(lambda: r.hanging > 50)
            line.close()
            beside = await _hooked(s, r, busy_s=busy_s)
        return {
            "deliveries_per_s": rate,
            "delivery_p50_ms": quiet.quantile_ms(0.5),
            "delivery_p99_ms": quiet.quantile_ms(0.99),
            "delivery_beside_hang_p99_ms": beside.quantile_ms(0.99),
            "hang_delays_others_ms": beside.quantile_ms(0.99) - quiet.quantile_ms(0.99),
        }


async def _hooked(s: service.Service, r: receiver.Receiver, *, busy_s: float) -> load.Tally:
    """From the end of a job to its webhook, for a job every few milliseconds to one of 50 receivers."""
    r.delays.clear()
    before, sent = r.count, 0
    line = await load.connect(*s.address)
    until = time.perf_counter() + busy_s
    while time.perf_counter() < until:
        body = {"prompt": "bars", "seed": sent, "webhook_url": r.url(f"/ok/{sent % 50}")}
        run = load.request("POST", "/api/v1/models/testcard/run", key=s.key, body=json.dumps(body).encode())
        status, answer = await line.send(run)
        assert status == 202, answer
        sent += 1
        await asyncio.sleep(0.02)
    line.close()
    await _until(lambda: r.count - before >= sent)
    return load.Tally(seconds=r.delays[:])


_FILL = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
INSERT INTO jobs (id, account_id, key_id, model, modality, status, input, cost_milli, refunded_milli, error_code,
                  created_ms, completed_ms, expires_ms)
SELECT printf('job_00%024d', i), ?, ?, 'testcard', 'image', 'failed', '{"prompt":"filled","seed":1}', 1000, 1000,
       'engine_failed', i, i, ? FROM n
"""


async def listening(*, queued: int = 10_000, listeners: int = 1_000, rounds: int = 8, each: int = 500) -> Figures:
    """What idle listeners weigh, and what they and a long queue do to submits; two services, measured in turn."""
    async with contextlib.AsyncExitStack() as stack:
        idle, full = (stack.enter_context(service.running()) for _ in range(2))

        def run(s: service.Service, prompt: str) -> Callable[[int], bytes]:
            def request(number: int) -> bytes:
                body = json.dumps({"prompt": prompt, "seed": number}).encode()
                return load.request("POST", "/api/v1/models/testcard/run", key=s.key, body=body)

            return request

        for s in (idle, full):
            await _settle(s)
            await load.hammer(s.address, run(s, "!hang"), connections=1, total=8, expect=202)  # nothing else is begun
        queue = await load.hammer(full.address, run(full, "bars"), connections=CONNECTIONS, total=queued, expect=202)
        assert not queue.wrong
        before = full.rss_mb
        with contextlib.closing(sqlite3.connect(full.data_dir / "pixeldojo.db", timeout=60)) as db:
            ids = [row[0] for row in db.execute("SELECT id FROM jobs WHERE status = 'pending' LIMIT ?", (listeners,))]
        for job_id in ids:
            reader, writer = await asyncio.open_connection(*full.address)
            stack.callback(writer.close)
            writer.write(load.request("GET", f"/api/v1/jobs/{job_id}/events", key=full.key))
            await reader.readuntil(b"event: status")
        weight = full.rss_mb - before
        tallies = {s: load.Tally() for s in (idle, full)}
        for _ in range(rounds):
            for s, tally in tallies.items():
                part = await load.hammer(s.address, run(s, "bars"), connections=8, total=each, expect=202)
                assert not part.wrong
                tally.seconds += part.seconds
        calm, loaded = (tallies[s].quantile_ms(0.99) for s in (idle, full))
        return {
            "listeners_1k_mb": weight,
            "submit_p99_idle_ms": calm,
            "submit_p99_full_ms": loaded,
            "submit_p99_full_over_idle": loaded / calm,
        }


def _same(request: bytes, _: int) -> bytes:
    return request


async def listing(*, small: int = 1_000, large: int = 1_000_000, calls: int = 300) -> Figures:
    """A page of the list over a thousand jobs and over a million, in turn."""
    with contextlib.ExitStack() as stack:
        services = [stack.enter_context(service.running(roles="api")) for _ in range(2)]
        for s, rows in zip(services, (small, large), strict=True):
            with contextlib.closing(sqlite3.connect(s.data_dir / "pixeldojo.db", timeout=60)) as db, db:
                account, key = db.execute("SELECT account_id, id FROM keys").fetchone()
                db.execute(_FILL, (rows, account, key, 2**42))
        paths = ("/api/v1/jobs", "/api/v1/jobs?status=failed&limit=100", "/api/v1/jobs?model=testcard")
        worst = 0.0
        for path in paths:
            medians: list[list[float]] = [[], []]
            for _ in range(5):
                for which, s in enumerate(services):
                    ask = load.request("GET", path, key=s.key)
                    tally = await load.hammer(
                        s.address, functools.partial(_same, ask), connections=1, total=calls // 5, expect=200
                    )
                    assert not tally.wrong
                    medians[which].append(tally.quantile_ms(0.5))
            worst = max(worst, statistics.median(medians[1]) / statistics.median(medians[0]))
        return {"list_1m_over_1k": worst}
