"""Credits outside, milli-credits inside, and nothing lost between."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixeldojo import money


@pytest.mark.parametrize(
    ("milli", "shown"), [(0, 0), (1, 0.001), (100, 0.1), (1500, 1.5), (2000, 2), (-1500, -1.5), (-1, -0.001)]
)
def test_amounts_as_json(milli: int, shown: float) -> None:
    assert money.to_credits(milli) == shown
    assert type(money.to_credits(milli)) is type(shown)


@given(st.integers(-money.MOST_MILLI, money.MOST_MILLI))
def test_there_and_back(milli: int) -> None:
    assert money.to_milli(money.to_credits(milli)) == milli
    assert money.to_milli(str(Decimal(milli) / 1000)) == milli


@pytest.mark.parametrize(
    ("text", "milli"),
    [("12.5", 12_500), (" 5 ", 5000), ("1e3", 1_000_000), ("0.001", 1), ("-3", -3000), (0.1, 100), (7, 7000),
     ("1.5000000000000000000000000000000000000", 1500), ("1000000000000", money.MOST_MILLI)],
)  # fmt: skip
def test_amounts_as_typed(text: str | float, milli: int) -> None:
    assert money.to_milli(text) == milli


@pytest.mark.parametrize(
    "text",
    ["", "x", "1,5", "0x1", "nan", "sNaN", "inf", "-Infinity", "0.0001", "1.0000000000000000000000000000000001",
     "1e-9999999999", "1e999999", "1e9999999999999999999", "1000000000000.001",
     "-1e13", "9" * 5000, "1 2", True, 0.0005],
)  # fmt: skip
def test_what_is_no_amount(text: str | float) -> None:
    with pytest.raises(ValueError, match="credits"):
        money.to_milli(text)


@pytest.mark.parametrize(
    ("milli", "factor", "product"),
    [
        (1500, 2.5, 3750),
        (1500, 5, 7500),
        (1000, 0.0001, 1),
        (1, 0.1, 1),
        (333, 0, 0),
        (100, 0.7, 70),
        (1000, 1.1, 1100),
    ],
)
def test_products_are_rounded_up(milli: int, factor: float, product: int) -> None:
    assert money.times(milli, factor) == product
