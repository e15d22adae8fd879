"""Lengths of time as people type them."""

from __future__ import annotations

import click

from trainserve.observe.words import seconds


def length_of_time(text: str) -> float:
    """An option's type: `90s`, `5m`, `1h30m`, `7d`; a plain number is seconds. Returns seconds; click's error else."""
    try:
        return seconds(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no length of time; allowed: such as 90s, 5m, 1h30m, 7d") from None
