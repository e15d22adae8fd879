"""`platform train`: from flags or a file to a finished run, its bundle and its archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainserve.cli.complete import run_names, settings
from trainserve.cli.output import FORMATS, emit, output_option, say, to_yaml
from trainserve.cli.paths import FilePath
from trainserve.cli.resume import begin, resume_run
from trainserve.cli.spec_flags import given, spec_options
from trainserve.cli.where import Name
from trainserve.client import context
from trainserve.client.train import plan
from trainserve.errors import UserError
from trainserve.kube.combinations import no_effect_here

SECTIONS = ("data", "model", "train", "pod")


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
@click.option(
    "--dry-run",
    is_flag=False,
    flag_value="client",
    type=click.Choice(["client", "server"]),
    help="Print the very objects that would be created, and change nothing; --dry-run=server prints what the API "
    "server would make of them.",
)
@click.option(
    "--backend", type=click.Choice(context.BACKENDS), help="This machine, or a cluster. [default: the context's]"
)
@click.option("--kube-context", type=Name(), metavar="NAME", help="Context of the kubeconfig. [default: the context's]")
@click.option("--namespace", type=Name(), metavar="NAME", help="Namespace on the cluster. [default: the context's]")
@output_option("table", "json", "yaml", "name", short=True)
@spec_options(*SECTIONS)
def train_command(
    file: Path | None,
    sets: tuple[str, ...],
    name: str | None,
    resume: str | None,
    detach: bool,
    dry_run: str | None,
    backend: context.Backend | None,
    kube_context: str | None,
    namespace: str | None,
    fmt: str,
    **spec_flags: Any,
) -> int:
    """Train a ResNet on a folder of labelled pictures, on as many nodes as asked for.

    Flags win over --set, --set over the file, the file over defaults. Ctrl-C checkpoints and stops, and so does closing
    the terminal unless with --detach; the run can be resumed. On a cluster the run goes on. Exit status: 0 succeeded,
    1 the run failed, 2 and 65 the input is wrong, 3 the machine is, 130 stopped by Ctrl-C or cancel, 129 by the
    terminal's end.
    """
    flags = given(spec_flags, *SECTIONS)
    if flags.get("spec.train.output", ("", ""))[1] in FORMATS:
        word = flags["spec.train.output"][1]
        raise UserError(f"--output {word} is where a run on a cluster writes", hint=f"the format is -o {word}")
    place = {"--backend": backend, "--kube-context": kube_context, "--namespace": namespace}
    if resume is not None:
        mixed = [*(["-f"] if file else []), *(["--set"] if sets else []), *(["--name"] if name else [])]
        mixed += [flag for flag, value in place.items() if value] + [flag for flag, _ in flags.values()]
        if mixed:
            raise UserError(
                f"--resume {resume} goes on with the spec of the run; it cannot be mixed with {', '.join(mixed)}",
                hint="start a new run to train with other values",
            )
        return resume_run(resume, detach=detach, dry_run=dry_run is not None, fmt=fmt)
    if name is not None:
        flags["metadata.name"] = ("--name", name)
    chosen = context.chosen(backend)
    if chosen.backend == "kubernetes":
        from trainserve.cli import train_cluster

        planned = train_cluster.plan(file, sets, flags, chosen, kube_context=kube_context, namespace=namespace)
        return train_cluster.run(planned, detach=detach, dry_run=dry_run, fmt=fmt)
    if for_clusters := [flag for flag, value in place.items() if value and flag != "--backend"]:
        raise UserError(
            f"{' and '.join(for_clusters)}: the run is to be on this machine", hint="add --backend kubernetes"
        )
    if dry_run == "server":
        raise UserError("--dry-run=server: on this machine there is no server to ask", hint="use --dry-run")
    local = plan(file, sets, flags)
    if dry_run:
        for notice in no_effect_here(local.classifier):
            say(notice)
        print_objects(fmt, local.manifests())
        return 0
    return begin(lambda client: client.train(local, detach=detach, must_succeed=False), detach=detach, fmt=fmt)


def print_objects(fmt: str, documents: list[dict[str, Any]]) -> None:
    """Objects as a file of several documents has them."""
    objects = [f"{each['kind'].lower()}/{each['metadata']['name']}" for each in documents]
    # Each its own document, for -o yaml too: kubectl takes no list of objects that is not of kind List.
    shown = "table" if fmt == "yaml" else fmt
    emit(shown, documents, table=lambda: "---\n".join(to_yaml(d) for d in documents).rstrip(), names=objects)
