"""Accounts and keys below the doors: names, what is stored, who is let in."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from pixeldojo import clock, errors, ids
from pixeldojo.accounts import service as accounts
from pixeldojo.db import Database, Tx

T = TypeVar("T")
Run = Callable[[Awaitable[T]], T]
BAD_NAMES = ["", "   ", "x" * 101, "a\nb", "a\0b", "\ud800", "a\x7f", "\u202e"]


@pytest.fixture
def act(db: Database, run: Run[Any]) -> Callable[..., Any]:
    """Runs one function of a room in a transaction of its own."""
    return lambda fn, **more: run(db.write(fn, **more))


def _columns(tx: Tx) -> str:
    return repr(tx.all("SELECT * FROM keys"))


def test_accounts(act: Callable[..., Any]) -> None:
    ana = act(accounts.create_account, name="  Ana  ")
    assert (ana.name, ana.balance_milli) == ("Ana", 0)
    assert act(accounts.get_account, name="Ana") == act(accounts.get_account, name=ana.id) == ana
    ben = act(accounts.create_account, name="ana")  # another name, for names are exact
    assert act(accounts.list_accounts) == [ana, ben]
    for taken in ("Ana", " Ana"):
        with pytest.raises(errors.ValidationError, match="already"):
            act(accounts.create_account, name=taken)
    with pytest.raises(errors.NotFound):
        act(accounts.get_account, name="Cleo")
    assert act(accounts.list_accounts) == [ana, ben]


def test_the_default_account_makes_itself_once(act: Callable[..., Any]) -> None:
    first = act(accounts.get_account, name=accounts.DEFAULT_ACCOUNT)
    assert act(accounts.get_account, name=accounts.DEFAULT_ACCOUNT) == first
    assert act(accounts.list_accounts) == [first]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(act: Callable[..., Any], name: str) -> None:
    with pytest.raises(errors.ValidationError) as caught:
        act(accounts.create_account, name=name)
    assert [detail.path for detail in caught.value.details] == ["name"]
    ana = act(accounts.create_account, name="Ana")
    with pytest.raises(errors.ValidationError):
        act(accounts.create_key, account_id=ana.id, name=name)


def test_a_key_is_stored_without_itself(act: Callable[..., Any]) -> None:
    ana = act(accounts.create_account, name="Ana")
    key, secret = act(accounts.create_key, account_id=ana.id, name="laptop")
    assert key.prefix == secret[: ids.KEY_PREFIX_CHARS]
    assert secret[ids.KEY_PREFIX_CHARS :] not in act(_columns)
    assert act(accounts.list_keys, account_id=ana.id) == [key]
    caller = act(accounts.authenticate, authorization=f"Bearer {secret}")
    assert (caller.account_id, caller.key_id, caller.models) == (ana.id, key.id, None)


def test_allow_lists(act: Callable[..., Any]) -> None:
    ana = act(accounts.create_account, name="Ana")
    for models, may, may_not in ((["b", "a", "b"], "a", "c"), ([], None, "a"), (None, "a", None)):
        _, secret = act(accounts.create_key, account_id=ana.id, name="x", models=models)
        caller = act(accounts.authenticate, authorization=f"Bearer {secret}")
        assert may is None or caller.may_run(may)
        assert may_not is None or not caller.may_run(may_not)


def test_limits_that_make_no_sense(act: Callable[..., Any]) -> None:
    ana = act(accounts.create_account, name="Ana")
    wrong: list[tuple[str, dict[str, int]]] = [
        ("expiresAt", {"expires_ms": clock.now_ms()}),
        ("expiresAt", {"expires_ms": 0}),
        ("capCredits", {"cap_milli": -1}),
    ]
    for path, more in wrong:
        with pytest.raises(errors.ValidationError) as caught:
            act(accounts.create_key, account_id=ana.id, name="x", **more)
        assert [detail.path for detail in caught.value.details] == [path]
    assert act(accounts.list_keys, account_id=ana.id) == []


def test_revoking(act: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ana, ben = (act(accounts.create_account, name=name) for name in ("Ana", "Ben"))
    key, secret = act(accounts.create_key, account_id=ana.id, name="one")
    other, _ = act(accounts.create_key, account_id=ana.id, name="two")
    for account, named in ((ben, key.id), (ana, "pd_nothing"), (ana, secret), (ana, ""), (ana, "one")):
        with pytest.raises(errors.NotFound):
            act(accounts.revoke_key, account_id=account.id, key=named)
    act(accounts.authenticate, authorization=f"Bearer {secret}")
    act(accounts.revoke_key, account_id=ana.id, key=key.prefix)
    revoked_ms = act(accounts.list_keys, account_id=ana.id)[0].revoked_ms
    monkeypatch.setattr(clock, "now_ms", lambda: revoked_ms + 5000)
    act(accounts.revoke_key, account_id=ana.id, key=key.id)  # twice is no error, and the first time stays
    kept = act(accounts.list_keys, account_id=ana.id)
    assert [each.revoked_ms for each in kept] == [revoked_ms, None]
    assert kept[1].id == other.id
    with pytest.raises(errors.Unauthorized, match="revoked"):
        act(accounts.authenticate, authorization=f"Bearer {secret}")


def test_a_prefix_that_two_keys_share(act: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ana = act(accounts.create_account, name="Ana")
    made = iter(["pd_AAAAAAAA1", "pd_AAAAAAAA2"])
    monkeypatch.setattr(ids, "new_key", lambda: next(made))
    keys = [act(accounts.create_key, account_id=ana.id, name="x")[0] for _ in range(2)]
    with pytest.raises(errors.ValidationError, match="2 keys"):
        act(accounts.revoke_key, account_id=ana.id, key="pd_AAAAAAAA")
    act(accounts.revoke_key, account_id=ana.id, key=keys[0].id)
    assert [each.revoked_ms is None for each in act(accounts.list_keys, account_id=ana.id)] == [False, True]
