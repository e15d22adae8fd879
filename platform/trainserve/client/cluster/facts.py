"""What a report says of a run on a cluster beside its output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from trainserve.client.cluster import outputs
from trainserve.client.cluster.connect import ask
from trainserve.client.cluster.run import ClusterRun, spec_of, summary
from trainserve.client.cluster.why import why
from trainserve.client.listener import Listener
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.spec.classifier import Classifier

if TYPE_CHECKING:
    from trainserve.evaluate.report.content import Facts


def facts(run: ClusterRun, listener: Listener) -> Facts:
    """Fetches its output first. Raises UserError for no such run, EnvironmentProblem."""
    from trainserve.evaluate.report.content import Facts

    output = outputs.fetched(run, listener)
    if output.job is None:
        return Facts(name=run.name, state="Deleted", output=output.folder, classifier=None)
    known = summary(output.job)
    message, advice = known["message"], ""
    if known["state"] == names.FAILED:
        found = ask(run.place, lambda session: why(session, run))
        message, advice = found.title, found.advice
    return Facts(
        name=run.name,
        state=known["state"],
        output=output.folder,
        classifier=_classifier(output.job),
        message=message,
        advice=advice,
        created=known["created"],
        restarts=known["restarts"],
        uid=str(output.job["metadata"].get("uid", "")),
    )


def _classifier(job: Manifest) -> Classifier | None:
    try:
        return Classifier.model_validate_json(spec_of(job))
    except ValidationError:
        return None  # somebody's own job, or of another version: the report says so
