"""The seam's promises, on both engines; and, at the end, what each engine alone can go through."""

import asyncio
import contextlib
import sqlite3
import stat
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pixeldojo.db import Database, DatabaseUnavailable, Row, Tx
from pixeldojo.db.migrations import names
from pixeldojo.db.open import open_database

Run = Callable[[Any], Any]


class Refused(Exception):
    """What a room would raise."""


def make_things(tx: Tx) -> None:
    tx.run(
        "CREATE TABLE things (id TEXT PRIMARY KEY, n BIGINT NOT NULL DEFAULT 0 CHECK (n >= 0), note TEXT, owner TEXT)"
    )


def add(tx: Tx, thing: str, n: int = 0) -> int:
    return tx.run("INSERT INTO things (id, n) VALUES (?, ?)", thing, n)


def add_and_fail(tx: Tx, thing: str, error: Exception) -> None:
    add(tx, thing)
    raise error


def add_and_wake(tx: Tx, thing: str) -> None:
    add(tx, thing)
    tx.wake("jobs")


def statement(tx: Tx, sql: str) -> int:
    return tx.run(sql)


def increment(tx: Tx, thing: str) -> Row | None:
    return tx.one("UPDATE things SET n = n + 1 WHERE id = ? RETURNING n", thing)


def ids(tx: Tx) -> list[str]:
    return [thing for (thing,) in tx.all("SELECT id FROM things ORDER BY id")]


def total(tx: Tx) -> Any:
    row = tx.one("SELECT COUNT(*), SUM(n) FROM things")
    assert row
    return row


async def gather(*calls: Any) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest.fixture
def things(db: Database, run: Run) -> Database:
    run(db.write(make_things))
    return db


@contextlib.contextmanager
def opened(url: str, run: Run) -> Iterator[Database]:
    database = open_database(url)
    try:
        yield database
    finally:
        run(database.close())


# --- one transaction


def test_a_write_is_committed(things: Database, run: Run) -> None:
    run(things.write(add, "a", n=3))
    assert run(things.read(ids)) == ["a"]


def test_an_exception_passes_through_and_undoes_the_call(things: Database, run: Run) -> None:
    error = Refused("no")
    with pytest.raises(Refused) as caught:
        run(things.write(add_and_fail, "a", error))
    assert caught.value is error
    assert run(things.read(ids)) == []


def test_one_failing_call_undoes_only_itself(things: Database, run: Run) -> None:
    calls = [
        things.write(add_and_fail, f"{n:02}", Refused()) if n % 3 == 0 else things.write(add, f"{n:02}")
        for n in range(30)
    ]
    outcomes = run(gather(*calls))
    assert [isinstance(outcome, Refused) for outcome in outcomes] == [n % 3 == 0 for n in range(30)]
    assert run(things.read(ids)) == [f"{n:02}" for n in range(30) if n % 3]


def test_a_stop_iteration_reaches_its_caller_and_harms_nobody(things: Database, run: Run) -> None:
    def stop(tx: Tx) -> object:
        return next(iter(()))

    outcomes = run(gather(things.write(add, "a"), things.write(stop), things.write(add, "b")))
    assert isinstance(outcomes[1], RuntimeError)
    assert run(things.read(ids)) == ["a", "b"]


def test_a_fault_in_the_sql_is_raised_as_it_is(things: Database, run: Run) -> None:
    for call in (things.write, things.read):
        with pytest.raises(Exception, match="nothing_such") as caught:
            run(call(lambda tx: tx.all("SELECT * FROM nothing_such")))
        assert not isinstance(caught.value, DatabaseUnavailable)


def test_a_read_must_not_write(things: Database, run: Run) -> None:
    with pytest.raises(Exception, match=r"read-?only"):
        run(things.read(add, "a"))
    assert run(things.read(ids)) == []


# --- one SQL


