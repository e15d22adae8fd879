"""A server on loopback that answers as TorchServe with our handler does, from a function: no Java, no worker."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from trainserve.evaluate import infer
from trainserve.package.bundle import Bundle

Answer = Callable[[bytes, int], list[dict[str, Any]]]  # (picture, top) -> predictions; ValueError is a refusal


@contextmanager
def answering(answer: Answer, model: str = "digits") -> Iterator[str]:
    """The server's URL, for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            picture = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != f"/predictions/{model}":
                return self._send(404, {"code": 404, "message": f"Model not found: {self.path}"})
            try:
                predictions = answer(picture, int(self.headers["top"]))
            except ValueError as error:
                return self._send(400, {"code": 400, "message": str(error)})
            return self._send(200, {"model": model, "version": "1.0", "predictions": predictions})

        def _send(self, code: int, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def of_bundle(bundle: Bundle) -> Answer:
    """Answers of a bundle's network."""
    network = infer.network(bundle, "cpu")
    classes = bundle.description.classes

    def answer(picture: bytes, top: int) -> list[dict[str, Any]]:
        with torch.inference_mode():
            probabilities = network.model(network.tensor(picture).unsqueeze(0)).softmax(dim=1)[0]
        best = probabilities.topk(min(top, len(classes)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [{"class": classes[index], "index": index, "probability": p} for index, p in pairs]

    return answer
