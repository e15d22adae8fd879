"""Flags, --set, file and defaults become one Classifier; every mistake is told with its place."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainserve.errors import SpecError
from trainserve.spec import derive
from trainserve.spec.classifier import Classifier, TrainSpec
from trainserve.spec.load import allowed, fields, load
from trainserve.spec.source import parse, scalar

MINIMAL = "metadata: {name: flowers}\nspec:\n  data: {path: pictures}\n"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "job.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_flag_wins_over_set_over_file_over_default(tmp_path: Path) -> None:
    file = write(tmp_path, MINIMAL + "  train: {epochs: 3, nodes: 2, lr: 0.5}\n")
    train = load(file, ["train.epochs=4", "train.nodes=8"], {"spec.train.nodes": ("--nodes", 1)}).spec.train
    assert (train.nodes, train.epochs, train.lr, train.momentum) == (1, 4, 0.5, 0.9)


def test_set_null_goes_back_to_the_default(tmp_path: Path) -> None:
    file = write(tmp_path, MINIMAL + "  train: {epochs: 3}\n")
    assert load(file, ["train.epochs=null"]).spec.train.epochs == TrainSpec().epochs


def test_data_path_in_a_file_is_relative_to_the_file(tmp_path: Path) -> None:
    assert load(write(tmp_path, MINIMAL)).spec.data.path == str(tmp_path / "pictures")


def test_exponents_are_numbers_as_kubectl_reads_them() -> None:
    assert [scalar("1e-3"), scalar("3"), scalar("true"), scalar("a b"), scalar("")] == [1e-3, 3, True, "a b", ""]


def test_name_is_made_from_the_data_folder() -> None:
    made = load(flags={"spec.data.path": ("--data", "/x/My Flowers")}, name_for=lambda folder: folder.lower()[3:])
    assert made.metadata.name == "flowers"


# CLI-03: an unknown setting is refused, with its place and the likely meant one.
@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (
            "  train:\n    num_workers: 2\n",
            5,
            "train.num_workers: no such field, did you mean spec.train.workers?",
        ),
        ("  train:\n    num_nodes: 2\n", 5, "spec.train.num_nodes: no such field, did you mean spec.train.nodes?"),
        ("  model:\n    epochs: 2\n", 5, "spec.model.epochs: no such field, did you mean spec.train.epochs?"),
        ("  train:\n    batch-size: 2\n", 5, "did you mean spec.train.batchSize?"),
        ("  train:\n    Epochs: 2\n", 5, "did you mean spec.train.epochs?"),
        ("  train:\n    ephocs: 2\n", 5, "did you mean spec.train.epochs?"),
        ("  train:\n    epochs: '2'\n", 5, 'spec.train.epochs: "2" is not allowed; allowed: an integer >= 1'),
        ("  train:\n    nodes: true\n", 5, "spec.train.nodes: true is not allowed; allowed: an integer >= 1"),
    ],
)
def test_cli_03_unknown_setting(tmp_path: Path, text: str, line: int, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(write(tmp_path, MINIMAL + text))
    assert f"job.yaml:{line}: " in str(caught.value)
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


# CLI-04: a broken file is told with file, line and column in one line.
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("spec:\n\tdata: x\n", "job.yaml:2:1: a tab in the indentation"),
        ("spec\n  data: 3\n", "job.yaml:2:7: mapping values are not allowed here (is a colon missing"),
        ("a: 1\nb: 2\na: 3\n", "job.yaml:3:1: key 'a' stands twice, first in line 1"),
        ("- a\n- b\n", "job.yaml:1:1: the file holds a list, not a mapping"),
        ("", "job.yaml:1:1: the file is empty"),
        ("a: {b: 1\n", "job.yaml:2:1: expected ',' or '}'"),
        (b"a: b\nc: \xe4\n", "job.yaml:2:4: byte 0xe4 is not UTF-8"),
        ("a: \x07\n", "job.yaml:1: character #x0007"),
        ("? [a]\n: 1\n", "job.yaml:1:3: a key must be a plain word"),
    ],
)
def test_cli_04_broken_file(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(write(tmp_path, text))
    assert says in str(caught.value)


def test_a_section_that_is_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"job.yaml:1: spec: \[1\] is not allowed; allowed: a mapping of fields"):
        load(write(tmp_path, "spec: [1]\nmetadata: {name: a}\n"))


# CLI-05: impossible values are refused before anything starts, all of them together.
def test_cli_05_impossible_values_are_listed_together() -> None:
    with pytest.raises(SpecError) as caught:
        load(
            None,
            ["train.lr=fast", "train.epochs=0"],
            {
                "metadata.name": ("--name", "1st-run"),
                "spec.data.path": ("--data", "x"),
                "spec.train.nodes": ("--nodes", 0),
                "spec.train.batchSize": ("--batch-size", -1),
                "spec.train.nprocPerNode": ("--nproc-per-node", 0),
            },
        )
    text = caught.value.message
    assert len(text.splitlines()) == 6
    assert (caught.value.hint or "").startswith("platform explain ")
    assert "--nodes: spec.train.nodes: 0 is not allowed; allowed: an integer >= 1 and <= 1024" in text
    assert '--set train.lr: spec.train.lr: "fast" is not allowed; allowed: a number > 0 and <= 100' in text
    assert '--name: metadata.name: "1st-run" is not allowed' in text


def test_missing_fields_name_the_flag() -> None:
    with pytest.raises(SpecError) as caught:
        load(None)
    assert caught.value.message == "spec: is required (--data)"  # the name is the folder's
    assert "platform train --data FOLDER" in (caught.value.hint or "")


def test_a_batch_that_does_not_divide_is_told_in_numbers() -> None:
    with pytest.raises(SpecError, match="64 is not a multiple of 3 nodes x 1 processes = 3") as caught:
        load(None, ["train.nodes=3"], {"spec.data.path": ("--data", "x"), "metadata.name": ("--name", "a")})
    assert caught.value.hint == "use --batch-size 63 or 66"


@pytest.mark.parametrize(
    ("short_side", "size", "stem"), [(8, 16, "small"), (28, 32, "small"), (64, 64, "small"), (65, 224, "imagenet")]
)
def test_image_size_and_stem_follow_the_pictures(short_side: int, size: int, stem: str) -> None:
    model = load(None, [], {"spec.data.path": ("--data", "x"), "metadata.name": ("--name", "a")}).spec.model
    assert derive.image_size(model, short_side) == size
    assert derive.stem(model, size) == stem


def test_no_default_or_allowed_word_is_a_yaml_boolean() -> None:
    words = {"on", "off", "yes", "no", "y", "n", "true", "false"}
    for path, info in fields():
        assert not words & set(allowed(info).replace(",", "").split()) or info.annotation is bool, path


def test_every_field_has_a_description() -> None:
    assert [path for path, info in fields() if not info.description] == []


@given(st.text(max_size=40))
def test_any_text_parses_or_is_a_spec_error(text: str) -> None:
    with contextlib.suppress(SpecError):
        assert isinstance(parse(text.encode("utf-8", "surrogatepass"), "x.yaml").values, dict)


def test_a_classifier_survives_json() -> None:
    made = load(
        None, ["data.augment.cropScale=[0.5, 1]"], {"spec.data.path": ("--data", "x"), "metadata.name": ("", "a")}
    )
    assert Classifier.model_validate_json(made.model_dump_json(by_alias=True), strict=True) == made


@pytest.mark.parametrize("text", ["010", "1_0", "1:30", "2024-01-01", "0x10", "+", ".", "1e", "nan"])
def test_what_json_calls_no_number_is_a_text(text: str) -> None:
    """YAML 1.1 would make 8 of 010, and 90 of 1:30."""
    assert scalar(text) == text
    with pytest.raises(SpecError, match=r"--epochs: spec.train.epochs: .* is not allowed; allowed: an integer"):
        load(
            flags={
                "metadata.name": ("--name", "x"),
                "spec.data.path": ("--data", "x"),
                "spec.train.epochs": ("--epochs", scalar(text)),
            }
        )


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("-3", -3), ("1.", 1.0), (".5", 0.5), ("-.5e-3", -0.0005), ("1e3", 1000.0)]
)
def test_numbers(text: str, value: float) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_aliases_of_aliases_end(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    with pytest.raises(SpecError, match=r"job.yaml:\d+:\d+: more than 100,000 values"):
        load(write(tmp_path, "\n".join(lines)))


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(SpecError, match=r"/dev/zero: more than 1,048,576 bytes"):
        load(Path("/dev/zero"))


def test_a_value_that_json_does_not_have_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"job.yaml:2:16: tag:yaml.org,2002:binary is no kind of value"):
        load(write(tmp_path, "spec:\n  data: {path: !!binary aGVsbG8=}\n"))


def test_a_path_that_is_not_utf8() -> None:
    flags = {"metadata.name": ("--name", "x"), "spec.data.path": ("--data", "/d\udcff")}
    with pytest.raises(SpecError, match=r"--data: spec.data.path: b'/d\\xff' is not UTF-8"):
        load(flags=flags)


@pytest.mark.parametrize("text", [".a=b", "train..epochs=1", "=1", "spec.=3"])
def test_a_set_without_a_field(text: str) -> None:
    with pytest.raises(SpecError, match="expected FIELD=VALUE"):
        load(sets=[text])


def test_an_empty_name_is_not_replaced_by_another() -> None:
    with pytest.raises(SpecError, match=r'--name: metadata.name: "" is not allowed'):
        load(
            flags={"metadata.name": ("--name", ""), "spec.data.path": ("--data", "x")},
            name_for=lambda folder: folder,
        )
