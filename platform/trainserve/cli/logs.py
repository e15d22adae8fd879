"""`platform logs`: what the ranks wrote, from the first line, all generations."""

from __future__ import annotations

import time
from pathlib import Path

import click

from trainserve.cli.output import say
from trainserve.errors import EXIT_INTERRUPTED, UserError
from trainserve.local import rundir
from trainserve.local.rundir import RunDir

POLL_S = 0.2


@click.command("logs", short_help="Print what the ranks of a run wrote.")
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--rank", type=click.IntRange(min=0), help="Only this rank's pod.")
def logs_command(run: str, follow: bool, rank: int | None) -> int:
    """Print what the ranks of a run wrote, each line with its pod. Ends by itself when the run ends."""
    found = rundir.open_run(run)
    try:
        return _logs(found, follow=follow, rank=rank)
    except KeyboardInterrupt:
        if found.alive():
            say(f"{found.name} goes on:\n  platform status {found.name}\n  platform cancel {found.name}")
        return EXIT_INTERRUPTED


def _logs(found: RunDir, *, follow: bool, rank: int | None) -> int:
    offsets: dict[Path, int] = {}
    while True:
        # Liveness is read before the files, so that nothing written before the end is missed.
        alive = found.alive()
        found.check_there()
        files = found.log_files(rank)
        if not files and not (follow and alive):
            if rank is not None and found.log_files(None):
                raise UserError(f"run {found.name!r} has no rank {rank}", hint=f"platform status {found.name}")
            raise UserError(f"run {found.name!r} has no log yet: its state is {found.state()}")
        for file in files:
            offsets[file] = _print(file, offsets.get(file, 0), whole=not alive)
        if not (follow and alive):
            return 0
        time.sleep(POLL_S)


def _print(file: Path, offset: int, *, whole: bool) -> int:
    """Print whole lines from `offset` on (the unfinished last one too when `whole`); returns the new offset."""
    with file.open("rb") as stream:
        stream.seek(offset)
        data = stream.read()
    end = len(data) if whole else data.rfind(b"\n") + 1
    for line in data[:end].decode("utf-8", "replace").splitlines():
        click.echo(f"[{file.parent.name}] {line}")
    return offset + end
