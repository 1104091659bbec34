"""Identifiers sort by time and are never the same; secrets carry the entropy they promise."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from pixeldojo import clock, ids


def test_ids_have_one_form_and_differ() -> None:
    made = [ids.new("job") for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(re.fullmatch(r"job_[0-9a-f]{32}", each) for each in made)


def test_later_ids_are_greater(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [0, 1, 0xFFFF, 0x10000, 1_700_000_000_000, 2**48 - 1]
    made = []
    for now in times:
        monkeypatch.setattr(clock, "now_ms", lambda now=now: now)
        made.append(ids.new("job"))
    assert made == sorted(made)
    assert [int(each[4:16], 16) for each in made] == times


def test_ids_of_one_millisecond_are_in_the_order_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: 1_700_000_000_000)
    with ThreadPoolExecutor(4) as pool:
        made = [ids.new("job") for _ in range(1000)]
        others = list(pool.map(ids.new, ["job"] * 1000))
    assert made == sorted(made)
    assert len({*made, *others}) == 2000
    assert all(re.fullmatch(r"job_[0-9a-f]{32}", each) for each in made)
    monkeypatch.setattr(clock, "now_ms", lambda: 1_600_000_000_000)  # a clock that is set back is believed
    assert ids.new("job") < made[0]


def test_keys() -> None:
    made = {ids.new_key() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"pd_[A-Za-z0-9_-]{32}", each) for each in made)  # 32 × 6 bits
    assert len({each[: ids.KEY_PREFIX_CHARS] for each in made}) == 1000
    assert re.fullmatch(r"[0-9a-f]{64}", ids.new_secret())


def test_key_hashes() -> None:
    assert ids.key_hash("pd_x") == ids.key_hash("pd_x") != ids.key_hash("pd_X")
    assert re.fullmatch(r"[0-9a-f]{64}", ids.key_hash("\ud800é"))  # whatever a header held


def test_seeds_fill_32_bits() -> None:
    seeds = [ids.new_seed() for _ in range(2000)]
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert min(seeds) < 2**28
    assert max(seeds) > 2**32 - 2**28
