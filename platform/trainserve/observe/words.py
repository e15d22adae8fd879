"""Numbers and events in the words that people read, the same in a terminal and in a notebook. Pure."""

from __future__ import annotations

import re

from trainserve.observe.events import Event

UNITS_S = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_TIME = re.compile(r"(?:(?P<d>[0-9.]+)d)?(?:(?P<h>[0-9.]+)h)?(?:(?P<m>[0-9.]+)m)?(?:(?P<s>[0-9.]+)s?)?")


def seconds(text: str) -> float:
    """`90s`, `5m`, `1h30m`, `7d` or `90`, in seconds: what `duration` prints, read back. Raises ValueError."""
    match = _TIME.fullmatch(text.strip().lower())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is no length of time")
    return sum(float(number) * UNITS_S[unit] for unit, number in match.groupdict().items() if number)


def duration(seconds: float | None) -> str:
    """`42s`, `3m10s`, `2h5m`, `3d4h`; a dash where it is not known."""
    if seconds is None:
        return "-"
    total = max(0, round(seconds))
    for size, unit, below, lower in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if total >= size:
            rest = total % size // below
            return f"{total // size}{unit}" + (f"{rest}{lower}" if rest else "")
    return f"{total}s"


def percent(share: float | None) -> str:
    """0.9778 as `97.8%`."""
    return "-" if share is None else f"{100 * share:.1f}%"


def epoch_line(event: Event, epochs: int) -> str:
    """One finished epoch, in one line."""
    return (
        f"epoch {event.get('epoch', 0)}/{epochs}  train loss {event.get('trainLoss', 0):.4f}  "
        f"val loss {event.get('valLoss', 0):.4f}  top-1 {percent(event.get('top1'))}  "
        f"top-5 {percent(event.get('top5'))}"
    )


def step_line(event: Event, epochs: int, steps: int) -> str:
    """One step, in one line."""
    return f"epoch {event.get('epoch', 0)}/{epochs}  {step_numbers(event, steps)}"


def step_numbers(event: Event, steps: int) -> str:
    """What a step says beside its epoch."""
    return (
        f"step {event.get('step', 0)}/{steps}  loss {event.get('loss', 0):.4f}  "
        f"{event.get('imagesPerSecond', 0):.0f} images/s  ETA {duration(event.get('etaSeconds'))}"
    )


def event_line(event: Event, epochs: int) -> str | None:
    """An event in one line; None for steps, which are many, and for what the end of a run tells anyway."""
    match event["kind"]:
        case "start":
            return (
                f"training {event.get('arch')} ({event.get('stem')} stem, {event.get('imageSize')} px) on "
                f"{event.get('trainSamples')} pictures of {event.get('classes')} classes, validating on "
                f"{event.get('valSamples')}; {event.get('worldSize')} processes, global batch "
                f"{event.get('batchSize')}, {event.get('device')}"
            )
        case "resume":
            return f"going on from {event.get('checkpoint')} (epoch {event.get('epoch')}, step {event.get('step')})"
        case "notice":
            return event.get("message", "")
        case "stopped":
            return f"stopped at step {event.get('step')}: {event.get('message', 'asked to stop')}"
        case "epoch":
            return epoch_line(event, epochs)
        case _:
            return None
