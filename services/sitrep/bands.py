"""What the public is told: counts in fixed bands."""

from __future__ import annotations


def band(count: int) -> str:
    """The band that a count lies in: 0, 1-4, 5-9, 10-19, 20-49, 50-99, 100-199 and so on in steps of 1, 2, 5.

    The bands are fixed, so that the difference between two reports tells no more than that a band was left.
    """
    if count <= 0:
        return "0"
    if count < 5:
        return "1-4"
    low, steps = 5, (2, 2, 2.5)
    at = 0
    while True:
        high = int(low * steps[at % 3])
        if count < high:
            return f"{low}-{high - 1}"
        low, at = high, at + 1
