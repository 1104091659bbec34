"""What a command prints: one JSON document, a table on a terminal, tab-separated lines elsewhere.

Results go to standard output; progress, summaries and errors to standard error. rich is imported where a
terminal wants it, because most calls of the command line come from programs.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from pixeldojo.cli.outcome import CommandFailed

Json = Annotated[bool, Parameter("--json", negative=(), show_default=False, help="Print one JSON document.")]
Account = Annotated[str, Parameter("--account", help="Name or id of the account.")]

Step = Callable[[str, float | None], None]


def printable(value: object) -> str:
    """`value` on one line, without characters that would steer a terminal."""
    text = "" if value is None else str(value)
    return "".join(char if char.isprintable() else " " for char in text)


def document(data: Any) -> None:
    """One JSON document: indented for a reader, one line for a program."""
    raw = msgspec.json.encode(data)
    line(msgspec.json.format(raw, indent=2 if sys.stdout.isatty() else 0).decode())


def line(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(text.encode("utf-8", "replace").decode() + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line beside the result."""
    sys.stderr.write(text.encode("utf-8", "replace").decode() + "\n")
    sys.stderr.flush()


def failure(fault: CommandFailed, *, as_json: bool) -> None:
    """The fault, where its reader looks for it."""
    if as_json:
        document(fault.envelope())
    else:
        note(f"error: {printable(fault.message)}")


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Rows under heads; numbers to the right. `empty` is said when there are none."""
    if not sys.stdout.isatty():
        for row in (heads, *rows):
            line("\t".join(printable(cell) for cell in row))
        return
    if not rows:
        line(empty)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for index, head in enumerate(heads):
        numbers = all(isinstance(row[index], int | float) for row in rows)
        shown.add_column(Text(head), justify="right" if numbers else "left", overflow="fold", no_wrap=index == 0)
    for row in rows:
        shown.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(shown)


def pairs(rows: Sequence[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    width = max((len(name) for name, _ in rows), default=0) if sys.stdout.isatty() else 0
    for name, value in rows:
        line(f"{name:<{width}}\t{printable(value)}" if not width else f"{name:<{width}}  {printable(value)}")


@contextlib.contextmanager
def progress(*, wanted: bool) -> Iterator[Step]:
    """A bar on the terminal. The yielded function takes what is going on, and a fraction where one is known."""
    if not wanted or not sys.stderr.isatty():
        yield lambda what, fraction: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("connecting", total=None)

        def step(what: str, fraction: float | None) -> None:
            bar.update(task, description=what, total=None if fraction is None else 1.0, completed=fraction or 0.0)

        yield step
