"""From a spec to a run that goes: what `platform train` and `platform resume` do before there is anything to follow."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainserve.client import weights
from trainserve.client.follow import Outcome, follow, outcome, stopped
from trainserve.client.listener import Listener
from trainserve.errors import EXIT_INTERRUPTED, EXIT_OK, SpecError, UserError, not_installed
from trainserve.kube import combinations, names
from trainserve.kube.cluster import ApiError, Manifest
from trainserve.kube.job import training_job
from trainserve.local import admission, records, rundir, start
from trainserve.local.resources import RESOURCES
from trainserve.local.rundir import RunDir
from trainserve.machine import cgroup
from trainserve.machine.home import home
from trainserve.spec import derive
from trainserve.spec.classifier import Classifier
from trainserve.spec.load import load
from trainserve.spec.pod import PodSpec
from trainserve.spec.source import Source
from trainserve.spec.write import to_yaml
from trainserve.train import imagecheck, imagefolder


@dataclass(frozen=True)
class Plan:
    """What is to be trained, whole and checked as far as no picture was looked at."""

    classifier: Classifier
    name_is_free_to_change: bool  # it was made here, not given by anybody

    def manifests(self) -> list[Manifest]:
        """The very objects that a run of it begins with: the Classifier and its PyTorchJob."""
        return [document(self.classifier), _job(self.classifier, home() / "runs" / self.classifier.metadata.name)]


def plan(
    spec: Classifier | Path | None, sets: Sequence[str] = (), flags: Mapping[str, tuple[str, Any]] | None = None
) -> Plan:
    """What spec (a file, or a Classifier), `sets` and `flags` mean together, as `spec.load.load` says.

    Raises SpecError that lists every mistake, also those that only the API server would find.
    """
    generated: list[str] = []

    def name_for(folder: str) -> str:
        generated.append(rundir.free_name(folder))
        return generated[-1]

    source = Source("spec", document(spec)) if isinstance(spec, Classifier) else spec
    classifier = load(source, sets, flags, name_for=name_for, rules=combinations.on_this_machine)
    found = Plan(weights.settled(classifier), bool(generated))
    _must_be_accepted(found.manifests()[1])
    return found


def _must_be_accepted(job: Manifest) -> None:
    """Raises SpecError where the API server, to which it is sent later, refuses the job."""
    try:
        admission.created(RESOURCES[names.PYTORCHJOB], names.LOCAL_NAMESPACE, job, uid="", created_at="")
    except ApiError as error:
        raise SpecError(error.message, hint="platform explain lists the fields of a spec; --set sets any") from None


def train(plan: Plan, listener: Listener, *, detach: bool) -> Outcome:
    """Check every picture, make the run's folder, start it, and follow it to its end unless `detach`.

    Raises DataError and SpecError before there is a run, EnvironmentProblem where the machine lacks something.
    """
    require_training()
    if not plan.name_is_free_to_change:
        rundir.refuse_taken(plan.classifier.metadata.name)  # before every picture is looked at
    return go(_new_run(plan, listener, detach=detach), listener, detach=detach)


def resumable(name: str) -> RunDir:
    """The run, if it can go on. Raises UserError."""
    run = rundir.open_run(name)
    try:
        state = run.state()
        if run.job() is None:  # what the run goes on by is its job.json then
            run.own_job()
    except records.Damaged:
        if run.alive() or not records.can_begin(run.path):
            raise
        return run  # its start sets a damaged snapshot aside, and its checkpoints are what counts
    if run.alive():
        raise UserError(f"run {run.name!r} is going on", hint=f"platform status {run.name}")
    if state == names.SUCCEEDED:
        raise UserError(
            f"run {run.name!r} has succeeded; there is nothing to resume",
            hint=f"platform serve {run.name}, or train again under another --name",
        )
    return run


def resume(run: RunDir, listener: Listener, *, detach: bool) -> Outcome:
    """Go on with a run that `resumable` gave, and follow it to its end unless `detach`."""
    require_training()
    _mend_job(run, listener)
    return go(run, listener, resume=True, detach=detach)


def go(run: RunDir, listener: Listener, *, detach: bool, resume: bool = False) -> Outcome:
    """Start the run's supervisor; without `detach` follow the run to its end."""
    # Of a resumed run only the new events are told.
    offset = run.events_path.stat().st_size if run.events_path.exists() else 0
    try:
        start.start(run, resume=resume, detach=detach)
    except KeyboardInterrupt as interrupt:
        if run.alive():  # its supervisor, which would go on without us where it is detached
            return stopped(run, listener, interrupt)
        listener.notice(f"stopped before training began; go on:\n  platform resume {run.name}")
        return outcome(run, code=EXIT_INTERRUPTED)
    return outcome(run, code=EXIT_OK) if detach else follow(run, listener, offset=offset)


