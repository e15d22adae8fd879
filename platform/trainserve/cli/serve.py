"""`platform serve`: answer over REST and gRPC on this machine until Ctrl-C."""

from __future__ import annotations

from typing import Literal

import click

from trainserve.cli.complete import runs_and_archives
from trainserve.cli.output import emit, output_option, say
from trainserve.cli.progress import Display
from trainserve.cli.signals import end_as_ctrl_c
from trainserve.client.client import Client
from trainserve.errors import EXIT_OK

PORT = click.IntRange(1, 65535)


@click.command("serve", short_help="Serve runs or archives on this machine.")
@click.argument("models", metavar="RUN|FILE.mar...", nargs=-1, required=True, shell_complete=runs_and_archives)
@click.option("--name", help="What `platform predict NAME` finds it by. [default: the first model's name]")
@click.option("--port", type=PORT, help="REST port. [default: a free one]")
@click.option("--grpc-port", type=PORT, help="gRPC port. [default: a free one]")
@click.option("--management-port", type=PORT, help="TorchServe's management port. [default: a free one]")
@click.option(
    "--engine",
    type=click.Choice(["torchserve", "native"]),
    default="torchserve",
    show_default=True,
    help="native: FastAPI, REST only, with a page for people.",
)
@output_option("table", "json", "yaml", "name")
def serve_command(
    models: tuple[str, ...],
    name: str | None,
    port: int | None,
    grpc_port: int | None,
    management_port: int | None,
    engine: Literal["torchserve", "native"],
    fmt: str,
) -> int:
    """Serve runs or archives until Ctrl-C, which leaves no process behind.

    Listens on 127.0.0.1 only, without tokens. What it prints on stdout comes once every model has answered one of its
    golden pictures right.
    """
    end_as_ctrl_c()
    serving = Client(Display()).serve(
        *models, name=name, port=port, grpc_port=grpc_port, management_port=management_port, engine=engine
    )
    try:
        with serving as server:
            urls = [server.url_of(model) for model in server.models]
            ready = {
                "name": server.name,
                "url": server.url,
                "grpc": server.grpc,
                "engine": server.engine,
                "models": server.models,
                "log": str(server.log),
            }
            emit(fmt, ready, table=lambda: "\n".join(urls), names=[server.name])
            grpc = f", gRPC {server.grpc}" if server.grpc else ""
            say(f"ready: {', '.join(server.models)} at {server.url}{grpc}; Ctrl-C stops")
            say(f"try:\n  platform predict {server.name} picture.jpg\n  curl -T picture.jpg {urls[0]}")
            if engine == "native":
                say(f"or open {server.url} in a browser")
            server.wait()
    except KeyboardInterrupt:
        say("stopped")
    return EXIT_OK
