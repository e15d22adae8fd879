"""`platform predict`: the classes of pictures, from a server."""

from __future__ import annotations

from pathlib import Path

import click

from trainserve.cli.complete import server_names
from trainserve.cli.output import columns, emit, output_option, say
from trainserve.cli.paths import FilePath
from trainserve.client.client import Client
from trainserve.errors import EXIT_OK, EXIT_USER
from trainserve.serve.answers import Answer
from trainserve.train.folders import as_text


@click.command("predict", short_help="Ask a server for the classes of pictures.")
@click.argument("server", metavar="URL|NAME", shell_complete=server_names)
@click.argument("pictures", nargs=-1, required=True, type=FilePath())
@click.option("--model", help="The model to ask. [default: the only one]")
@click.option("--top", type=click.IntRange(min=1), help="How many classes. [default: as packaged]")
@click.option("--grpc", "use_grpc", is_flag=True, help="Ask over gRPC instead of REST.")
@output_option("table", "json", "yaml")
def predict_command(
    server: str, pictures: tuple[Path, ...], model: str | None, top: int | None, use_grpc: bool, fmt: str
) -> int:
    """Ask a server for the classes of pictures; a folder stands for the pictures in it.

    Every picture is asked, also after one was refused; the exit status is 2 if any was.
    """
    answers = Client().predict(server, pictures, model=model, top=top, grpc=use_grpc)
    emit(fmt, [_document(answer) for answer in answers], table=lambda: _table(answers))
    refused = [answer for answer in answers if answer.error]
    for answer in refused:
        say(f"error: {answer.error.message if answer.error else ''}")
    if refused:
        say(f"{len(refused)} of {len(answers)} pictures were refused")
    return EXIT_USER if refused else EXIT_OK


def _document(answer: Answer) -> dict[str, object]:
    if answer.prediction is not None:
        return {"picture": str(answer.picture), **answer.prediction.to_dict()}
    return {"picture": str(answer.picture), "error": answer.error.message if answer.error else ""}


def _table(answers: list[Answer]) -> str:
    rows = [
        {
            "picture": as_text(str(answer.picture)) if rank == 0 else "",
            "class": as_text(item.name),
            "probability": f"{item.probability:.4f}",
            "model": f"{answer.prediction.model} {answer.prediction.version}" if rank == 0 else "",
        }
        for answer in answers
        if answer.prediction
        for rank, item in enumerate(answer.prediction.classes)
    ]
    return columns(rows)
