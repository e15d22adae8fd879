"""`platform predict`: the classes of pictures, from a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from trainserve.cli.output import columns, emit, output_option, say
from trainserve.errors import EXIT_OK, EXIT_USER, UserError
from trainserve.serve.answers import Answer, Prediction, predict_files
from trainserve.serve.servers import Endpoint, find_server
from trainserve.train.imagefolder import SUFFIXES


@click.command("predict", short_help="Ask a server for the classes of pictures.")
@click.argument("server", metavar="URL|NAME")
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
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
    files = list(expand(pictures))
    endpoint = find_server(server)
    wanted = endpoint.pick_model(model)
    with _asking(endpoint, wanted, top, use_grpc=use_grpc) as ask:
        answers = list(predict_files(ask, files))
    emit(fmt, [_document(answer) for answer in answers], table=lambda: _table(answers))
    refused = [answer for answer in answers if answer.error]
    for answer in refused:
        say(f"error: {answer.error.message if answer.error else ''}")
    if refused:
        say(f"{len(refused)} of {len(answers)} pictures were refused")
    return EXIT_USER if refused else EXIT_OK


def expand(paths: Iterable[Path]) -> Iterator[Path]:
    """Files as they are; of a folder its pictures, also in folders below, sorted, hidden ones left out."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        if not found:
            raise UserError(f"{path}: no pictures in this folder", hint=f"pictures end in {', '.join(SUFFIXES)}")
        yield from found


@contextmanager
def _asking(
    endpoint: Endpoint, model: str, top: int | None, *, use_grpc: bool
) -> Iterator[Callable[[bytes, str], Prediction]]:
    if use_grpc or endpoint.rest_url is None:
        from trainserve.serve.grpc_client import GrpcClient  # grpcio takes its time to import

        if endpoint.grpc_target is None:
            raise UserError(
                f"{endpoint.rest_url}: its gRPC address is not known here",
                hint="give it: grpc://HOST:PORT --model NAME",
            )
        with GrpcClient(endpoint.grpc_target, max_upload_mib=endpoint.max_upload_mib) as grpc:
            yield lambda data, label: grpc.predict(data, model=model, top=top, label=label)
    else:
        from trainserve.serve.client import RestClient

        with RestClient(endpoint.rest_url, max_upload_mib=endpoint.max_upload_mib) as rest:
            yield lambda data, label: rest.predict(data, model=model, top=top, label=label)


def _document(answer: Answer) -> dict[str, object]:
    if answer.prediction is not None:
        return {"picture": str(answer.picture), **answer.prediction.to_dict()}
    return {"picture": str(answer.picture), "error": answer.error.message if answer.error else ""}


def _table(answers: list[Answer]) -> str:
    rows = [
        {
            "picture": str(answer.picture) if rank == 0 else "",
            "class": item.name,
            "probability": f"{item.probability:.4f}",
            "model": f"{answer.prediction.model} {answer.prediction.version}" if rank == 0 else "",
        }
        for answer in answers
        if answer.prediction
        for rank, item in enumerate(answer.prediction.classes)
    ]
    return columns(rows)
