"""Serve models on this machine, and ask a server for the classes of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainserve.client.listener import Listener
from trainserve.client.models import archive_of
from trainserve.errors import UserError
from trainserve.serve.answers import Answer, Prediction, predict_files
from trainserve.serve.archives import ModelRef
from trainserve.serve.servers import Endpoint, find_server
from trainserve.train.imagefolder import SUFFIXES

Engine = Literal["torchserve", "native"]


@dataclass(frozen=True)
class Served:
    """A server that is ready: every model has answered one of its golden pictures right."""

    name: str  # what `predict` finds it by
    url: str
    grpc: str  # empty where the engine has no gRPC
    models: dict[str, str]  # name -> version
    log: Path
    engine: str
    wait: Callable[[], None]  # blocks until the server ends by itself, which it should not: RunFailed

    def url_of(self, model: str) -> str:
        """Where a picture for this model is sent by POST."""
        return f"{self.url}/predictions/{model}"


@contextmanager
def serving(
    models: Sequence[str | Path],
    listener: Listener,
    *,
    name: str | None,
    port: int | None,
    grpc_port: int | None,
    management_port: int | None,
    engine: Engine,
) -> Iterator[Served]:
    """Serve runs or archives until the block ends. Raises UserError for a port that the engine does not have."""
    archives = [ModelRef(archive_of(model)) for model in models]
    words = {"torchserve": "TorchServe", "native": "the native engine"}[engine]

    def starting() -> None:
        listener.notice(f"starting {words} with {', '.join(archive.path.name for archive in archives)}")

    running: AbstractContextManager[torchserve.Server | native.Server]
    if engine == "native":
        for flag, given in (("--grpc-port", grpc_port), ("--management-port", management_port)):
            if given is not None:
                raise UserError(f"{flag} {given}: the native engine has no such port", hint=f"leave {flag} out")
        from trainserve.serve.native import engine as native

        running = native.running(archives, name=name, port=port, on_start=starting)
    else:
        from trainserve.serve import torchserve

        running = torchserve.running(
            archives,
            name=name,
            port=port,
            grpc_port=grpc_port,
            management_port=management_port,
            on_start=starting,
        )
    with running as server:
        versions = {model: mar.version for model, mar in server.models.items()}
        yield Served(server.name, server.rest_url, server.grpc_target, versions, server.log, engine, server.wait)


def predict(
    server: str, pictures: Iterable[Path], *, model: str | None, top: int | None, use_grpc: bool
) -> list[Answer]:
    """The answer of each picture, in their order; a folder stands for the pictures in it.

    A refused picture has its error in its Answer. Raises UserError for no such server or model, EnvironmentProblem
    when the server does not answer.
    """
    files = list(expand(pictures))
    endpoint = find_server(server)
    wanted = endpoint.pick_model(model)
    with _asking(endpoint, wanted, top, use_grpc=use_grpc) as ask:
        return list(predict_files(ask, files))


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

        with GrpcClient(endpoint.need_grpc(), max_upload_mib=endpoint.max_upload_mib) as grpc:
            yield lambda data, label: grpc.predict(data, model=model, top=top, label=label)
    else:
        from trainserve.serve.client import RestClient

        with RestClient(endpoint.rest_url, max_upload_mib=endpoint.max_upload_mib) as rest:
            yield lambda data, label: rest.predict(data, model=model, top=top, label=label)
