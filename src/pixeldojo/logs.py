"""Logs: one event a line on standard error, JSON for machines and plain for a terminal. No prompts, no keys.

Whoever works on something binds its id with `bind`; every line until the work's end carries it. What a caller wrote
(a path, say) can't begin a line of its own, and keys, signatures and passwords are blotted out wherever they stand.
"""

import contextlib
import io
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

_SECRETS = re.compile(
    r"(?P<key>\b(?:pd|whsec)_)[\w+/=-]{16,}"
    r"|(?P<scheme>\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}"
    r"|(?P<query>[?&](?:signature|sig|token|key|api_key|x-amz-[a-z-]+)=)[^&\s\"'\\]+"
    r"|(?P<user>://[^/@\s\"':]*:)[^/@\s\"']+(?=@)"
    r"|(?P<password>\bpassword=)[^\s\"'&]+",
    re.IGNORECASE,
)

Event = MutableMapping[str, Any]


def begin(**ids: str) -> None:
    """Start a new piece of work: forget what was bound, and bind these."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**ids)


def bind(**ids: str) -> None:
    """Have every line of this piece of work carry these too: `logs.bind(job=job.id)`."""
    structlog.contextvars.bind_contextvars(**ids)


def blot(text: str) -> str:
    """The text without the secrets in it."""
    return _SECRETS.sub(lambda found: f"{found[found.lastgroup or 0]}…", text)


def _plain(text: str) -> str:
    """The text on one line: control characters as they are written in programs."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _on_one_line(_: Any, __: str, event: Event) -> Event:
    for name, value in event.items():
        if isinstance(value, str) and name != "exception":
            event[name] = _plain(value)
    return event


def _traceback(sio: TextIO, exc_info: Any) -> None:
    """Indented, so that no line of it can be taken for an event; without variables, which hold prompts and keys."""
    written = io.StringIO()
    structlog.dev.plain_traceback(written, exc_info)
    sio.write("\n" + "\n".join(f"    {_plain(line)}" for line in written.getvalue().strip("\n").split("\n")))


def _blotted(_: Any, __: str, line: Any) -> Any:
    return blot(line)


def processors(*, as_json: bool, colors: bool = False) -> list[Any]:
    """What an event goes through on its way to a line."""
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=True)
    if not as_json:
        renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_traceback)
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if as_json else _on_one_line,
        renderer,
        _blotted,
    ]


class _Lenient(io.TextIOBase):
    """Standard error, whose faults stay its own: with the log on a full disk, requests and loops go on without it."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def set_up(*, level: str, form: str) -> None:
    """Configure logging for the process. `form`: `text`, `json` or `auto`."""
    on_terminal = sys.stderr.isatty()
    chain = processors(as_json=form == "json" or (form == "auto" and not on_terminal), colors=on_terminal)
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=_Lenient()),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    # what libraries say goes the same way
    handler = logging.StreamHandler(_Lenient())
    last = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *chain[3:]]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=chain[:3], processors=last))
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
