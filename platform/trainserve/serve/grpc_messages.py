"""TorchServe's gRPC inference messages, described in code so that nothing has to be generated.

Field names and numbers are the wire contract of TorchServe 0.12 (`inference.proto`, package
`org.pytorch.serve.grpc.inference`), whose wheel ships no Python stubs. Only what a client of ours uses is described:
protobuf skips fields it does not know.
"""

from __future__ import annotations

from typing import cast

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

PACKAGE = "org.pytorch.serve.grpc.inference"
PREDICTIONS = f"/{PACKAGE}.InferenceAPIsService/Predictions"

_Field = descriptor_pb2.FieldDescriptorProto


def _field(message_type: descriptor_pb2.DescriptorProto, name: str, number: int, kind: _Field.Type.ValueType) -> _Field:
    return message_type.field.add(name=name, number=number, type=kind, label=_Field.LABEL_OPTIONAL)


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="trainserve/torchserve_inference.proto", package=PACKAGE, syntax="proto3"
    )
    request = file.message_type.add(name="PredictionsRequest")
    _field(request, "model_name", 1, _Field.TYPE_STRING)
    _field(request, "model_version", 2, _Field.TYPE_STRING)
    # A map on the wire is a repeated entry message with key 1 and value 2.
    entry = request.nested_type.add(name="InputEntry")
    entry.options.map_entry = True
    _field(entry, "key", 1, _Field.TYPE_STRING)
    _field(entry, "value", 2, _Field.TYPE_BYTES)
    request.field.add(
        name="input",
        number=3,
        type=_Field.TYPE_MESSAGE,
        label=_Field.LABEL_REPEATED,
        type_name=f".{PACKAGE}.PredictionsRequest.InputEntry",
    )
    response = file.message_type.add(name="PredictionResponse")
    _field(response, "prediction", 1, _Field.TYPE_BYTES)
    return file


# A pool of its own: stubs that another library generated from the real file may live in the default one.
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file())


def _message(name: str) -> type[message.Message]:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


_REQUEST = _message("PredictionsRequest")
_RESPONSE = _message("PredictionResponse")


def request(model_name: str, data: dict[str, bytes], model_version: str = "") -> message.Message:
    """A PredictionsRequest with `data` as its input map."""
    return _REQUEST(model_name=model_name, model_version=model_version, input=data)


def serialize(request_message: message.Message) -> bytes:
    """Bytes of a request, as a gRPC request serializer."""
    return request_message.SerializeToString()


def prediction_of(answer: bytes) -> bytes:
    """The `prediction` of a serialized PredictionResponse, as a gRPC response deserializer."""
    parsed = _RESPONSE.FromString(answer)
    return cast(bytes, parsed.prediction)  # type: ignore[attr-defined]
