"""What a run says of itself: its figures, and the text people read."""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chaos.check import Books
from chaos.clients import Clients
from postbox import Received

_SHOWN = 40
_ONLY_IN_JSON = ("answers", "logged")


def figures(clients: Clients, books: Books, received: Sequence[Received]) -> dict[str, Any]:
    """What the clients, the rows and the receiver saw, in counts."""
    orders, by_order = clients.orders, books.by_order
    ends = Counter(f"{job['status']} {job['error_code'] or ''}".strip() for job in books.jobs.values())
    told = Counter(each.id for each in received)
    terminal = {row["id"] for row in books.deliveries if row["terminal"]}
    return {
        "submits": {
            "orders": len(orders),
            "accepted": sum(bool(order.jobs) for order in orders),
            "refused": sum(bool(order.refused) and not order.jobs for order in orders),
            "with a lost answer": sum(bool(order.lost) for order in orders),
            "jobs whose answer never came": sum(len(by_order[order.name]) for order in orders if not order.jobs),
            "answered twice or more": sum(len(order.jobs) > 1 for order in orders),
            "tries that found nobody": sum(order.away for order in orders),
        },
        "jobs": {"in all": len(books.jobs)} | dict(sorted(ends.items())),
        "attempts": {f"jobs with {n}": jobs for n, jobs in sorted(Counter(_attempts(books)).items())},
        "webhooks": {
            "ends told": len(terminal & set(told)),
            "received": sum(told[name] for name in terminal),
            "received twice or more": sum(told[name] > 1 for name in terminal),
            "starts and progress": len(set(told) - terminal),
        },
        "answers": dict(sorted(clients.answers.items())),
    }


def _attempts(books: Books) -> list[int]:
    return [job["attempt"] for job in books.jobs.values()]


def text(name: str, told: Mapping[str, Any]) -> str:
    """The report, for people."""
    lines = [f"chaos on {name}, seed {told['seed']}: {told['seconds']} s, of them {told['storm_seconds']} s of storm"]
    for title, value in told.items():
        if isinstance(value, Mapping) and title not in _ONLY_IN_JSON:
            lines.append(f"  {title:9}" + ", ".join(f"{what} {count}" for what, count in value.items()))
    lines.append(f"  disk     {told['disk']}")
    broken = told["broken"]
    lines.append(f"  broken   {len(broken) or 'nothing'}")
    lines += [f"    {fault[:400]}" for fault in broken[:_SHOWN]]
    return "\n".join(lines)


def forget(home: Path) -> None:
    """Remove what a run left behind."""
    shutil.rmtree(home, ignore_errors=True)
