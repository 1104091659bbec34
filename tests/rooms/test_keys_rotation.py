"""Keys that replace one another share one budget, exactly, whoever spends at the same time; what a key hands on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from pixeldojo import clock, errors, ids
from pixeldojo.accounts import handing, view
from pixeldojo.accounts import service as accounts
from pixeldojo.accounts.service import Caller, Key
from pixeldojo.db import Database, Tx
from pixeldojo.ledger import service as ledger

T = TypeVar("T")
Run = Callable[[Awaitable[Any]], Any]
DAY_S = 24 * 3600


class Desk:
    """An account with credits, on one database."""

    def __init__(self, db: Database, run: Run) -> None:
        self.db, self.run = db, run
        self.account_id: str = self.do(accounts.create_account, name="Ana").id
        self.do(ledger.grant, account_id=self.account_id, amount_milli=1_000_000)

    def do(self, fn: Callable[..., T], /, **more: Any) -> T:
        found: T = self.run(self.db.write(fn, **more))
        return found

    def at_once(self, *calls: tuple[Callable[..., Any], dict[str, Any]]) -> list[Any]:
        """What came of each call, all under way together: its result or its error."""

        async def act() -> list[Any]:
            return await asyncio.gather(*(self.db.write(fn, **more) for fn, more in calls), return_exceptions=True)

        done: list[Any] = self.run(act())
        return done

    def key(self, **terms: Any) -> tuple[Key, str]:
        return self.do(accounts.create_key, account_id=self.account_id, name="key", **terms)

    def rotate(self, key: Key, **more: Any) -> tuple[Key, Key, str]:
        return self.do(accounts.rotate_key, account_id=self.account_id, key=key.id, **more)

    def caller(self, text: str) -> Caller:
        return self.do(accounts.authenticate, authorization=f"Bearer {text}")

    def see(self, key: Key) -> Key:
        return self.do(accounts.find_key, account_id=self.account_id, key=key.id)

    def pay(self, key: Key, cost_milli: int) -> tuple[Callable[..., Any], dict[str, Any]]:
        """A charge of a fresh job, to be done."""
        return ledger.charge, self._names(key, ids.new("job"), cost_milli)

    def _names(self, key: Key, job_id: str, cost_milli: int) -> dict[str, Any]:
        named = {"account_id": self.account_id, "key_id": key.id, "job_id": job_id, "model": "none"}
        return named | {"cost_milli": cost_milli}

    def issue(self, text: str, rate: str = "60/minute", **terms: Any) -> Key:
        wanted = handing.Terms(**({"name": "child"} | terms))
        return self.do(handing.issue_key, caller=self.caller(text), terms=wanted, service_rate=rate)[0]


@pytest.fixture
def desk(db: Database, run: Run) -> Desk:
    return Desk(db, run)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    real, moved = clock.now_ms, 0

    def move(by_s: int) -> None:
        nonlocal moved
        moved += by_s * 1000
        monkeypatch.setattr(clock, "now_ms", lambda: real() + moved)

    return move


def test_a_rotated_key_keeps_its_terms(desk: Desk) -> None:
    expires = clock.now_ms() + 30 * DAY_S * 1000
    scopes = ["account:read", "jobs:write"]
    first, text = desk.key(
        models=["b", "a"], cap_milli=5_000, expires_ms=expires, rate_limit="5/second", scopes=scopes
    )  # fmt: skip
    old, new, fresh = desk.rotate(first)
    assert fresh != text
    assert fresh.startswith(new.prefix)
    same = ("name", "models", "cap_milli", "spent_milli", "rate_limit", "scopes", "budget_id", "account_id")
    assert [getattr(new, name) for name in same] == [getattr(first, name) for name in same]
    assert (new.expires_ms, new.replaced_by, new.revoked_ms) == (expires, None, None)
    assert old == desk.see(first)
    assert new == desk.see(new)
    assert old.replaced_by == new.id
    assert old.expires_ms is not None
    assert abs(old.expires_ms - new.created_ms - DAY_S * 1000) <= 1
    assert desk.caller(text).key_id == first.id
    assert desk.caller(fresh).key_id == new.id
    assert desk.caller(fresh).scopes == {*scopes}


def test_the_old_key_ends_with_its_grace(desk: Desk, later: Callable[[int], None]) -> None:
    first, text = desk.key()
    _, _, fresh = desk.rotate(first, grace_s=60)
    later(59)
    assert desk.caller(text).key_id == first.id
    later(1)
    with pytest.raises(errors.Unauthorized, match="rotated"):
        desk.caller(text)
    desk.caller(fresh)


def test_no_grace_ends_it_at_once_and_grace_never_lengthens(desk: Desk) -> None:
    first, text = desk.key()
    desk.rotate(first, grace_s=0)
    with pytest.raises(errors.Unauthorized, match="rotated"):
        desk.caller(text)
    soon = clock.now_ms() + 60_000
    short, _ = desk.key(expires_ms=soon)
    old, new, _ = desk.rotate(short, grace_s=DAY_S)
    assert (old.expires_ms, new.expires_ms) == (soon, soon)


def test_what_can_not_be_rotated(desk: Desk, later: Callable[[int], None]) -> None:
    first, _ = desk.key()
    _, new, _ = desk.rotate(first)
    with pytest.raises(errors.ValidationError, match=new.id):
        desk.rotate(first)
    desk.rotate(new)
    revoked, _ = desk.key()
    desk.do(accounts.revoke_key, account_id=desk.account_id, key=revoked.id)
    with pytest.raises(errors.ValidationError, match="ended"):
        desk.rotate(revoked)
    expired, _ = desk.key(expires_ms=clock.now_ms() + 1000)
    later(2)
    with pytest.raises(errors.ValidationError, match="ended"):
        desk.rotate(expired)
    with pytest.raises(errors.NotFound):
        desk.do(accounts.rotate_key, account_id=desk.account_id, key="key_none")


def test_of_many_rotations_at_once_one_comes_about(desk: Desk) -> None:
    first, _ = desk.key(cap_milli=1_000)
    call = (accounts.rotate_key, {"account_id": desk.account_id, "key": first.id})
    done = desk.at_once(*[call] * 8)
    made = [each for each in done if isinstance(each, tuple)]
    assert len(made) == 1
    assert all(isinstance(each, errors.ValidationError) for each in done if each not in made)
    keys = desk.do(accounts.list_keys, account_id=desk.account_id)
    assert [key.id for key in keys] == sorted([first.id, made[0][1].id])


def test_spending_is_shared_to_the_milli_credit(desk: Desk) -> None:
    first, _ = desk.key(cap_milli=1_000)
    fn, names = desk.pay(first, 400)
    desk.do(fn, **names)
    _, second, _ = desk.rotate(first)
    _, third, _ = desk.rotate(second)
    assert second.spent_milli == 400
    fn, last = desk.pay(third, 600)
    desk.do(fn, **last)
    for key in (first, second, third):
        assert (desk.see(key).spent_milli, desk.see(key).cap_milli) == (1_000, 1_000)
        with pytest.raises(errors.InsufficientCredits, match="may spend 1 credits and has spent 1"):
            desk.do(ledger.charge, **desk.pay(key, 1)[1])
    desk.do(ledger.refund, **names)  # the first key's job failed: the third may spend what came back
    desk.do(ledger.charge, **desk.pay(third, 400)[1])
    assert desk.see(first).spent_milli == 1_000
    desk.do(accounts.revoke_key, account_id=desk.account_id, key=first.id)
    desk.do(ledger.refund, **last)
    assert desk.see(third).spent_milli == 400
    assert desk.do(ledger.audit) == []


@pytest.mark.parametrize(("cap", "cost"), [(10_000, 333), (7_001, 1_000), (99, 33)])
def test_a_cap_holds_for_old_and_new_at_once(desk: Desk, cap: int, cost: int) -> None:
    first, _ = desk.key(cap_milli=cap)
    _, second, _ = desk.rotate(first)
    _, third, _ = desk.rotate(second)
    free, _ = desk.key()
    calls = [desk.pay((first, second, third)[number % 3], cost) for number in range(cap // cost + 12)]
    done = desk.at_once(*calls, desk.pay(free, 1))
    refused = [each for each in done if isinstance(each, Exception)]
    assert all(isinstance(each, errors.InsufficientCredits) for each in refused)
    assert len(refused) == 12
    spent = cap // cost * cost
    assert {desk.see(key).spent_milli for key in (first, second, third)} == {spent}
    assert desk.see(free).spent_milli == 1
    assert desk.do(ledger.balance, account_id=desk.account_id) == 1_000_000 - spent - 1
    assert desk.do(ledger.audit) == []


def test_charges_and_refunds_of_both_keys_at_once(desk: Desk) -> None:
    first, _ = desk.key(cap_milli=1_500)
    _, second, _ = desk.rotate(first)
    paid = [desk.pay(key, 50) for key in (first, second) * 15]
    assert not [each for each in desk.at_once(*paid) if isinstance(each, Exception)]
    back = [(ledger.refund, names) for _, names in paid[::2]]
    more = [desk.pay(key, 50) for key in (second, first) * 15]
    done = desk.at_once(*(call for pair in zip(back, more, strict=False) for call in pair), *more[15:])
    went_through = sum(not isinstance(each, Exception) for each in done) - len(back)
    assert all(isinstance(each, errors.InsufficientCredits) for each in done if isinstance(each, Exception))
    spent = (30 - len(back) + went_through) * 50
    assert spent <= 1_500
    assert desk.see(first).spent_milli == desk.see(second).spent_milli == spent
    assert desk.do(ledger.audit) == []


def test_a_budget_of_one_key_is_no_business_of_another(desk: Desk) -> None:
    ours, _ = desk.key(cap_milli=100)
    theirs, _ = desk.key(cap_milli=100)
    assert ours.budget_id != theirs.budget_id
    desk.do(ledger.charge, **desk.pay(ours, 100)[1])
    assert desk.see(theirs).spent_milli == 0


def test_a_key_hands_on_no_more_than_it_has(desk: Desk) -> None:
    soon = clock.now_ms() + DAY_S * 1000
    limited: dict[str, Any] = {"scopes": ["account:write", "jobs:read"], "models": ["a", "b"], "expires_ms": soon}
    _, text = desk.key(**limited, rate_limit="10/minute")
    child = desk.issue(text)
    assert accounts.scopes_of(child) == {"jobs:read"}
    assert (accounts.models_of(child), child.expires_ms, child.rate_limit) == (("a", "b"), soon, "10/minute")
    child = desk.issue(text, scopes=["account:write"], models=["b"], expires_ms=soon - 1, rate_limit="5/minute")
    assert (accounts.models_of(child), child.expires_ms, child.rate_limit) == (("b",), soon - 1, "5/minute")
    for wish, path in (
        ({"scopes": ["jobs:write"]}, "scopes"),
        ({"scopes": ["admin"]}, "scopes"),
        ({"models": ["c"]}, "models"),
        ({"expires_ms": soon + 1}, "expiresAt"),
        ({"rate_limit": "11/minute"}, "rateLimit"),
        ({"rate_limit": "10/second"}, "rateLimit"),
        ({"rate_limit": "100/hour"}, "rateLimit"),
        ({"rate_limit": "off"}, "rateLimit"),
    ):
        with pytest.raises(errors.ValidationError) as refused:
            desk.issue(text, **wish)
        assert [each.path for each in refused.value.details] == [path], wish
    with pytest.raises(errors.ValidationError) as refused:
        desk.issue(text, scopes=["admin"], models=["c"], expires_ms=soon + 1)
    assert {each.path for each in refused.value.details} == {"scopes", "models", "expiresAt"}


def test_rates_against_the_services_own(desk: Desk) -> None:
    _, text = desk.key(scopes=["account:write", "jobs:read"])
    assert desk.issue(text, rate_limit="30/minute").rate_limit == "30/minute"
    assert desk.issue(text, "off", rate_limit="1000/second").rate_limit == "1000/second"
    assert desk.issue(text, "off", rate_limit="off").rate_limit == "off"
    with pytest.raises(errors.ValidationError, match="60/minute"):
        desk.issue(text, rate_limit="61/minute")


def test_keys_of_a_capped_key_spend_from_its_cap(desk: Desk) -> None:
    own, text = desk.key(cap_milli=1_000, scopes=["account:write", "jobs:write"])
    child = desk.issue(text)
    assert (child.budget_id, child.cap_milli) == (own.budget_id, 1_000)
    desk.do(ledger.charge, **desk.pay(child, 900)[1])
    with pytest.raises(errors.InsufficientCredits):
        desk.do(ledger.charge, **desk.pay(own, 101)[1])
    with pytest.raises(errors.ValidationError, match="capCredits"):
        desk.issue(text, cap_milli=5)


def test_rotating_is_no_way_to_a_better_key(desk: Desk) -> None:
    def rotate(text: str, key: Key) -> tuple[Key, Key, str]:
        return desk.do(handing.rotate_key, caller=desk.caller(text), key_id=key.id, grace_s=60)

    scopes = ["account:write", "jobs:read"]
    soon = clock.now_ms() + DAY_S * 1000
    whole, whole_text = desk.key(scopes=scopes)
    narrow, narrow_text = desk.key(scopes=scopes, models=["a"])
    capped, capped_text = desk.key(scopes=scopes, cap_milli=10)
    brief, brief_text = desk.key(scopes=scopes, expires_ms=soon)
    root, root_text = desk.key(scopes=["admin"])
    for text, key, reason in (
        (narrow_text, whole, "other models"),
        (capped_text, whole, "another budget"),
        (brief_text, whole, "for longer"),
        (whole_text, root, "admin"),
    ):
        with pytest.raises(errors.ValidationError, match=reason):
            rotate(text, key)
    for text, key in ((whole_text, narrow), (whole_text, capped), (whole_text, brief), (root_text, whole)):
        rotate(text, key)
    # Whoever holds a key that was rotated away can't follow: its successor works for longer.
    _, after, _ = desk.rotate(desk.key(scopes=scopes)[0])
    first, stolen = desk.key(scopes=scopes)
    _, second, _ = desk.rotate(first)
    for target in (second, after):
        with pytest.raises(errors.ValidationError, match="for longer"):
            rotate(stolen, target)


def test_who_revokes_whom(desk: Desk) -> None:
    def revoke(text: str, key: Key) -> Key:
        return desk.do(handing.revoke_key, caller=desk.caller(text), key_id=key.id)

    writer, writer_text = desk.key(scopes=["account:write"])
    reader, reader_text = desk.key(scopes=["jobs:read"])
    root, root_text = desk.key(scopes=["admin"])
    with pytest.raises(errors.Unauthorized, match="account:write"):
        revoke(reader_text, writer)
    with pytest.raises(errors.Unauthorized, match="admin"):
        revoke(writer_text, root)
    assert revoke(reader_text, reader).revoked_ms is not None
    assert revoke(root_text, writer).revoked_ms is not None
    assert revoke(root_text, root).revoked_ms is not None
    for text in (writer_text, reader_text, root_text):
        with pytest.raises(errors.Unauthorized, match="revoked"):
            desk.caller(text)


def test_an_account_has_room_for_so_many_keys(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handing, "MOST_KEYS", 3)
    own, text = desk.key(scopes=["account:write", "jobs:read"])
    desk.issue(text)
    last = desk.issue(text)
    with pytest.raises(errors.ValidationError, match="3 keys"):
        desk.issue(text)
    with pytest.raises(errors.ValidationError, match="3 keys"):
        desk.do(handing.rotate_key, caller=desk.caller(text), key_id=last.id, grace_s=1)
    desk.do(handing.rotate_key, caller=desk.caller(text), key_id=last.id, grace_s=0)
    desk.do(accounts.revoke_key, account_id=desk.account_id, key=own.id)
    assert desk.do(_live, account_id=desk.account_id) == 2


def _live(tx: Tx, *, account_id: str) -> int:
    return sum(view.key(key)["status"] == "active" for key in accounts.list_keys(tx, account_id=account_id))


def test_a_grant_under_one_key_is_made_once(desk: Desk) -> None:
    names: dict[str, Any] = {"account_id": desk.account_id, "amount_milli": 5_000, "note": "may", "request_key": "k1"}
    done = desk.at_once(*[(ledger.grant_once, names)] * 10)
    assert {entry.id for entry, _ in done} == {done[0][0].id}
    assert sorted(replayed for _, replayed in done) == [False] + [True] * 9
    assert desk.do(ledger.balance, account_id=desk.account_id) == 1_005_000
    changes: list[dict[str, Any]] = [{"amount_milli": 5_001}, {"note": "june"}]
    for change in changes:
        with pytest.raises(errors.ValidationError, match="used before"):
            desk.do(ledger.grant_once, **(names | change))
    assert desk.do(ledger.grant_once, **(names | {"request_key": "k2"}))[1] is False
    assert desk.do(ledger.grant_once, **(names | {"request_key": None}))[1] is False
    taken = names | {"amount_milli": -1_015_000, "request_key": "k3"}
    assert desk.do(ledger.grant_once, **taken)[0].balance_milli == 0
    assert desk.do(ledger.grant_once, **taken)[1] is True  # although there is nothing left to take
    other = desk.do(accounts.create_account, name="Bob").id
    assert desk.do(ledger.grant_once, **(names | {"account_id": other}))[1] is False
    assert desk.do(ledger.audit) == []
