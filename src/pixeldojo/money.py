"""Credits are whole milli-credits inside and numbers with at most three decimals outside. Never floats in sums."""

from decimal import ROUND_CEILING, Context, Decimal, Inexact, InvalidOperation, Overflow

MOST_MILLI = 10**15  # a trillion credits: far above any account, far below 2**63
_EXACT = Context(traps=[Inexact, InvalidOperation, Overflow])  # the default one rounds after 28 digits


def to_credits(milli: int) -> int | float:
    """`milli` as the JSON number clients see: 1500 → 1.5, 2000 → 2."""
    whole, rest = divmod(milli, 1000)
    return milli / 1000 if rest else whole


def to_milli(amount: str | int | float) -> int:
    """Credits as typed (`"12.5"`) in milli-credits. Raises ValueError when that isn't exact."""
    try:
        typed = Decimal(str(amount))
    except InvalidOperation:
        raise ValueError(f"{amount!r} is not a number of credits") from None
    try:
        milli = _EXACT.multiply(typed, 1000)
    except ArithmeticError:  # more digits than any amount has, or an exponent beyond reason
        milli = Decimal("NaN")
    if not milli.is_finite() or milli != milli.to_integral_value() or abs(milli) > MOST_MILLI:
        raise ValueError(f"{amount!r} is not an amount of credits with at most three decimals")
    return int(milli)


def times(milli: int, factor: int | float) -> int:
    """`milli` × `factor`, rounded up to the next milli-credit: 1.5 credits a second for 2.5 s is 3750."""
    return int((milli * Decimal(str(factor))).to_integral_value(ROUND_CEILING))
