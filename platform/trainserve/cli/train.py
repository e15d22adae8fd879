"""`platform train`: from flags or a file to a finished run, its bundle and its archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainserve.cli.complete import run_names, settings
from trainserve.cli.output import emit, output_option, to_yaml
from trainserve.cli.paths import FilePath
from trainserve.cli.resume import begin, resume_run
from trainserve.cli.spec_flags import given, spec_options
from trainserve.client.train import plan
from trainserve.errors import UserError


@click.command("train", short_help="Train a ResNet on a folder of labelled pictures.")
@click.option("-f", "--file", type=FilePath(), help="A Classifier as a YAML file; - is stdin.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="FIELD=VALUE",
    shell_complete=settings,
    help="Set any field, e.g. serve.topK=3. Repeats.",
)
@click.option("--name", help="Name of the run. [default: from the data folder, numbered if taken]")
@click.option(
    "--resume", metavar="RUN", shell_complete=run_names, help="Go on with a run: the same as `platform resume RUN`."
)
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

    Flags win over --set, --set over the file, the file over defaults. Ctrl-C checkpoints and stops, and so does closing
    the terminal unless with --detach; the run can be resumed. Exit status: 0 succeeded, 1 the run failed, 2 and 65 the
    input is wrong, 3 the machine is, 130 stopped by Ctrl-C or cancel, 129 by the terminal's end.
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
        return resume_run(resume, detach=detach, dry_run=dry_run, fmt=fmt)
    if name is not None:
        flags["metadata.name"] = ("--name", name)
    planned = plan(file, sets, flags)
    if dry_run:
        documents = planned.manifests()
        objects = [f"{each['kind'].lower()}/{each['metadata']['name']}" for each in documents]
        emit(fmt, documents, table=lambda: "---\n".join(to_yaml(d) for d in documents).rstrip(), names=objects)
        return 0
    return begin(lambda client: client.train(planned, detach=detach, must_succeed=False), detach=detach, fmt=fmt)
