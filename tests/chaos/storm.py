"""What happens to the service: kills and stops at random moments, and trouble with disk, database and clocks.

The dice are the seed's, so a run can be had again: the same blows in the same order, as far as the processes keep up.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]

from chaos.site import ROLES, Member, Site

HOUR_MS = 3_600_000
CALM_MS = 2 * HOUR_MS  # in the second half of a run no clock is further ahead or behind than this
WILD_MS = 9 * HOUR_MS  # keeps two clocks less than a day apart: an idempotency key lives for a day
_ACT = {"split": 40, "whole": 10}  # blows, before the processes are arranged the other way
_WEIGHTS = {"api": 4, "worker": 4, "engine": 3, "courier": 3, "janitor": 2, "all": 6}
_STOPS = 0.12  # of the blows at a process, so many are polite


@dataclass
class Storm:
    """A run of blows, and the count of them."""

    site: Site
    seed: int
    kills: int
    pace: float = 1.0  # 2: half as long between two blows
    enough: Callable[[], bool] = lambda: True  # whether the clients have got far enough, too
    killed: Counter[str] = field(default_factory=Counter)
    trouble: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """How many kills there were."""
        return sum(self.killed.values())

    @property
    def over(self) -> bool:
        """Whether it is time to stop."""
        return self.done >= self.kills and self.enough()

    async def rage(self) -> None:
        """Blow after blow until there were enough kills. Every disk is free again afterwards."""
        arrangements = ("split", "whole")
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(each) for each in (self._disk(), self._clocks(), self._pauses())]
            if not self.site.database.startswith("sqlite:"):
                others.append(group.create_task(self._connections()))
            turn = 0
            while not self.over:
                arrangement = arrangements[turn % 2]
                turn += 1
                print(f"… {self.done} of {self.kills} kills", file=sys.stderr, flush=True)
                async with self._arranged(arrangement):
                    await self._act(random.Random(self.seed * 100 + turn), _ACT[arrangement])
            for other in others:
                other.cancel()

    @contextlib.asynccontextmanager
    async def _arranged(self, arrangement: str) -> AsyncIterator[None]:
        """The processes: one for each role, or one with all of them."""
        self.site.open(ROLES if arrangement == "split" else ("all",))
        try:
            yield
        finally:
            living = [name for name, member in self.site.members.items() if member.pid]
            await self.site.close(signal.SIGKILL)
            self.killed.update(living)

    async def _act(self, dice: random.Random, blows: int) -> None:
        """Mostly the clients find somebody between two blows; in a row of blows they don't."""
        for _ in range(blows):
            if dice.random() < 0.5:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._door().up(), 3)
            await asyncio.sleep(dice.uniform(0.15, 0.9) / self.pace)
            if self.over:
                return
            self._strike(dice)

    def _door(self) -> Member:
        return self.site.members.get("api") or self.site.members["all"]

    def _strike(self, dice: random.Random) -> None:
        """Hit one of those that work; now and then one that is still starting."""
        members = list(self.site.members.values())
        early, polite = dice.random() < 0.15, dice.random() < _STOPS
        names = [member.name for member in members if member.pid and (early or member.is_up)]
        if engines := sorted(pid for member in members for pid in member.engines()):
            names.append("engine")
        if not names:
            return
        victim = dice.choices(names, weights=[_WEIGHTS[name] for name in names])[0]
        if victim != "engine":
            self._hit(self.site.members[victim], polite=polite)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(dice.choice(engines), signal.SIGKILL)
            self.killed["engine"] += 1

    def _hit(self, member: Member, *, polite: bool) -> None:
        if member.send(signal.SIGTERM if polite else signal.SIGKILL):
            if polite:
                self.trouble["polite stops"] += 1
            else:
                self.killed[member.name] += 1

    async def _disk(self) -> None:
        dice = random.Random(self.seed + 1)
        while True:
            await asyncio.sleep(dice.uniform(6, 18) / self.pace)
            with self.site.full_disk():
                self.trouble["full disks"] += 1
                await asyncio.sleep(dice.uniform(0.3, 2.5))

    async def _clocks(self) -> None:
        """Mostly all clocks jump together, as that of one machine does; now and then one is off for itself."""
        dice = random.Random(self.seed + 2)
        while True:
            await asyncio.sleep(dice.uniform(2, 7) / self.pace)
            bound = WILD_MS if self.done < self.kills / 2 else CALM_MS
            kind = dice.choice(("far", "near", "near", "one", "back"))
            self.trouble["clock jumps"] += 1
            if kind == "far":
                self.site.clocks.set(dice.randint(-bound, bound))
            elif kind == "near":
                here = self.site.clocks.get()
                self.site.clocks.set(max(-bound, min(bound, here + dice.randint(-30_000, 30_000))))
            elif kind == "back":
                self.site.clocks.set(0)
            else:
                slot = dice.randrange(len(ROLES))
                self.site.clocks.set(self.site.clocks.get() + dice.randint(-4_000, 4_000), slot=slot)

    async def _pauses(self) -> None:
        """A process stands still for longer than its leases last, and goes on as if nothing had been."""
        dice = random.Random(self.seed + 3)
        while True:
            await asyncio.sleep(dice.uniform(4, 12) / self.pace)
            members = [member for member in self.site.members.values() if member.is_up]
            if not members:
                continue
            member = dice.choice(sorted(members, key=lambda each: each.name))
            if (pid := member.pid) is None or not member.send(signal.SIGSTOP):
                continue
            self.trouble["pauses"] += 1
            try:
                await asyncio.sleep(dice.uniform(0.3, 2.5))
            finally:
                if member.pid == pid:  # and was not killed meanwhile
                    member.send(signal.SIGCONT)

    async def _connections(self) -> None:
        """The database's server ends connections; rarely it crashes as a whole and recovers."""
        import psycopg

        dice = random.Random(self.seed + 4)
        while True:
            await asyncio.sleep(dice.uniform(1, 4) / self.pace)
            crash = dice.random() < 0.06
            with contextlib.suppress(psycopg.Error):
                pids = await asyncio.to_thread(_backends, self.site.database)
                chosen = dice.sample(pids, dice.randint(0, len(pids)))
                if crash and chosen:
                    self.trouble["database crashes"] += _crash(self.site.database, chosen[0])
                elif chosen:
                    self.trouble["dropped connections"] += await asyncio.to_thread(
                        _terminate, self.site.database, chosen
                    )


def _backends(url: str) -> list[int]:
    import psycopg

    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pixeldojo'"
        ).fetchall()
    return sorted(row[0] for row in rows)


def _crash(url: str, pid: int) -> bool:
    """Kill a backend: the server then ends all others too, and recovers. False where the server is not ours to kill."""
    name = urlsplit(url).path[1:]
    with contextlib.suppress(psutil.Error, PermissionError, ProcessLookupError):
        process = psutil.Process(pid)
        if process.name().startswith("postgres") and any(name in part for part in process.cmdline()):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def _terminate(url: str, pids: list[int]) -> int:
    import psycopg

    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        rows = connection.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [pids]).fetchall()
    return sum(bool(row[0]) for row in rows)
