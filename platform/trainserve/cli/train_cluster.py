"""`platform train` on a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainserve.cli.follow import closing
from trainserve.cli.output import emit, say
from trainserve.cli.progress import Display
from trainserve.cli.signals import end_as_ctrl_c
from trainserve.client.cluster import submit
from trainserve.client.cluster.submit import ClusterPlan
from trainserve.client.context import Context


def plan(
    file: Path | None,
    sets: Sequence[str],
    flags: Mapping[str, tuple[str, Any]],
    context: Context,
    *,
    kube_context: str | None,
    namespace: str | None,
) -> ClusterPlan:
    """What is to be sent. Raises SpecError that lists every mistake."""
    return submit.plan(file, sets, flags, context=context, kube_context=kube_context, namespace=namespace)


def run(planned: ClusterPlan, *, detach: bool, dry_run: str | None, fmt: str) -> int:
    """Print what would be sent, or send it, and follow it unless `detach`; Ctrl-C ends the following."""
    from trainserve.cli.train import print_objects
    from trainserve.client.cluster.follow import follow

    if dry_run:
        with Display() as display:
            planned = submit.settled(planned, display, send=False)
            found = submit.dry_run(planned, display) if dry_run == "server" else planned.manifests()
        print_objects(fmt, found)
    if dry_run == "client":
        return 0
    if dry_run == "server":
        say("the API server takes it; nothing was created")
        return 0
    end_as_ctrl_c()
    with Display() as display:
        submitted = submit.submit(submit.settled(planned, display), display)
        run = submitted.run
        say(f"{run} is on the cluster:\n  platform logs -f {run}\n  platform status {run}")
        if not detach:
            outcome = follow(run, display)
    if not detach:
        return closing(outcome, fmt)
    emit(fmt, submitted.job, table=lambda: str(run), names=[str(run)])
    return 0
