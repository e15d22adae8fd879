"""`platform tensorboard`: the curves of runs in TensorBoard until Ctrl-C."""

from __future__ import annotations

import click

from trainserve.cli.complete import run_names
from trainserve.cli.output import emit, output_option, say
from trainserve.cli.progress import Display
from trainserve.cli.signals import end_as_ctrl_c
from trainserve.client.client import Client
from trainserve.errors import EXIT_OK


@click.command("tensorboard", short_help="Show the curves of runs in TensorBoard.")
@click.argument("runs", metavar="[RUN]...", nargs=-1, shell_complete=run_names)
@click.option("--port", type=int, default=0, show_default=True, help="Port on 127.0.0.1; 0: a free one.")
@output_option("table", "json", "yaml", "name")
def tensorboard_command(runs: tuple[str, ...], port: int, fmt: str) -> int:
    """Show the curves of runs, of all that have some unless named, in TensorBoard until Ctrl-C.

    Prints the address once TensorBoard answers there; runs that still train go on growing. Listens on 127.0.0.1 only.
    """
    end_as_ctrl_c()
    try:
        with Client(Display()).tensorboard(*runs, port=port) as board:
            emit(fmt, {"url": board.url, "runs": list(board.runs)}, table=lambda: board.url, names=[board.url])
            say(f"curves of {', '.join(board.runs)}; Ctrl-C stops")
            board.wait()
    except KeyboardInterrupt:
        say("stopped")
    return EXIT_OK