def test_returning_and_rowcount(things: Database, run: Run) -> None:
    def steps(tx: Tx) -> list[Any]:
        return [
            tx.all("INSERT INTO things (id, n) VALUES (?, ?), (?, ?) RETURNING id, n", "a", 1, "b", 2),
            tx.one("UPDATE things SET n = n + ? WHERE id = ? RETURNING n", 5, "a"),
            tx.one("UPDATE things SET n = n + ? WHERE id = ? RETURNING n", 5, "nobody"),
            tx.run("UPDATE things SET note = ?", "x"),
            tx.run("DELETE FROM things WHERE id = ?", "nobody"),
            tx.one("INSERT INTO things (id) VALUES (?), (?) RETURNING id", "c", "d"),
        ]

    assert run(things.write(steps)) == [[("a", 1), ("b", 2)], (6,), None, 2, 0, ("c",)]
    assert run(things.read(ids)) == ["a", "b", "c", "d"]


def test_upsert(things: Database, run: Run) -> None:
    def put(tx: Tx, n: int) -> Row | None:
        return tx.one(
            "INSERT INTO things (id, n) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET n = excluded.n RETURNING n",
            "a",
            n,
        )

    assert [run(things.write(put, n)) for n in (1, 2)] == [(1,), (2,)]
    ignore = "INSERT INTO things (id) VALUES (?) ON CONFLICT DO NOTHING"
    assert run(things.write(lambda tx: (tx.run(ignore, "a"), tx.run(ignore, "b")))) == (0, 1)


def test_question_marks_and_percent_signs_in_literals(things: Database, run: Run) -> None:
    sql = """SELECT '100% of ''what?''', CAST(? AS TEXT) AS "a?b%s", 5 % 3 -- why?\n, /* ? */ CAST(? AS TEXT)"""
    assert run(things.read(lambda tx: tx.all(sql, "x", "%s?"))) == [("100% of 'what?'", "x", 2, "%s?")]
    assert run(things.read(lambda tx: tx.all("SELECT '?%' WHERE 'ab' LIKE 'a%'"))) == [("?%",)]


def test_values_come_back_as_they_went_in(things: Database, run: Run) -> None:
    values = (2**63 - 1, -(2**63), 0, "Grüße 🎨 \\ ' \" \n", "", b"\x00\xff" * 3, b"", None, None, None)

    def steps(tx: Tx) -> Row | None:
        kind = "BYTEA" if tx.skip_locked else "BLOB"
        tx.run(
            f"CREATE TABLE v (a BIGINT, b BIGINT, c BIGINT, d TEXT, e TEXT, f {kind}, g {kind}, h BIGINT, i TEXT, "
            f"j {kind})"
        )
        tx.run("INSERT INTO v VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", *values)
        return tx.one("SELECT * FROM v")

    row = run(things.write(steps))
    assert row == values
    assert [type(value) for value in row] == [type(value) for value in values]


def test_sums_are_integers_and_truths_are_numbers(things: Database, run: Run) -> None:
    for n in range(3):
        run(things.write(add, f"{n}", 2**62 if n else True))
    count, summed = run(things.read(lambda tx: tx.one("SELECT COUNT(*), SUM(n) FROM things WHERE n < 2")))
    assert (count, summed) == (1, 1)
    assert type(summed) is int


@pytest.mark.parametrize("value", [2**63, "\ud800", "a\x00b"])
def test_a_value_that_does_not_fit_harms_nobody(things: Database, run: Run, value: Any) -> None:
    column = "n" if isinstance(value, int) else "note"
    sql = f"INSERT INTO things (id, {column}) VALUES (?, ?)"
    bad, good = run(gather(things.write(lambda tx: tx.run(sql, "a", value)), things.write(add, "b")))
    assert good == 1
    assert isinstance(bad, Exception) or value == "a\x00b"
    assert not isinstance(bad, DatabaseUnavailable)
    run(things.write(add, "c"))


def test_constraints_hold(things: Database, run: Run) -> None:
    run(things.write(add, "a"))
    for fn in (add, lambda tx, thing: tx.run("UPDATE things SET n = -1 WHERE id = ?", thing)):
        with pytest.raises(Exception, match=r"(?i)unique|check") as caught:
            run(things.write(fn, "a"))
        assert not isinstance(caught.value, DatabaseUnavailable)
    assert run(things.read(total)) == (1, 0)


