"""How sure a share is that was counted on few pictures. Pure."""

from __future__ import annotations

from math import sqrt

Z95 = 1.959963984540054  # of the normal distribution, two-sided 95 %


def wilson(right: int, total: int, z: float = Z95) -> tuple[float, float]:
    """The interval that holds the true share, from `right` of `total`; with the default `z` in 95 of 100 cases.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference"; unlike the textbook's
    p +- z sqrt(p (1 - p) / n) it stays within 0 to 1, and says something of 0 and of 100 %.
    """
    assert 0 <= right <= total, f"{right} of {total}"
    if not total:
        return 0.0, 1.0
    share = right / total
    centre = share + z * z / (2 * total)
    spread = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
