"""Small JSON bodies and query parameters, read member by member: values out, or one error that names every fault.

    wanted = await fields.of_body(request)
    name, cap = wanted.text("name", needed=True), wanted.credits("capCredits")
    wanted.finish()                                     # raises ValidationError

Nothing here knows what the members mean.
"""

import re
from datetime import UTC, datetime
from typing import Any

from pixeldojo import errors, money
from pixeldojo.api import body
from pixeldojo.api.respond import ApiRequest
from pixeldojo.jobs import intake

_MOST_BYTES = 64 * 1024
_LAST_MS = 253_402_300_799_000  # the end of the year 9999, the last one that RFC 3339 can write
_WHOLE = re.compile(r"\d{1,15}", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DAY_MS = 86_400_000


class Fields:
    """The members of one object. A member that is absent or null is None."""

    def __init__(self, members: dict[str, Any], *, query: bool = False) -> None:
        self._members, self._query = members, query
        self._asked: set[str] = set()
        self.faults: list[errors.Detail] = []

    def fault(self, name: str, message: str) -> None:
        """Name a fault; `finish` raises it."""
        self.faults.append(errors.Detail(name, message))

    def has(self, name: str) -> bool:
        """Whether the member is there, null or not."""
        self._asked.add(name)
        return name in self._members

    def _take(self, name: str, *kinds: type, needed: bool, what: str) -> Any:
        self._asked.add(name)
        value = self._members.get(name)
        if value is None:
            if needed:
                self.fault(name, "is required")
        elif type(value) not in kinds:  # exactly: a boolean is no number here
            self.fault(name, f"must be {what}")
        else:
            return value
        return None

    def text(self, name: str, *, most: int = 100, needed: bool = False, blank: bool = False) -> str | None:
        """Printable text of 1 to `most` characters."""
        found: str | None = self._take(name, str, needed=needed, what="a string")
        if found is None or (blank and not found):
            return found
        if not found.strip() or len(found) > most or not found.isprintable():
            self.fault(name, f"must be 1 to {most} printable characters")
            return None
        return found

    def texts(self, name: str) -> list[str] | None:
        """A list of texts, with at least one."""
        found = self._take(name, list, needed=False, what="a list of strings")
        if found is None:
            return None
        if not 1 <= len(found) <= 100 or any(type(each) is not str or not each.isprintable() for each in found):
            self.fault(name, "must be a list of 1 to 100 strings")
            return None
        return list(found)

    def whole(self, name: str, *, least: int, most: int) -> int | None:
        """A whole number; in a query, its digits."""
        kinds = (str,) if self._query else (int, float)
        what = f"a whole number from {least} to {most}"
        found = self._take(name, *kinds, needed=False, what=what)
        if found is None:
            return None
        if isinstance(found, str):
            found = int(found) if _WHOLE.fullmatch(found) else least - 1
        if not least <= found <= most or found != int(found):  # 2.0 is a whole number in JSON Schema
            self.fault(name, f"must be {what}")
            return None
        return int(found)

    def credits(self, name: str, *, needed: bool = False, negative: bool = False) -> int | None:
        """An amount of credits, in milli-credits."""
        what = "a number of credits with at most three decimals"
        found = self._take(name, int, float, needed=needed, what=what)
        if found is None:
            return None
        try:
            milli = money.to_milli(found)
        except ValueError:
            self.fault(name, f"must be {what}")
            return None
        if milli < 0 and not negative:
            self.fault(name, "must be zero or more")
        return milli

    def time(self, name: str, *, ends_day: bool = False) -> int | None:
        """An RFC 3339 time, or a date for its start (with `ends_day`, its end), in UTC unless it says otherwise."""
        found = self._take(name, str, needed=False, what="a time such as 2030-01-31T12:00:00Z")
        if found is None:
            return None
        try:
            moment = datetime.fromisoformat(found)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            time_ms = int(moment.timestamp() * 1000)
        except (ValueError, OverflowError):
            time_ms = -1
        if not 0 <= time_ms <= _LAST_MS:
            self.fault(name, "must be a time such as 2030-01-31T12:00:00Z, or a date")
            return None
        return time_ms + _DAY_MS if ends_day and _DATE.fullmatch(found) else time_ms

    def one_of(self, name: str, choices: tuple[str, ...]) -> str | None:
        """One of a few words."""
        found: str | None = self._take(name, str, needed=False, what=f"one of {', '.join(choices)}")
        if found and found not in choices:
            self.fault(name, f"must be one of {', '.join(choices)}")
        return found or None

    def finish(self, *, closed: bool = True) -> None:
        """Raise `ValidationError` for the faults so far; `closed`: for members nobody asked for, too."""
        unknown = sorted(set(self._members) - self._asked) if closed else []
        for name in unknown[:20]:
            self.fault(name[:100], f"unknown parameter; there are {', '.join(sorted(self._asked)) or 'none'}")
        if self.faults:
            first = self.faults[0]
            text = f"{first.path}: {first.message}" if first.path else first.message
            raise errors.ValidationError(text, details=self.faults)


def of_query(request: ApiRequest) -> Fields:
    """The query's parameters. Of one that is repeated, the texts are joined with commas."""
    query = request.query_params
    return Fields({name: ",".join(query.getall(name)) for name in query if query.get(name)}, query=True)


async def of_body(request: ApiRequest, *, optional: bool = False) -> Fields:
    """The members of the body's JSON object; none of an empty body when that is `optional`."""
    raw = await body.read(request, most=_MOST_BYTES)
    if optional and not raw.strip():
        return Fields({})
    body.require_json(request)
    members = intake.parse(raw)
    if not isinstance(members, dict):
        raise errors.ValidationError.at("", "must be a JSON object")
    return Fields(members)
