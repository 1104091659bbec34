"""Signed URLs: what opens a file, and what does not."""

from collections.abc import Callable
from urllib.parse import parse_qsl, urlsplit

import pytest

from pixeldojo import clock, errors
from pixeldojo.assets.signing import PREFIX, Signer

KEY = "job_1/0.png"
NOW = 1_700_000_000_000


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    monkeypatch.setattr(clock, "now_ms", lambda: NOW)

    def query(*, expires_ms: int = NOW + 60_000, secret: str = "s") -> dict[str, str]:
        parts = urlsplit(Signer(secret).url_path(KEY, expires_ms=expires_ms))
        assert parts.path == PREFIX + KEY
        return dict(parse_qsl(parts.query, strict_parsing=True))

    return query


def test_the_same_file_and_time_give_the_same_url(signed: Callable[..., dict[str, str]]) -> None:
    query = signed()
    assert query == signed() == signed(expires_ms=NOW + 60_999)  # whole seconds
    assert len(query["signature"]) == 40  # 160 bits
    Signer("s").check(KEY, **query)


@pytest.mark.parametrize(
    ("change", "secret", "key"),
    [
        ({}, "t", KEY),
        ({}, "", KEY),
        ({}, "s", "job_1/1.png"),
        ({}, "s", "job_2/0.png"),
        ({}, "s", "job_1/0.png\n"),
        ({"signature": ""}, "s", KEY),
        ({"signature": "0" * 40}, "s", KEY),
        ({"signature": "é\ud800"}, "s", KEY),
        ({"expires": str(NOW // 1000 + 61)}, "s", KEY),
        ({"expires": ""}, "s", KEY),
        ({"expires": "-1"}, "s", KEY),
        ({"expires": "1.7e9"}, "s", KEY),
        ({"expires": "9" * 10_000}, "s", KEY),
        ({"expires": "١٧"}, "s", KEY),
    ],
)
def test_any_change_makes_it_unknown(
    signed: Callable[..., dict[str, str]], change: dict[str, str], secret: str, key: str
) -> None:
    with pytest.raises(errors.NotFound):
        Signer(secret).check(key, **(signed() | change))


def test_it_ends_on_the_second(signed: Callable[..., dict[str, str]]) -> None:
    Signer("s").check(KEY, **signed(expires_ms=NOW + 1000))
    for expires_ms in (NOW, NOW + 999, NOW - 1, 0):
        with pytest.raises(errors.Expired):
            Signer("s").check(KEY, **signed(expires_ms=expires_ms))


def test_key_and_time_cannot_be_shifted_into_each_other(signed: Callable[..., dict[str, str]]) -> None:
    query = signed()
    with pytest.raises(errors.NotFound):
        Signer("s").check(f"{KEY}\n{query['expires'][:3]}", expires=query["expires"][3:], signature=query["signature"])
