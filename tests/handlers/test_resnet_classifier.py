from __future__ import annotations

import base64
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from support import bundles, pictures
from support.torchserve_context import REST, Context, extract, load_module
from trainserve.train import preprocess as training

pytestmark = pytest.mark.slow

HANDLER = Path(__file__).parents[2] / "handlers" / "resnet_classifier.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .mar as TorchServe unpacks it."""
    work = tmp_path_factory.mktemp("handler")
    return extract(bundles.mar(work, version="1.10"), work / "model")


@pytest.fixture(scope="module")
def module(folder: Path) -> Any:
    return load_module(folder / "resnet_classifier.py")


@pytest.fixture(scope="module")
def context(folder: Path) -> Context:
    return Context(folder, batch_size=4)


@pytest.fixture(scope="module")
def handler(module: Any, context: Context) -> Any:
    loaded = module.ResnetClassifier()
    loaded.initialize(context)
    return loaded


def ask(handler: Any, context: Context, *items: dict[str, Any], headers: dict[str, Any] = REST) -> list[Any]:
    context.batch([dict(headers) for _ in items])
    return [json.loads(answer) for answer in handler.handle(list(items), context)]


def test_exactly_one_class_or_torchserve_refuses_the_module(module: Any) -> None:
    defined = [item for _, item in inspect.getmembers(module, inspect.isclass) if item.__module__ == module.__name__]
    assert [item.__name__ for item in defined] == ["ResnetClassifier"]
    assert not hasattr(module, "handle")  # TorchServe would take a function of this name instead


def test_imports_neither_trainserve_nor_torchserve() -> None:
    imports = [line for line in HANDLER.read_text().splitlines() if line.startswith(("import ", "from "))]
    assert not [line for line in imports if line.split()[1].split(".")[0] in {"trainserve", "ts"}]


@pytest.mark.parametrize("mode", pictures.MODES)
def test_sees_what_training_saw_in_every_mode(handler: Any, mode: str) -> None:
    data = pictures.picture(mode)
    numbers = training.Preprocessing.from_dict(handler.preprocessing.to_dict())
    served = handler.preprocess.preprocess(data, handler.preprocessing)
    assert torch.equal(served, training.preprocess(data, numbers))


def test_every_mode_is_answered(handler: Any, context: Context) -> None:
    answers = ask(handler, context, *({"body": pictures.picture(mode)} for mode in pictures.MODES))
    assert not context.statuses
    assert all(len(answer["predictions"]) == 3 for answer in answers)


def test_img_04_turned_pictures_get_the_same_answer(handler: Any, context: Context) -> None:
    upright = pictures.corners(64, 48)
    straight, *turned = ask(
        handler, context, *({"body": pictures.oriented(upright, number)} for number in (1, *range(2, 9)))
    )
    for answer in turned:
        assert answer["predictions"][0]["class"] == straight["predictions"][0]["class"]
        found = {item["class"]: item["probability"] for item in answer["predictions"]}
        for item in straight["predictions"]:
            assert found[item["class"]] == pytest.approx(item["probability"], abs=0.02)


def test_answer_has_names_indexes_and_probabilities(handler: Any, context: Context) -> None:
    (answer,) = ask(handler, context, {"body": bundles.picture(0)})
    assert (answer["model"], answer["version"]) == ("digits", "1.10")
    names = {item["index"]: item["class"] for item in answer["predictions"]}
    assert names == {0: "1", 1: "10", 2: "2"}  # IMG-05: the folder's name, not the index
    probabilities = [item["probability"] for item in answer["predictions"]]
    assert sum(probabilities) == pytest.approx(1)
    assert probabilities == sorted(probabilities, reverse=True)
    assert context.response_headers == [{"content-type": "application/json"}]


