"""`platform serve`: answer over REST and gRPC on this machine until Ctrl-C."""

from __future__ import annotations

import click

from trainserve.cli.models import archive_of
from trainserve.cli.output import emit, output_option, say
from trainserve.cli.signals import term_as_ctrl_c
from trainserve.errors import EXIT_OK
from trainserve.serve import torchserve


@click.command("serve", short_help="Serve runs or archives with TorchServe on this machine.")
@click.argument("models", metavar="RUN|FILE.mar...", nargs=-1, required=True)
@click.option("--name", help="What `platform predict NAME` finds it by. [default: the first model's name]")
@click.option("--port", type=int, help="REST port. [default: a free one]")
@click.option("--grpc-port", type=int, help="gRPC port. [default: a free one]")
@click.option("--management-port", type=int, help="TorchServe's management port. [default: a free one]")
@output_option("table", "json", "yaml", "name")
def serve_command(
    models: tuple[str, ...],
    name: str | None,
    port: int | None,
    grpc_port: int | None,
    management_port: int | None,
    fmt: str,
) -> int:
    """Serve runs or archives with TorchServe until Ctrl-C, which leaves no process behind.

    Listens on 127.0.0.1 only, without tokens. What it prints on stdout comes once every model has answered one of its
    golden pictures right.
    """
    archives = [torchserve.ModelRef(archive_of(model)) for model in models]
    say(f"starting TorchServe with {', '.join(archive.path.name for archive in archives)}")
    term_as_ctrl_c()
    try:
        with torchserve.running(
            archives, name=name, port=port, grpc_port=grpc_port, management_port=management_port
        ) as server:
            first = next(iter(server.models))
            urls = {model: f"{server.rest_url}/predictions/{model}" for model in server.models}
            ready = {
                "name": server.name,
                "url": server.rest_url,
                "grpc": server.grpc_target,
                "models": {model: mar.version for model, mar in server.models.items()},
                "log": str(server.log),
            }
            emit(fmt, ready, table=lambda: "\n".join(urls.values()), names=[server.name])
            say(f"ready: {', '.join(server.models)} at {server.rest_url}, gRPC {server.grpc_target}; Ctrl-C stops")
            say(f"try:\n  platform predict {server.name} picture.jpg\n  curl -T picture.jpg {urls[first]}")
            server.wait()
    except KeyboardInterrupt:
        say("stopped")
    return EXIT_OK
