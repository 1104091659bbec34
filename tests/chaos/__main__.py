"""`python -m chaos [--database sqlite|postgres] [--kills N] [--seed N]`: a storm, its report, and what it broke."""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import postgres
from chaos import report
from chaos.run import Plan, chaos

KILLS = {"sqlite": 500, "postgres": 200}


@contextlib.contextmanager
def _database(name: str) -> Iterator[str]:
    """The URL of a fresh database; empty for SQLite, which lies in the data folder."""
    if name == "sqlite":
        yield ""
        return
    with contextlib.ExitStack() as stack:
        server = os.environ.get("PIXELDOJO_TEST_POSTGRES_URL") or stack.enter_context(postgres.wheel_server())
        url = stack.enter_context(postgres.database(server, "TEMPLATE template0 ENCODING 'UTF8'"))
        postgres.keep_commits(url)
        yield url


async def _run(home: Path, plan: Plan, url: str) -> dict[str, Any]:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # no process and no disk is left
    return await chaos(home, plan, database_url=url)


def _wanted() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--database", choices=sorted(KILLS), action="append", help="one of them; both when not given")
    parser.add_argument("--kills", type=int, help=f"how many SIGKILLs; {KILLS} when not given")
    parser.add_argument("--seed", type=int, default=None, help="the same seed strikes the same blows")
    parser.add_argument("--pace", type=float, default=1.0, help="2: half as long between two blows")
    parser.add_argument("--keep", action="store_true", help="keep the logs and the data folder")
    return parser.parse_args()


def main() -> int:
    """Run, print, and write build/chaos.json; 1 when something was broken."""
    wanted = _wanted()
    out = Path("build/chaos.json")
    out.parent.mkdir(exist_ok=True)
    found: dict[str, Any] = {}
    if importlib.util.find_spec("psycopg") is None:
        raise SystemExit("psycopg is not installed: use --database sqlite, or install the extra [postgres]")
    for name in wanted.database or list(KILLS):
        seed = secrets.randbelow(10**6) if wanted.seed is None else wanted.seed
        plan = Plan(seed=seed, kills=KILLS[name] if wanted.kills is None else wanted.kills, pace=wanted.pace)
        home = Path(tempfile.mkdtemp(prefix="pixeldojo-chaos-"))
        print(f"… {name}: {plan.kills} kills, seed {seed}, in {home}", file=sys.stderr, flush=True)
        with _database(name) as url:
            told = asyncio.run(_run(home / "site", plan, url))
        found[name] = told
        print(report.text(name, told), flush=True)
        out.write_text(json.dumps(found, indent=2) + "\n")
        if not told["broken"] and not wanted.keep:
            report.forget(home)
    return 1 if any(told["broken"] for told in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