@pytest.mark.parametrize(
    "item",
    [
        {"body": bundles.picture(3)},
        {"data": bytearray(bundles.picture(3))},
        {"file": memoryview(bundles.picture(3))},
        {"body": {"data": base64.b64encode(bundles.picture(3)).decode()}},
    ],
)
def test_every_way_to_send_a_picture(handler: Any, context: Context, item: dict[str, Any]) -> None:
    expected, got = ask(handler, context, {"body": bundles.picture(3)}, item)
    assert got == expected


@pytest.mark.parametrize(("asked", "count"), [("1", 1), ("2", 2), ("3", 3), ("100", 3), (b"2", 2), (1, 1), (None, 3)])
def test_srv_01_top_is_clamped_to_the_classes(handler: Any, context: Context, asked: Any, count: int) -> None:
    (answer,) = ask(handler, context, {"data": bundles.picture(0), "top": asked})
    assert len(answer["predictions"]) == count


@pytest.mark.parametrize("asked", ["0", "-1", "x", "1.5", "", " ", b"\xff", True, "9" * 30, "²", ["1"]])
def test_srv_01_nonsense_as_top_is_refused(handler: Any, context: Context, asked: Any) -> None:
    (answer,) = ask(handler, context, {"data": bundles.picture(0), "top": asked})
    assert context.statuses == {0: (400, "Bad Request")}
    assert "top must be a whole number from 1" in answer["message"]


@pytest.mark.parametrize("name", ["top", "Top", "TOP"])
def test_top_as_a_header(handler: Any, context: Context, name: str) -> None:
    (answer,) = ask(handler, context, {"body": bundles.picture(0)}, headers={**REST, name: "1"})
    assert len(answer["predictions"]) == 1


BAD = [
    ({"body": b""}, "empty file"),
    ({"body": "plain text"}, "not a picture"),
    ({"body": "<!doctype html><html>"}, "HTML"),
    ({"body": bytes(1_000_000)}, "zeros"),
    ({"body": bundles.picture(0)[:200]}, "truncated"),
    ({}, "no picture"),
    ({"picture": b"x"}, "unknown field picture"),
    ({"data": b"x", "file": b"y"}, "more than one picture"),
    ({"body": {"instances": []}}, "JSON must be"),
    ({"body": ["a"]}, "JSON must be"),
    ({"body": {"data": "%%%"}}, "not base64"),
    ({"body": {"data": base64.b64encode(b"text").decode()}}, "not a picture"),
    ({"body": {"data": base64.b64encode(bundles.picture(0)).decode(), "topk": 3}}, "unknown field topk"),
]


@pytest.mark.parametrize(("item", "reason"), BAD)
def test_srv_02_what_is_no_picture_gets_400_and_a_reason(
    handler: Any, context: Context, item: dict[str, Any], reason: str
) -> None:
    (answer,) = ask(handler, context, item)
    assert context.statuses == {0: (400, "Bad Request")}
    assert answer["code"] == 400
    assert reason in answer["message"]


def test_a_bad_picture_fails_alone_in_its_batch(handler: Any, context: Context) -> None:
    good = [{"body": bundles.picture(seed)} for seed in range(3)]
    answers = ask(handler, context, good[0], {"body": b"no"}, good[1], {"data": good[2]["body"], "top": "1"})
    assert context.statuses == {1: (400, "Bad Request")}
    alone = [ask(handler, context, item)[0] for item in good]
    for answer, expected in zip((answers[0], answers[2], answers[3]), alone, strict=True):
        assert answer["predictions"][0]["class"] == expected["predictions"][0]["class"]
        assert answer["predictions"][0]["probability"] == pytest.approx(expected["predictions"][0]["probability"], 1e-4)
    assert len(answers[3]["predictions"]) == 1


def test_web_form_is_explained(handler: Any, context: Context) -> None:
    headers = {**REST, "Content-Type": "application/x-www-form-urlencoded"}
    (answer,) = ask(handler, context, {}, headers=headers)
    assert "Content-Type: image/jpeg" in answer["message"]


def test_explanations_are_refused(handler: Any, context: Context) -> None:
    (answer,) = ask(handler, context, {"body": bundles.picture(0)}, headers={**REST, "explain": "True"})
    assert context.statuses == {0: (400, "Bad Request")}
    assert "not explanations" in answer["message"]


