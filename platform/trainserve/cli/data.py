"""`platform data`: example data sets, what to know of one's own, and the way of it to a store."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)

from trainserve.cli.data_table import report_table
from trainserve.cli.output import emit, output_option, say
from trainserve.cli.paths import FilePath
from trainserve.cli.signals import end_tidily
from trainserve.cli.spec_flags import given, spec_options
from trainserve.cli.where import Name, kube_context_option
from trainserve.client.client import Client
from trainserve.client.listener import Lines, Listener
from trainserve.errors import EXIT_DATA, EXIT_OK, UserError
from trainserve.machine import cgroup
from trainserve.machine.usage import size_words
from trainserve.train.get_sources import SOURCES


@click.group("data", short_help="Get example data, check your own, or push it to a store.")
def data_command() -> None:
    """Get example data, check your own, or push it to a store."""


@data_command.command("get")
@click.argument("dataset", metavar="|".join(SOURCES), type=click.Choice(list(SOURCES)))
@click.argument("folder", metavar="[DIR]", type=FilePath(), required=False)
@click.option("--from", "local", type=FilePath(), help="Folder or file with what would be downloaded.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many pictures of a class in each part.")
@output_option("table", "json", "yaml", "name")
def get_command(dataset: str, folder: Path | None, local: Path | None, limit: int | None, fmt: str) -> int:
    """Write a data set as pictures, a folder a class, with train/ and val/ where it is divided. DIR is ./DATASET.

    digits (1,797 pictures of 8 x 8) comes with scikit-learn. The others are downloaded, or taken from files that you
    have, and must have the digests that are published: fashion-mnist (70,000 of 28 x 28), cifar10 (60,000 of 32 x 32),
    flowers102 (8,189 photos), imagenette (13,394 photos, 160 px; 320 px and full size with --from). The test part of
    fashion-mnist and cifar10 becomes val/. A download that was stopped goes on where it was; whole ones stay in
    $TRAINSERVE_HOME/downloads.
    """
    end_tidily()
    with _Transfers() as heard:
        try:
            found = Client(heard).get_data(dataset, folder, local=local, limit=limit)
        except KeyboardInterrupt:
            say(f"stopped, nothing was written; the same command goes on:\n  platform data get {dataset}")
            raise
    document = {**asdict(found), "path": str(found.path)}
    emit(fmt, document, table=lambda: "", names=[str(found.path)])
    kept = " (it was there already)" if found.reused else ""
    say(f"{found.pictures} pictures of {found.classes} classes in {found.path}{kept}, sha256 {found.digest[:12]}")
    say(f"licence: {found.licence}")
    say(f"next: {shlex.join(['platform', 'train', '--data', str(found.path)])}")
    return EXIT_OK


@data_command.command("push")
@click.argument("folder", metavar="FOLDER", type=FilePath())
@click.argument("store", metavar="[STORE]", required=False)
@kube_context_option()
@click.option("--namespace", type=Name(), metavar="NAME", help="Of the claim. [default: the context's]")
@click.option("--image", metavar="IMAGE", help="Of the helper pod for a claim. [default: the context's]")
@output_option("table", "json", "yaml", "name")
def push_command(
    folder: Path, store: str | None, kube_context: str | None, namespace: str | None, image: str | None, fmt: str
) -> int:
    """Upload the pictures of FOLDER below STORE, where the pods of a cluster find them, and print the URL.

    STORE is a bucket (s3://BUCKET/PATH, gs://, az://) or a claim (pvc://CLAIM/PATH), which a short-lived pod mounts; by
    default the context's dataStore. The data's folder there is named by its digest: the same pictures are not sent
    twice, and the same command goes on where it was stopped. S3 is asked as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
    AWS_REGION and AWS_ENDPOINT_URL or a profile of ~/.aws say.
    """
    from trainserve.client.cluster.push import push
    from trainserve.client.cluster.target import target

    end_tidily()
    place, where, picture = target(store, kube_context=kube_context, namespace=namespace, image=image)
    with _Transfers() as heard:
        try:
            found = push(folder, where, place, heard, image=picture)
        except KeyboardInterrupt:
            again = shlex.join(["platform", "data", "push", str(folder), where])
            say(f"stopped; what was sent stays, and the same command goes on:\n  {again}")
            raise
    emit(fmt, asdict(found), table=lambda: found.url, names=[found.url])
    sent = f"{size_words(found.sent)} sent" if found.sent else "nothing had to be sent"
    say(f"{found.pictures} pictures, {size_words(found.bytes)}, {sent}; {found.digest}")
    say(f"next: {shlex.join(['platform', 'train', '--data', found.url, '--data-digest', found.digest])}")
    return EXIT_OK


class _Transfers(Listener):
    """A bar for each file or data set on a terminal; elsewhere lines."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), DownloadColumn(), TransferSpeedColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._lines = Lines(say)

    def __enter__(self) -> _Transfers:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()

    def notice(self, text: str) -> None:
        say(text)

    def downloading(self, file: str, done: int, total: int) -> None:
        if self._bar.disable:
            self._lines.downloading(file, done, total)
        else:
            self._show(file, done, total)

    def uploading(self, name: str, done: int, total: int) -> None:
        if self._bar.disable:
            self._lines.uploading(name, done, total)
        else:
            self._show(name, done, total)

    def _show(self, file: str, done: int, total: int) -> None:
        if file not in self._tasks:
            self._tasks[file] = self._bar.add_task(file, total=total or None)
        self._bar.update(self._tasks[file], completed=done, total=total or None)


@data_command.command("check")
@click.argument("folder", metavar="[DIR]", required=False)
@click.option("-f", "--file", type=FilePath(), help="A Classifier as a YAML file; - is stdin.")
@click.option("--set", "sets", multiple=True, metavar="FIELD=VALUE", help="Set any field, e.g. train.batchSize=8.")
@click.option("--jobs", type=click.IntRange(1, 256), help="Threads. [default: one a core]")
@output_option("table", "json", "yaml")
@spec_options("data", without=("--data", "--crop-scale", "--flip", "--jitter"))
def check_command(
    folder: str | None, file: Path | None, sets: tuple[str, ...], jobs: int | None, fmt: str, **spec_flags: Any
) -> int:
    """Look at every picture below DIR and say everything that `train` would refuse, and what it would not notice.

    Counts of each class and split, sizes, formats, unreadable pictures with reasons, the same picture twice, in
    training and validation or under two classes, balance, ignored files. Exit status: 0 if `train` would begin, 65 if
    not.
    """
    from trainserve.spec.load import load
    from trainserve.train.datacheck import check_data

    flags = given(spec_flags, "data")
    if folder is not None:
        flags["spec.data.path"] = ("DIR", folder)
    elif file is None:
        raise UserError("which folder?", hint="platform data check DIR, or -f FILE with spec.data.path")
    classifier = load(file, sets, flags, name_for=lambda _: "data")
    with Progress(
        TextColumn("looking at pictures"), BarColumn(bar_width=30), MofNCompleteColumn(),
        console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=None)
        report = check_data(
            classifier,
            threads=jobs or cgroup.cores(),
            source=str(file) if file else None,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    emit(fmt, report.to_dict(), table=lambda: report_table(report))
    if report.next:
        say(f"next: {report.next}" if report.ok else f"when that is mended: {report.next}")
    return EXIT_OK if report.ok else EXIT_DATA