def test_ids_are_ordered_byte_by_byte(db: Database, run: Run) -> None:
    unsorted = ["job_b", "job_A", "job_a", "job-z", "jobz", "job_0", "JOB_c", "job_é"]

    def steps(tx: Tx) -> tuple[list[Row], list[Row]]:
        tx.run("INSERT INTO accounts (id, name, created_ms) VALUES ('a', 'a', 0)")
        tx.run("INSERT INTO budgets (id) VALUES ('b')")
        tx.run(
            "INSERT INTO keys (id, account_id, budget_id, name, prefix, hash, created_ms)"
            " VALUES ('k', 'a', 'b', '', '', '', 0)"
        )
        for job in unsorted:
            tx.run(
                "INSERT INTO jobs (id, account_id, key_id, model, modality, status, input, cost_milli, "
                "created_ms, expires_ms) VALUES (?, 'a', 'k', 'm', 'image', 'pending', '{}', 0, 0, 0)",
                job,
            )
        after = "SELECT id FROM jobs WHERE account_id = ? AND id > ? ORDER BY id"
        return tx.all(after, "a", ""), tx.all(after, "a", "job_a")

    everything, after = run(db.write(steps))
    assert [job for (job,) in everything] == sorted(unsorted)
    assert [job for (job,) in after] == [job for job in sorted(unsorted) if job > "job_a"]


def test_the_ledger_is_append_only(db: Database, run: Run) -> None:
    def grant(tx: Tx) -> None:
        tx.run("INSERT INTO accounts (id, name, created_ms) VALUES ('a', 'a', 0)")
        tx.run(
            "INSERT INTO entries (id, account_id, kind, amount_milli, balance_milli, created_ms) "
            "VALUES ('e', 'a', 'grant', 5, 5, 0)"
        )

    run(db.write(grant))
    for sql in ("UPDATE entries SET amount_milli = 6", "DELETE FROM entries"):
        with pytest.raises(Exception, match="append-only"):
            run(db.write(statement, sql))
    assert run(db.read(lambda tx: tx.all("SELECT id, amount_milli FROM entries"))) == [("e", 5)]


# --- many at once


def test_concurrent_increments_are_exact(things: Database, run: Run) -> None:
    run(things.write(add, "a"))

    async def task() -> list[Any]:
        return [await things.write(increment, "a") for _ in range(10)]

    seen = [row[0] for rows in run(gather(*[task() for _ in range(20)])) for row in rows]
    assert sorted(seen) == list(range(1, 201))


def test_a_claim_never_gives_one_row_twice(things: Database, run: Run) -> None:
    run(things.write(lambda tx: [add(tx, f"{n:03}") for n in range(100)]))

    def claim(tx: Tx, owner: str) -> Row | None:
        return tx.one(
            "UPDATE things SET owner = ? WHERE id = (SELECT id FROM things WHERE owner IS NULL "
            f"ORDER BY id LIMIT 1 {tx.skip_locked}) RETURNING id",
            owner,
        )

    async def claimer(owner: str) -> list[str]:
        claimed = []
        while row := await things.write(claim, owner):
            claimed.append(row[0])
        return claimed

    claimed = run(gather(*[claimer(f"c{n}") for n in range(10)]))
    assert sorted(job for jobs in claimed for job in jobs) == [f"{n:03}" for n in range(100)]


def test_a_read_sees_one_snapshot(things: Database, run: Run) -> None:
    looked, written = threading.Event(), threading.Event()

    def look_twice(tx: Tx) -> tuple[list[str], list[str]]:
        before = ids(tx)
        looked.set()
        assert written.wait(10)
        return before, ids(tx)

    async def both() -> tuple[list[str], list[str]]:
        reading = asyncio.create_task(things.scan(look_twice))
        assert await asyncio.to_thread(looked.wait, 10)
        await things.write(add, "a")
        written.set()
        return await reading

    assert run(both()) == ([], [])
    assert run(things.read(ids)) == ["a"]


