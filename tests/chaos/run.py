"""One run: open the site, let clients and storm loose on it, let it settle, hold what is left against what was told."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos import check, report
from chaos.clients import Account, Clients, open_accounts
from chaos.site import RETENTION_S, Site, opened
from chaos.storm import CALM_MS, Storm
from pixeldojo import clock
from postbox import Postbox, hang

_SETTLE_S = 120.0
# Nothing of this kind may be in a log: a loop that ended, or an error that nobody had foreseen.
_UNFORESEEN = ("loop_ended", "worker_fault", "delivery_crashed")


@dataclass(frozen=True)
class Plan:
    """What a run is made of."""

    seed: int
    kills: int
    pace: float = 1.0
    clients: int = 8
    jobs: int = 0  # the storm goes on until clients have seen the end of so many
    own_disk: bool = True


def _answers(box: Postbox, seed: int) -> None:
    """A receiver that answers, one that does so badly, one late, one never."""
    dice = random.Random(seed)

    async def flaky(writer: asyncio.StreamWriter) -> None:
        luck = dice.random()
        if luck < 0.15:
            writer.close()
        elif luck < 0.3:
            writer.write(b"HTTP/1.1 429 So\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 500 So\r\nContent-Length: 0\r\n\r\n" if luck < 0.5 else b"HTTP/1.1 204 So\r\n\r\n")

    async def late(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.4)
        writer.write(b"HTTP/1.1 204 So\r\n\r\n")

    box.answers |= {"/flaky": flaky, "/late": late, "/hang": hang}


async def _none_left(site: Site, count: Any, what: str) -> list[str]:
    """Wait until none is left; a sentence when some remain."""
    until = time.monotonic() + _SETTLE_S
    while True:
        left = await check.ask(site.database, count)
        if not left or time.monotonic() > until:
            return [f"{left} {what}"] if left else []
        await asyncio.sleep(0.2)


async def _settle(
    site: Site, clients: Clients, people: list[Account], box: Postbox
) -> tuple[list[str], check.Books, Counter[str]]:
    """Let all that was begun come to its end, step by step, and look at what is there after each."""
    site.clocks.set(CALM_MS + 60_000)  # leases have run out, and yet few jobs have expired
    site.open(("all",))
    await site.up()
    faults = await _none_left(site, check.unfinished, "jobs have not ended")
    with site.standing_still():  # nothing is swept while files and rows are compared
        books = await check.read(site.database)
        found, counts = check.files(books, site.folder, now_ms=clock.now_ms() + site.clocks.get())
    faults += found
    box.answers.clear()
    site.clocks.set(site.clocks.most_ms + 60_000)  # what a clock that was ahead wanted to send later is due
    faults += await _none_left(site, check.undelivered, "deliveries are still to be made")
    books = await check.read(site.database)
    faults += check.jobs(books, clients)
    faults += check.money(books, people, clients.grants)
    faults += check.webhooks(books, people, box.received)
    site.clocks.set(site.clocks.most_ms + (RETENTION_S + 3600) * 1000)  # everything has expired
    faults += await _none_left(site, check.unswept, "jobs were not swept")
    codes = await site.close()
    faults += [f"{name} ended with {code} when it was stopped" for name, code in codes.items() if code != 0]
    faults += [f"an orphan: {process.cmdline()}" for process in site.alive()]
    faults += check.leftovers(site.folder)
    return faults, books, counts


async def chaos(home: Path, plan: Plan, *, database_url: str = "") -> dict[str, Any]:
    """A run in the new folder `home`. What happened, in counts, and `broken`: what should not have."""
    began = time.monotonic()
    async with opened(home, database_url=database_url, own_disk=plan.own_disk) as site, Postbox() as box:
        _answers(box, plan.seed)
        people = await open_accounts(site)
        clients = Clients(site, people, seed=plan.seed, hooks=box.url(""))
        storm = Storm(site, seed=plan.seed, kills=plan.kills, pace=plan.pace, enough=lambda: clients.done >= plan.jobs)
        most_s, late = 60 + 10 * plan.kills, []
        try:
            async with asyncio.timeout(most_s), asyncio.TaskGroup() as group:
                group.create_task(clients.run(plan.clients))
                await storm.rage()
                clients.stop()
        except TimeoutError:
            late.append(f"the storm was not over after {most_s} s; the processes ended so: {dict(site.ends)}")
        stormed_s = time.monotonic() - began
        faults, books, files = await _settle(site, clients, people, box)
        faults += late
        lines = list(site.log_lines())
    faults += [f"{line['log']} logged {line}" for line in lines if line["event"] in _UNFORESEEN][:20]
    return {
        "seed": plan.seed,
        "seconds": round(time.monotonic() - began, 1),
        "storm_seconds": round(stormed_s, 1),
        "disk": "a disk of its own, really filled" if site.disk else "limited file sizes",
        "kills": {"in all": storm.done} | dict(sorted(storm.killed.items())),
        "trouble": dict(sorted(storm.trouble.items()))
        | {"failed starts": sum(count for (_, code), count in site.ends.items() if code > 0)},
        **report.figures(clients, books, box.received),
        "files": dict(sorted(files.items())),
        "logged": dict(sorted(Counter(f"{line['log']} {line['level']} {line['event']}" for line in lines).items())),
        "broken": faults,
    }
