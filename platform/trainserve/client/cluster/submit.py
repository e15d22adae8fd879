"""From a spec to a PyTorchJob on a cluster: what `platform train --backend kubernetes` does before it follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainserve.client.cluster import checks
from trainserve.client.cluster.connect import Place, Session, ask, default_namespace
from trainserve.client.cluster.run import ClusterRun, no_kind
from trainserve.client.context import Context
from trainserve.client.train import document
from trainserve.errors import EnvironmentProblem, SpecError, UserError
from trainserve.kube import combinations, names
from trainserve.kube.cluster import AlreadyExists, Manifest, NotFound
from trainserve.kube.job import cluster_job
from trainserve.local.rundir import word_for
from trainserve.spec import location
from trainserve.spec.classifier import Classifier
from trainserve.spec.load import load
from trainserve.spec.pytorchjob import validate
from trainserve.spec.source import Source
from trainserve.train import manifest

if TYPE_CHECKING:
    from trainserve.client.listener import Listener

MOST_NAMES = 100  # of runs of one data set that are numbered


@dataclass(frozen=True)
class ClusterPlan:
    """What is to be trained on a cluster, whole and checked as far as no server was asked."""

    classifier: Classifier
    place: Place
    name_is_free_to_change: bool  # it was made here, not given by anybody
    push_to: str | None = None  # the store that the data, a folder of this machine, has to be sent to first

    def manifests(self) -> list[Manifest]:
        """The very objects that are sent. Of a plan that `settled` gave."""
        return [cluster_job(self.classifier, namespace=self.place.namespace)]

    def with_data(self, path: str, digest: str | None) -> ClusterPlan:
        """The same with its data elsewhere, where pods see it."""
        spec = self.classifier.spec
        data = spec.data.model_copy(update={"path": path, "digest": digest})
        classifier = self.classifier.model_copy(update={"spec": spec.model_copy(update={"data": data})})
        return replace(self, classifier=classifier, push_to=None)

    def renamed(self, name: str) -> ClusterPlan:
        metadata = self.classifier.metadata.model_copy(update={"name": name})
        return replace(self, classifier=self.classifier.model_copy(update={"metadata": metadata}))


@dataclass(frozen=True)
class Submitted:
    """A run that is on the cluster, and its job as the API server has it."""

    run: ClusterRun
    job: Manifest


def plan(
    spec: Classifier | Path | None,
    sets: Sequence[str] = (),
    flags: Mapping[str, tuple[str, Any]] | None = None,
    *,
    context: Context,
    kube_context: str | None = None,
    namespace: str | None = None,
) -> ClusterPlan:
    """What these mean together: flags go before `spec`, that before the context's defaults.

    Raises SpecError that lists every mistake, also those that only matter on a cluster.
    """
    generated: list[str] = []

    def name_for(base: str) -> str:
        generated.append(word_for(base))
        return generated[-1]

    source = Source("spec", document(spec)) if isinstance(spec, Classifier) else spec
    defaults = {
        field: (f"context {context.name}", value)
        for field, value in (("spec.train.output", context.output), ("spec.pod.image", context.image))
        if value is not None
    }

    def rules(made: Classifier) -> list[SpecError]:
        if context.data_store and _is_here(made):  # it will be there
            made = ClusterPlan(made, Place(None, ""), True).with_data(context.data_store, None).classifier
        return combinations.on_cluster(made)

    classifier = load(source, sets, flags, name_for=name_for, defaults=defaults, rules=rules)
    wanted = kube_context or context.kube_context
    chosen = namespace or classifier.metadata.namespace or context.namespace or default_namespace(wanted)
    push_to = context.data_store if _is_here(classifier) else None
    found = ClusterPlan(
        classifier, Place(wanted, chosen, is_asked_for=kube_context is not None), bool(generated), push_to
    )
    validate((found.with_data(push_to, None) if push_to else found).manifests()[0])
    return found


def settled(plan: ClusterPlan, listener: Listener, *, send: bool = True) -> ClusterPlan:
    """The same, with its data where the pods see it: pushed there, or without `send` as if it were.

    Raises DataError for what is no data set, EnvironmentProblem where the store cannot be written to.
    """
    if plan.push_to is None:
        return plan
    from trainserve.client.cluster import push
    from trainserve.train.imagefolder import scan

    folder = Path(plan.classifier.spec.data.path)
    scan(folder, allow_empty_classes=True)
    if send:
        # Whatever the server has against the job it says before some GB are sent.
        _create(plan.with_data(plan.push_to, None), dry_run=True)
        image = plan.classifier.spec.pod.image
        pushed = push.push(folder, plan.push_to, plan.place, listener, image=image)
        url, digest = pushed.url, pushed.digest
    else:
        digest = manifest.digest_of(push.digests(folder, listener))
        url = push.url_of(plan.push_to, digest)
    return plan.with_data(url, digest if isinstance(location.parse(url), location.Url) else None)


def _is_here(classifier: Classifier) -> bool:
    return isinstance(location.parse(classifier.spec.data.path), location.Folder)


def dry_run(plan: ClusterPlan, listener: Listener) -> list[Manifest]:
    """What the API server would store, with its defaults; nothing is stored. Raises as `submit`."""
    return [_create(plan, dry_run=True, listener=listener).job]


def submit(plan: ClusterPlan, listener: Listener) -> Submitted:
    """Create the job, after its claims and pods have been looked at.

    Raises UserError for what the API server refuses, EnvironmentProblem where it cannot be asked.
    """
    return _create(plan, listener=listener)


def _create(plan: ClusterPlan, *, dry_run: bool = False, listener: Listener | None = None) -> Submitted:
    async def create(session: Session) -> Submitted:
        await checks.look(session, plan.place.namespace, plan.classifier, plan.manifests()[0])
        for named in _numbered(plan) if plan.name_is_free_to_change else [plan]:
            (manifest,) = named.manifests()
            try:
                job = await session.cluster.create(names.PYTORCHJOB, plan.place.namespace, manifest, dry_run=dry_run)
            except AlreadyExists:
                continue
            except NotFound as error:
                raise _absent(plan.place, error) from error
            job["metadata"].pop("managedFields", None)  # for nobody to read
            return Submitted(ClusterRun(plan.place, named.classifier.metadata.name), job)
        name = plan.classifier.metadata.name
        raise UserError(
            f"a PyTorchJob named {name!r} exists already in namespace {plan.place.namespace}",
            hint=f"choose another with --name, such as {name}-2; or look at it: "
            f"platform status {ClusterRun(plan.place, name)}",
        )

    return ask(plan.place, create, listener)


def _numbered(plan: ClusterPlan) -> Iterator[ClusterPlan]:
    name = plan.classifier.metadata.name
    yield plan
    for number in range(2, MOST_NAMES):
        yield plan.renamed(f"{name}-{number}")


def _absent(place: Place, error: NotFound) -> EnvironmentProblem:
    if names.NAMESPACE.plural in error.message:
        return checks.no_namespace(place.namespace)
    return no_kind()