def test_only_grpc_requests_end_a_stream(handler: Any, context: Context) -> None:
    # On REST this header makes the client wait for ever; without it gRPC StreamPredictions kills the worker.
    fields = {"data": {"content-type": ""}, "url_path": {"content-type": ""}}  # gRPC: the inputs' names
    ask(handler, context, {"data": bundles.picture(0)}, headers=fields)
    assert context.response_headers[0]["ts_stream_next"] == "false"
    ask(handler, context, {"data": bundles.picture(0)}, headers=REST)
    assert "ts_stream_next" not in context.response_headers[0]


def test_img_06_large_picture_is_refused_with_size_limit_and_setting(module: Any, folder: Path) -> None:
    context = Context(folder, maxPixels=1000)
    small = module.ResnetClassifier()
    small.initialize(context)  # the golden pictures, 40 x 40, are larger: the limit is for strangers' pictures
    refused, answered = ask(small, context, {"body": bundles.picture(0, size=40)}, {"body": bundles.picture(0, 30)})
    assert context.statuses == {0: (400, "Bad Request")}
    assert "40 x 40 = 1,600 pixels is more than the limit of 1,000 (maxPixels)" in refused["message"]
    assert "predictions" in answered


def test_srv_03_upload_above_the_limit_gets_413_with_the_limit(module: Any, folder: Path) -> None:
    context = Context(folder, maxUploadBytes=5000)
    small = module.ResnetClassifier()
    small.initialize(context)
    (answer,) = ask(small, context, {"body": bytes(5001)})
    assert context.statuses == {0: (413, "Payload Too Large")}
    assert "5,001 bytes is more than the limit of 5,000 (maxUploadMib)" in answer["message"]


def test_unknown_setting_is_refused(module: Any, folder: Path) -> None:
    with pytest.raises(ValueError, match="unknown handler setting topk"):
        module.ResnetClassifier().initialize(Context(folder, topk=3))


def test_impossible_setting_is_refused(module: Any, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"handler\.topK must be a number above 0, got 0"):
        module.ResnetClassifier().initialize(Context(folder, topK=0))


@pytest.mark.slow
def test_loads_one_torch_thread_a_worker(module: Any, folder: Path) -> None:
    before = torch.get_num_threads()
    try:
        module.ResnetClassifier().initialize(Context(folder, threads=2))
        assert torch.get_num_threads() == 2
        module.ResnetClassifier().initialize(Context(folder))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_refuses_to_load_when_golden_logits_drift(module: Any, folder: Path, tmp_path: Path) -> None:
    altered = shutil.copytree(folder, tmp_path / "model")
    expected = json.loads((altered / "golden" / "expected.json").read_text())
    expected[0]["logits"][0] += 0.2
    (altered / "golden" / "expected.json").write_text(json.dumps(expected))
    description = json.loads((altered / "model.json").read_text())
    del description["digests"]["golden/expected.json"]
    (altered / "model.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"golden picture 00.png: logits differ from training's by"):
        module.ResnetClassifier().initialize(Context(altered))
    module.ResnetClassifier().initialize(Context(altered, goldenTolerance=0.5))


@pytest.mark.parametrize("file", ["weights.safetensors", "preprocess.py", "golden/00.png"])
def test_refuses_altered_files(module: Any, folder: Path, tmp_path: Path, file: str) -> None:
    altered = shutil.copytree(folder, tmp_path / "model")
    with (altered / file).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(ValueError, match=f"{Path(file).name} is not the file that was packed"):
        module.ResnetClassifier().initialize(Context(altered))


def test_golden_check_notices_other_preprocessing(module: Any, folder: Path) -> None:
    loaded = module.ResnetClassifier()
    loaded.initialize(Context(folder))
    loaded.preprocessing = training.Preprocessing(32, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 10**9)
    with pytest.raises(ValueError, match="logits differ"):
        loaded._check_golden(folder / "golden")