def test_cancelled_callers_harm_nobody(things: Database, run: Run) -> None:
    async def steps() -> list[Any]:
        tasks = [asyncio.create_task(things.write(add, f"{n:02}", 1)) for n in range(40)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        return await gather(*tasks)

    outcomes = run(steps())
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
    assert outcomes[1::2] == [1] * 20
    run(things.write(add, "z"))


def test_two_event_loops_share_a_database(things: Database, run: Run) -> None:
    async def write_many(start: int) -> None:
        await asyncio.gather(*[things.write(add, f"{n:03}") for n in range(start, start + 50)])

    other = threading.Thread(target=lambda: asyncio.run(write_many(50)))
    other.start()
    run(write_many(0))
    other.join()
    assert run(things.read(total))[0] == 100


# --- wake-ups


def test_a_wake_sets_every_event_of_its_channel(things: Database, run: Run) -> None:
    async def steps() -> list[bool]:
        events = [things.event("jobs"), things.event("jobs"), things.event("other")]
        await things.write(lambda tx: tx.wake("jobs"))
        await asyncio.wait_for(asyncio.gather(events[0].wait(), events[1].wait()), 10)
        events[0].clear()
        return [event.is_set() for event in events]

    assert run(steps()) == [False, True, False]


def test_what_was_committed_is_there_when_the_event_is_set(things: Database, run: Run) -> None:
    async def steps() -> int:
        event = things.event("jobs")
        for n in range(20):
            writing = asyncio.create_task(things.write(add_and_wake, f"{n}"))
            await asyncio.wait_for(event.wait(), 10)
            event.clear()
            assert (await things.read(total))[0] == n + 1
            await writing
        return 1

    assert run(steps())


def test_an_event_nobody_holds_is_forgotten(things: Database, run: Run) -> None:
    async def steps() -> int:
        kept = [things.event("jobs") for _ in range(3)]
        for _ in range(100):
            things.event("jobs")
        things.event("jobs")
        assert kept
        return len(things._events._held["jobs"])  # type: ignore[attr-defined]

    assert run(steps()) <= 5


# --- opening, migrating, closing


def test_migrations_apply_once(empty_database_url: str, run: Run) -> None:
    with opened(empty_database_url, run) as db:
        assert run(db.migrate()) == names()
        assert run(db.migrate()) == []


def test_two_that_migrate_together(empty_database_url: str, run: Run) -> None:
    with opened(empty_database_url, run) as one, opened(empty_database_url, run) as two:
        outcomes = run(gather(one.migrate(), two.migrate(), one.migrate(), two.migrate()))
        assert sorted(outcomes) == [[], [], [], names()]


def test_a_newer_database_is_refused(db: Database, run: Run) -> None:
    run(db.write(lambda tx: tx.run("INSERT INTO migrations VALUES ('9999_future', 0)")))
    with pytest.raises(DatabaseUnavailable, match="9999_future"):
        run(db.migrate())


def test_close_completes_what_was_accepted(database_url: str, run: Run) -> None:
    async def steps() -> list[Any]:
        db = open_database(database_url)
        await db.migrate()
        await db.write(make_things)
        calls: list[Any] = [db.write(add, f"{n:02}") for n in range(50)] + [db.read(total) for _ in range(20)]
        tasks = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0)
        await db.close()
        outcomes = await gather(*tasks)
        late: list[Awaitable[Any]] = [db.read(ids), db.write(add, "late"), db.migrate()]
        for call in late:
            with pytest.raises(DatabaseUnavailable, match="closed"):
                await call
        await db.close()
        return outcomes

    outcomes = run(steps())
    assert outcomes[:50] == [1] * 50
    assert not [outcome for outcome in outcomes[50:] if isinstance(outcome, Exception)]
    with opened(database_url, run) as db:
        assert run(db.read(total))[0] == 50


