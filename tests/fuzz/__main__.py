"""`python -m fuzz [--seconds N] [--examples N] [--seed N]`: fuzz, print the report, 1 when anything failed."""

import argparse
import contextlib
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import postgres
from fuzz.run import Plan, run


@contextlib.contextmanager
def _postgres() -> Iterator[str]:
    """The URL of a fresh PostgreSQL database."""
    with contextlib.ExitStack() as stack:
        server = os.environ.get("PIXELDOJO_TEST_POSTGRES_URL") or stack.enter_context(postgres.wheel_server())
        yield stack.enter_context(postgres.database(server, "TEMPLATE template0 ENCODING 'UTF8'"))


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=240, help="how long")
    parser.add_argument("--examples", type=int, default=100, help="how many of each operation in each phase")
    parser.add_argument("--seed", type=int, default=None, help="the same seed asks the same")
    parser.add_argument("--keep", type=Path, help="a folder for the service's data, its log and schemathesis's report")
    parser.add_argument("--postgres", action="store_true", help="on PostgreSQL instead of SQLite")
    wanted = parser.parse_args()
    seed = secrets.randbelow(10**6) if wanted.seed is None else wanted.seed
    plan = Plan(seed=seed, examples=wanted.examples, seconds=wanted.seconds or None)
    print(f"fuzz: {plan}", flush=True)
    with contextlib.ExitStack() as stack:
        folder = wanted.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pixeldojo-fuzz-")))
        url = stack.enter_context(_postgres()) if wanted.postgres else ""
        report = run(folder, plan, database_url=url)
    if report.faults:
        print(report.output)
    print("\n".join(report.lines()))
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
