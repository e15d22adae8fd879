"""`platform train`: from flags or a file to a finished run, its bundle and its archive."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import click

from trainserve.cli.follow import follow
from trainserve.cli.output import emit, output_option, say, to_yaml
from trainserve.cli.progress import check_pictures
from trainserve.cli.signals import term_as_ctrl_c
from trainserve.cli.spec_flags import given, spec_options
from trainserve.errors import EXIT_INTERRUPTED, UserError, not_installed
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.job import training_job
from trainserve.local import rundir, start
from trainserve.local.rundir import RunDir
from trainserve.machine.home import home
from trainserve.spec import derive
from trainserve.spec.classifier import Classifier
from trainserve.spec.load import load
from trainserve.train import imagecheck, imagefolder


@click.command("train", short_help="Train a ResNet on a folder of labelled pictures.")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="A Classifier as a YAML file; - is stdin.")
@click.option("--set", "sets", multiple=True, metavar="FIELD=VALUE", help="Set any field, e.g. serve.topK=3. Repeats.")
@click.option("--name", help="Name of the run. [default: from the data folder, numbered if taken]")
@click.option("--resume", metavar="RUN", help="Go on with a run that was cancelled, interrupted or failed.")
@click.option("--detach", is_flag=True, help="Return at once; the run goes on in the background.")
@click.option("--dry-run", is_flag=True, help="Print the very objects that would be created, and change nothing.")
@output_option("table", "json", "yaml", "name")
@spec_options("data", "model", "train")
def train_command(
    file: Path | None,
    sets: tuple[str, ...],
    name: str | None,
    resume: str | None,
    detach: bool,
    dry_run: bool,
    fmt: str,
    **spec_flags: Any,
) -> int:
    """Train a ResNet on a folder of labelled pictures, on as many nodes as asked for.

    Flags win over --set, --set over the file, the file over defaults. Ctrl-C checkpoints and stops; the run can be
    resumed. Exit status: 0 succeeded, 1 the run failed, 2 and 65 the input is wrong, 3 the machine is, 130 Ctrl-C.
    """
    flags = given(spec_flags, "data", "model", "train")
    if resume is not None:
        mixed = [*(["-f"] if file else []), *(["--set"] if sets else []), *(["--name"] if name else [])]
        mixed += [flag for flag, _ in flags.values()]
        if mixed:
            raise UserError(
                f"--resume {resume} goes on with the spec of the run; it cannot be mixed with {', '.join(mixed)}",
                hint="start a new run to train with other values",
            )
        return _resume(resume, detach=detach, dry_run=dry_run, fmt=fmt)
    if name is not None:
        flags["metadata.name"] = ("--name", name)
    generated: list[str] = []  # names made here, not given by anybody

    def name_for(folder: str) -> str:
        generated.append(rundir.free_name(folder))
        return generated[-1]

    classifier = load(file, sets, flags, name_for=name_for)
    if dry_run:
        name = classifier.metadata.name
        job = _job(classifier, home() / "runs" / name)
        documents = [_document(classifier), job]
        objects = [f"classifier/{name}", f"pytorchjob/{name}"]
        emit(fmt, documents, table=lambda: "---\n".join(to_yaml(d) for d in documents).rstrip(), names=objects)
        return 0
    _require_training()
    if not generated:
        rundir.refuse_taken(classifier.metadata.name)  # before every picture is looked at
    run = _new_run(classifier, generated=bool(generated), detach=detach)
    return _go(run, resume=False, detach=detach, fmt=fmt)


def _new_run(classifier: Classifier, *, generated: bool, detach: bool) -> RunDir:
    """Look at every picture, then make the run's folder. Raises DataError and SpecError before there is one."""
    data = classifier.spec.data
    listing = imagefolder.scan_for(classifier)
    bad = check_pictures(listing, data)
    vetted = imagecheck.vetted(listing, data, bad)
    processes = derive.world_size(classifier.spec.train)
    derive.check_pictures(classifier, len(vetted.train), imagecheck.median_short_side(vetted), processes)
    notices = [*vetted.notices] if detach else []  # whoever follows the run hears them from it
    if classifier.metadata.namespace is not None:
        notices.append(f"metadata.namespace {classifier.metadata.namespace} has no effect on this machine")
    for notice in notices:
        say(notice)
    while True:
        named = classifier

        def fill(run: RunDir) -> None:
            run.write_spec(to_yaml(_document(named)))  # noqa: B023  used within this turn of the loop
            run.write_job(_job(named, home() / "runs" / run.name))  # noqa: B023
            imagecheck.store(run.output / "data-check.json", listing, data, bad)

        try:
            return rundir.create(classifier.metadata.name, fill)
        except rundir.NameTaken:
            if not generated:
                raise
            # Another command took the generated name in the meantime.
            metadata = classifier.metadata.model_copy(update={"name": rundir.free_name(classifier.metadata.name)})
            classifier = classifier.model_copy(update={"metadata": metadata})


def _require_training() -> None:
    """Raises EnvironmentProblem where the ranks, which use this very Python, would fail at their first import."""
    for package in ("torch", "torchvision", "safetensors", "tensorboard"):
        if importlib.util.find_spec(package) is None:
            raise not_installed(package, "train")


def _document(classifier: Classifier) -> Manifest:
    document: Manifest = classifier.model_dump(mode="json", by_alias=True, exclude_none=True)
    return document


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


def _go(run: RunDir, *, resume: bool, detach: bool, fmt: str) -> int:
    # Of a resumed run only the new events are shown.
    offset = run.events_path.stat().st_size if run.events_path.exists() else 0
    term_as_ctrl_c()
    try:
        start.start(run, resume=resume, detach=detach)
    except KeyboardInterrupt:
        say(f"stopped before training began; go on:\n  platform train --resume {run.name}")
        return EXIT_INTERRUPTED
    if detach:
        say(f"{run.name} runs in the background:\n  platform logs -f {run.name}\n  platform status {run.name}")
        emit(fmt, {"name": run.name, "state": run.state()}, table=lambda: "", names=[run.name])
        return 0
    return follow(run, fmt, offset=offset)


def _resume(name: str, *, detach: bool, dry_run: bool, fmt: str) -> int:
    run = rundir.open_run(name)
    state = run.state()
    if run.alive():
        raise UserError(f"run {run.name!r} is going on: {state}", hint=f"platform status {run.name}")
    if state == names.SUCCEEDED:
        raise UserError(
            f"run {run.name!r} has succeeded; there is nothing to resume",
            hint=f"platform serve {run.name}, or train again under another --name",
        )
    if dry_run:
        job = run.job() or run.read_job()
        emit(fmt, job, table=lambda: to_yaml(job).rstrip(), names=[run.name])
        return 0
    _require_training()
    return _go(run, resume=True, detach=detach, fmt=fmt)