@pytest.mark.parametrize(
    "url",
    [
        "mysql://root@localhost/x",
        "sqlite://relative.db",
        "sqlite:////dev/null/no/folder.db",
        "postgresql://me:hunter2@127.0.0.1:1/x",
        "postgresql://me:hunter2@[::1/x",
        "postgresql://me:hunter2@localhost:port/x",
        "postgresql://me:hunter2@localhost/x?colour=hunter2",
    ],
)
def test_what_can_not_be_opened_says_so_without_the_password(url: str) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        open_database(url)
    assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r}"


# --- PostgreSQL alone


@pytest.fixture
def pg(postgres_url: str, run: Run) -> Iterator[Database]:
    with opened(postgres_url, run) as db:
        run(db.write(make_things))
        yield db


@pytest.fixture
def kill(postgres_url: str) -> Iterator[Callable[..., None]]:
    """Ends one backend of the test's database, or all."""
    psycopg = pytest.importorskip("psycopg")

    with psycopg.connect(postgres_url, autocommit=True) as admin:

        def kill(pid: int | None = None) -> None:
            admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND (pid = %(pid)s OR %(pid)s::int IS NULL)",
                {"pid": pid},
            )

        yield kill


def backend(tx: Tx) -> int:
    row = tx.one("SELECT pg_backend_pid()")
    assert row
    return int(row[0])


def test_postgres_wakes_other_processes(pg: Database, postgres_url: str, run: Run) -> None:
    with opened(postgres_url, run) as other:

        async def steps() -> None:
            here, there = pg.event("jobs"), other.event("jobs")
            await pg.write(lambda tx: tx.wake("jobs"))
            await asyncio.wait_for(asyncio.gather(here.wait(), there.wait()), 10)

        run(steps())


def test_postgres_ended_connections_are_replaced(
    pg: Database, kill: Callable[..., None], postgres_url: str, run: Run
) -> None:
    async def busy(name: str) -> list[Any]:
        writes = [pg.write(add, f"{name}{n}") for n in range(20)]
        return await gather(*writes, *[pg.read(total) for _ in range(20)])

    async def steps(other: Database) -> None:
        event = pg.event("jobs")
        await busy("before")
        kill()
        assert not [outcome for outcome in await busy("after") if isinstance(outcome, Exception)]
        await asyncio.wait_for(event.wait(), 10)  # it listens again, and may have missed something
        event.clear()
        await other.write(lambda tx: tx.wake("jobs"))
        await asyncio.wait_for(event.wait(), 10)

    with opened(postgres_url, run) as other:
        run(steps(other))
    assert run(pg.read(total))[0] == 40


@pytest.mark.parametrize("lane", ["read", "write"])
def test_postgres_a_call_whose_connection_is_lost_runs_again(
    pg: Database, kill: Callable[..., None], run: Run, lane: str
) -> None:
    pids = []

    def lose_it_once(tx: Tx) -> Row | None:
        pids.append(backend(tx))
        if len(pids) == 1:
            kill(pids[0])
        return tx.one("SELECT 42")

    assert run(getattr(pg, lane)(lose_it_once)) == (42,)
    assert len(set(pids)) == 2


def test_postgres_even_when_the_function_hides_the_loss(pg: Database, kill: Callable[..., None], run: Run) -> None:
    runs = []

    def hide(tx: Tx) -> str:
        runs.append(backend(tx))
        if len(runs) == 1:
            kill(runs[0])
        with contextlib.suppress(Exception):
            add(tx, "a")
        return "fine"

    assert run(pg.write(hide)) == "fine"
    assert run(pg.read(ids)) == ["a"]


def test_postgres_a_swallowed_error_is_not_reported_as_success(pg: Database, run: Run) -> None:
    def swallow(tx: Tx) -> str:
        add(tx, "a")
        with contextlib.suppress(Exception):
            add(tx, "a")
        return "fine"

    with pytest.raises(Exception, match="duplicate key"):
        run(pg.write(swallow))
    assert run(pg.read(ids)) == []


