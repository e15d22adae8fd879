"""Ask a model over TorchServe's gRPC."""

from __future__ import annotations

from types import TracebackType

import grpc

from trainserve.errors import EnvironmentProblem, PlatformError, UserError
from trainserve.machine.ports import LOOPBACK_HOSTS
from trainserve.machine.usage import MIB
from trainserve.serve import grpc_messages
from trainserve.serve.answers import Prediction, check_size, parse_answer

TIMEOUT_S = 60.0
ENVELOPE_BYTES = 64 * 1024  # names and options around a picture
UNLIMITED = -1


class GrpcClient:
    """A channel to one server; safe to use from several threads.

    gRPC's own limit of 4 MiB is replaced by the server's upload limit, or lifted where that is not known.
    """

    def __init__(self, target: str, *, max_upload_mib: int | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self.target = target
        self.max_upload_mib = max_upload_mib
        self.timeout_s = timeout_s
        limit = UNLIMITED if max_upload_mib is None else max_upload_mib * MIB + ENVELOPE_BYTES
        options = [("grpc.max_send_message_length", limit), ("grpc.max_receive_message_length", 16 * MIB)]
        if target.rpartition(":")[0] in LOOPBACK_HOSTS:
            options.append(("grpc.enable_http_proxy", 0))
        self._channel = grpc.insecure_channel(target, options=options)
        self._predictions = self._channel.unary_unary(
            grpc_messages.PREDICTIONS,
            request_serializer=grpc_messages.serialize,
            response_deserializer=grpc_messages.prediction_of,
        )

    def predict(
        self, picture: bytes, *, model: str, version: str | None = None, top: int | None = None, label: str = "picture"
    ) -> Prediction:
        """The classes of a picture; raises as `RestClient.predict`."""
        check_size(picture, label, self.max_upload_mib)
        data = {"data": picture}
        if top is not None:
            data["top"] = str(top).encode()
        request = grpc_messages.request(model, data, version or "")
        try:
            answer = self._predictions(request, timeout=self.timeout_s)
        except grpc.RpcError as error:
            raise self._problem(error, len(picture), label, model) from None
        return parse_answer(answer, label=label, model=model)

    def _problem(self, error: grpc.RpcError, size: int, label: str, model: str) -> PlatformError:
        code, details = error.code(), (error.details() or "").splitlines()
        first = details[0] if details else code.name
        if code is grpc.StatusCode.UNAVAILABLE:
            return EnvironmentProblem(
                f"no gRPC server answers at {self.target}: {first}", hint="start one with `platform serve`"
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return EnvironmentProblem(f"{self.target} did not answer in {self.timeout_s:g} s (model {model})")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return UserError(f"{label}: too large: {size:,} bytes; {first}")
        if code is grpc.StatusCode.CANCELLED and size > 4_000_000:  # how TorchServe's frontend refuses a large message
            return UserError(f"{label}: the server cut off {size:,} bytes: most likely too large for it")
        unknown = "not found" in first.lower() or "does not exist" in first
        if code is grpc.StatusCode.INTERNAL and unknown:  # TorchServe's NOT_FOUND, of a model or a version
            return UserError(f"no model {model!r} at {self.target}: {first}")
        return EnvironmentProblem(f"model {model} at {self.target} could not answer ({code.name}): {first}")

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def __enter__(self) -> GrpcClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
