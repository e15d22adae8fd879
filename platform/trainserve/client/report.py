"""Runs of this machine as one HTML file: `platform report`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from trainserve.client.cluster import naming
from trainserve.client.listener import Listener
from trainserve.client.runs import summary
from trainserve.errors import UserError
from trainserve.kube.names import FAILED, INTERRUPTED
from trainserve.local import rundir
from trainserve.local.rundir import RunDir
from trainserve.machine.files import write_text
from trainserve.machine.target import check_target
from trainserve.spec.classifier import Classifier

if TYPE_CHECKING:
    from trainserve.evaluate.report.content import Facts

LONGEST = 120  # letters of a file's name


@dataclass(frozen=True)
class Report:
    """A report that was written."""

    path: Path  # absolute
    size: int  # bytes
    runs: list[dict[str, Any]]  # the numbers behind it, plain JSON values


def report(
    names: Sequence[str],
    listener: Listener,
    *,
    data: Path | None = None,
    out: Path | None = None,
    now: datetime | None = None,
) -> Report:
    """Write the report of one run, or of several beside each other, in whatever state they are.

    `data` is where the runs' pictures are now, or other pictures to ask them about; `out` is report.html in the first
    run's output folder unless given. Raises UserError for no such run or no such place, DataError for such pictures.
    """
    if not names:
        raise UserError("which run? a report is about at least one", hint="platform list shows all runs")
    runs = [_Asked.named(name, listener) for name in dict.fromkeys(names)]
    if out is not None:
        check_target(out, "report.html", "--out", in_folder=True)
    path = (out or default_path([(run.name, run.output) for run in runs])).absolute()
    from trainserve.evaluate.report.gather import gather  # imports torch
    from trainserve.evaluate.report.page import page
    from trainserve.evaluate.report.summary import numbers

    found = [gather(run.facts(), data, progress=listener.pictures_checked) for run in runs]
    text = page(found, now or datetime.now(UTC))
    path.parent.mkdir(exist_ok=True)  # the output folder of a run that has just begun
    write_text(path, text)
    for item in found:
        for sentence in item.missing:
            listener.notice(f"{item.facts.name}: {sentence}")
    return Report(path, len(text.encode()), numbers(found))


@dataclass(frozen=True)
class _Asked:
    """A run that a report is about."""

    name: str
    output: Path
    facts: Callable[[], Facts]

    @classmethod
    def named(cls, name: str, listener: Listener) -> _Asked:
        if found := naming.find(name):
            from trainserve.client.cluster.facts import facts as facts_of

            known = facts_of(found, listener)
            return cls(known.name, known.output, lambda: known)
        run = rundir.open_run(name)
        return cls(run.name, run.output, lambda: facts(run))


def default_path(runs: Sequence[tuple[str, Path]]) -> Path:
    """report.html in the run's output; of several (name, output), a name that says which, in the first one's."""
    first = runs[0][1]
    if len(runs) == 1:
        return first / "report.html"
    name = "-".join(["report", *(name for name, _ in runs)])
    return first / f"{name[:LONGEST]}.html"


def facts(run: RunDir) -> Facts:
    """What is known of a run beside its output folder. Raises Damaged."""
    from trainserve.evaluate.report.content import Facts

    known = summary(run)
    message, advice = known["message"], ""
    if known["state"] in (FAILED, INTERRUPTED):
        from trainserve.local.why import why

        found = why(run)
        message, advice = found.title, found.advice
    job = run.job() or {}
    return Facts(
        name=run.name,
        state=known["state"],
        output=run.output,
        classifier=_classifier(run),
        message=message,
        advice=advice,
        created=known["created"],
        restarts=known["restarts"],
        uid=str(job.get("metadata", {}).get("uid", "")),
    )


def _classifier(run: RunDir) -> Classifier | None:
    try:
        return Classifier.model_validate(yaml.safe_load(run.spec_path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError, ValidationError):
        return None  # gone or damaged: the report says so