def test_postgres_a_connection_lost_while_committing_is_not_tried_again(pg: Database, run: Run) -> None:
    runs = []

    def trap(tx: Tx) -> None:
        tx.run(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$; "
            "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON things DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION die()"
        )

    def spring(tx: Tx) -> None:
        runs.append(1)
        add(tx, "a")

    run(pg.write(trap))
    with pytest.raises(DatabaseUnavailable, match="not known"):
        run(pg.write(spring))
    assert len(runs) == 1
    run(pg.write(lambda tx: tx.run("DROP TRIGGER die ON things")))


def test_postgres_a_deadlock_is_run_again(pg: Database, run: Run) -> None:
    run(pg.write(lambda tx: (add(tx, "a"), add(tx, "b"))))
    meet, runs = threading.Barrier(2), []

    def cross(tx: Tx, first: str, second: str) -> None:
        runs.append(first)
        increment(tx, first)
        if runs.count(first) == 1:
            meet.wait(10)
        increment(tx, second)

    assert run(gather(pg.write(cross, "a", "b"), pg.write(cross, "b", "a"))) == [None, None]
    assert run(pg.read(total)) == (2, 4)
    assert len(runs) == 3


def test_postgres_survives_a_change_of_a_table_under_a_prepared_query(pg: Database, run: Run) -> None:
    query = "SELECT * FROM things"
    run(gather(*[pg.read(lambda tx: tx.all(query)) for _ in range(20)]))
    run(pg.write(lambda tx: tx.run("ALTER TABLE things ADD COLUMN extra BIGINT")))
    assert run(gather(*[pg.read(lambda tx: tx.all(query)) for _ in range(20)])) == [[]] * 20


# --- SQLite alone


@pytest.fixture
def lite(sqlite_url: str, run: Run) -> Iterator[Database]:
    with opened(sqlite_url, run) as db:
        run(db.migrate())
        run(db.write(make_things))
        yield db


def test_sqlite_full_disk(lite: Database, run: Run) -> None:
    def limit(tx: Tx, spare: int | None) -> Row | None:
        pages = tx.one("PRAGMA page_count")
        assert pages
        return tx.one(f"PRAGMA max_page_count = {pages[0] + spare if spare is not None else 4294967294}")

    def add_large(tx: Tx, thing: str) -> int:
        return tx.run("INSERT INTO things (id, note) VALUES (?, ?)", thing, "x" * 1_000_000)

    run(lite.write(limit, 4))
    large = {3, 11}
    calls = [lite.write(add_large if n in large else add, f"{n:02}") for n in range(20)]
    outcomes = run(gather(*calls))
    assert {n for n, outcome in enumerate(outcomes) if outcome != 1} == large
    assert all(isinstance(outcomes[n], DatabaseUnavailable) for n in large)
    assert "full" in str(outcomes[3])
    assert run(lite.read(total))[0] == 18
    run(lite.write(limit, None))
    run(lite.write(add_large, "03"))
    assert run(lite.read(total))[0] == 19


def test_sqlite_another_process_holds_the_lock(lite: Database, sqlite_url: str, run: Run) -> None:
    with contextlib.closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        run(lite.write(lambda tx: tx.one("PRAGMA busy_timeout = 100")))
        other.execute("BEGIN IMMEDIATE")
        outcomes = run(asyncio.wait_for(gather(*[lite.write(add, f"{n:02}") for n in range(100)]), 5))
        assert all(isinstance(outcome, DatabaseUnavailable) for outcome in outcomes)
        assert "locked" in str(outcomes[0])
        assert run(lite.read(ids)) == []  # readers wait for nobody

        async def free_it() -> list[Any]:
            await lite.read(ids)
            writing = asyncio.create_task(gather(*[lite.write(add, f"{n:02}") for n in range(10)]))
            await asyncio.sleep(0)
            other.execute("ROLLBACK")
            return await writing

        assert run(free_it()) == [1] * 10


def test_sqlite_files_are_private(lite: Database, sqlite_url: str) -> None:
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    files = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3
