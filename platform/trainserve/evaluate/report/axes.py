"""Ticks, and numbers as people read them. Pure."""

from __future__ import annotations

from math import ceil, floor, log10


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from at most `low` to at least `high`, in steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / max(1, count - 1)
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def number(value: float) -> str:
    """Up to four digits that count: `0.0213`, `1.35`, `148`, `12,400`, `250 k`, `5e-05`."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.3g}"
    if abs(value) >= 1e12:
        return f"{value:.2g}"
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e5, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / unit:.4g} {letter}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = max(0, 3 - floor(log10(abs(value))))
    text = f"{value:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def share(value: float) -> str:
    """0.978 as `97.8 %`, whole percents as `50 %`; between 99.95 and 100 % it does not say 100."""
    percents = 100 * value
    text = f"{percents:.1f}"
    if text == "100.0" and value < 1:
        text = "99.9"
    if text == "0.0" and value > 0:
        return "< 0.1 %"
    return f"{text.removesuffix('.0')} %"