def going_on(run: RunDir) -> Manifest:
    """The job of a run that `resumable` gave, as it would go on."""
    try:
        return run.job() or run.own_job()
    except records.Damaged:
        return _made_anew(run)


def _mend_job(run: RunDir, listener: Listener) -> None:
    """Make a job.json that is damaged, missing or another run's anew of the spec beside it, which it was made of."""
    try:
        run.own_job()
    except records.Damaged as damaged:
        if run.alive() or not records.can_begin(run.path):
            return  # it may not be needed; where it is, the start says what is wrong
        job = _made_anew(run)
        if os.path.lexists(run.job_path):
            records.set_aside(run.job_path)
        run.write_job(job)
        listener.notice(f"{damaged.message}: it is made anew from {run.spec_path}")


def _made_anew(run: RunDir) -> Manifest:
    classifier = load(run.spec_path)
    metadata = classifier.metadata.model_copy(update={"name": run.name})
    return _job(classifier.model_copy(update={"metadata": metadata}), run.path)


def document(classifier: Classifier) -> Manifest:
    """The Classifier as a file has it."""
    found: Manifest = classifier.model_dump(mode="json", by_alias=True, exclude_none=True)
    if classifier.spec.pod == PodSpec.model_validate({}):
        del found["spec"]["pod"]
    return found


def require_training() -> None:
    """Raises EnvironmentProblem where the ranks, which use this very Python, would fail at their first import."""
    for package in ("torch", "torchvision", "safetensors", "tensorboard"):
        if importlib.util.find_spec(package) is None:
            raise not_installed(package, "train")


def _new_run(plan: Plan, listener: Listener, *, detach: bool) -> RunDir:
    """Look at every picture, then make the run's folder. Raises DataError and SpecError before there is one."""
    classifier = plan.classifier
    data = classifier.spec.data
    listing = imagefolder.scan_for(classifier)
    total = len(listing.train) + len(listing.val)
    bad = imagecheck.check(
        listing, data, threads=cgroup.cores(), progress=lambda done: listener.pictures_checked(done, total)
    )
    vetted = imagecheck.vetted(listing, data, bad)
    processes = derive.world_size(classifier.spec)
    derive.check_pictures(classifier, len(vetted.train), imagecheck.median_short_side(vetted), processes)
    notices = [*vetted.notices] if detach else []  # whoever follows the run hears them from it
    notices += combinations.no_effect_here(classifier)
    for notice in notices:
        listener.notice(notice)
    while True:
        named = classifier

        def fill(run: RunDir) -> None:
            run.write_spec(to_yaml(document(named)))  # noqa: B023  used within this turn of the loop
            run.write_job(_job(named, home() / "runs" / run.name))  # noqa: B023
            imagecheck.store(run.output / "data-check.json", listing, data, bad)

        try:
            return rundir.create(classifier.metadata.name, fill)
        except rundir.NameTaken:
            if not plan.name_is_free_to_change:
                raise
            # Another command took the generated name in the meantime.
            metadata = classifier.metadata.model_copy(update={"name": rundir.free_name(classifier.metadata.name)})
            classifier = classifier.model_copy(update={"metadata": metadata})


def _job(classifier: Classifier, run: Path) -> Manifest:
    return training_job(
        classifier,
        namespace=names.LOCAL_NAMESPACE,
        output=str(run / "output"),
        data_path=classifier.spec.data.path,
        python=sys.executable,
        image=names.LOCAL_IMAGE,
        local=True,
    )
