"""Contexts: where runs go where no flag says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainserve.client import context
from trainserve.client.context import Context
from trainserve.errors import UserError


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path / "home"))


def test_without_a_file_there_is_this_machine() -> None:
    assert context.read().named() == Context("local")
    assert not context.path().exists()


def test_what_is_set_stays_until_it_is_unset() -> None:
    context.change("lab", {"namespace": "team", "output": "pvc://runs", "image": None})
    context.change("lab", {"image": "registry.example/trainer:1"})
    context.use("lab")
    assert context.read().named() == Context(
        "lab", "kubernetes", namespace="team", output="pvc://runs", image="registry.example/trainer:1"
    )
    context.change("lab", {}, ["image", "kubeContext"])
    assert json.loads(context.path().read_text()) == {
        "current": "lab",
        "contexts": {"lab": {"backend": "kubernetes", "namespace": "team", "output": "pvc://runs"}},
    }


def test_a_context_that_is_removed_is_not_current_any_more() -> None:
    context.change("lab", {})
    context.use("lab")
    assert context.remove("lab").current == "local"
    assert list(context.read().each) == ["local"]


def test_all_wrong_values_are_told_and_nothing_is_written() -> None:
    with pytest.raises(UserError) as caught:
        context.change("lab", {"namespace": "A_B", "output": "runs", "data_store": "hostpath:///x"})
    for words in ("namespace: 'A_B'", "output: 'runs'", "dataStore: 'hostpath:///x'"):
        assert words in caught.value.message
    assert not context.path().exists()


@pytest.mark.parametrize(
    ("name", "values", "unset", "says"),
    [
        ("local", {"image": "x"}, [], "is this machine, and stays so"),
        ("lab", {"backend": "local", "namespace": "team"}, [], "namespace: has no effect with backend local"),
        ("lab", {}, ["nam"], "no such field that can be unset"),
        ("lab", {"image": "x"}, ["image"], "it is given a value, too"),
        ("a b", {}, [], "name: 'a b' is not allowed"),
        ("lab", {"image": ""}, [], "image: '' is not allowed"),
        ("lab", {"image": "a b"}, [], "image: 'a b' is not allowed"),
        ("lab", {"kube_context": ""}, [], "kubeContext: '' is not allowed"),
        ("lab", {"kube_context": "\x1b[31m"}, [], r"kubeContext: '\\x1b\[31m' is not allowed"),
        ("lab", {"output": "https://host/x"}, [], "output: 'https://host/x' is not allowed"),
        ("lab", {"data_store": "s3://bucket/x?y"}, [], "is not allowed; allowed: pvc://"),
    ],
)
def test_what_is_refused(name: str, values: dict[str, str], unset: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        context.change(name, values, unset)


def test_an_unknown_name_gets_the_nearest() -> None:
    context.change("laboratory", {})
    with pytest.raises(UserError, match="did you mean 'laboratory'"):
        context.use("labratory")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"current": 3, "contexts": {}}',
        '{"current": "local", "contexts": {"a": {"backend": "x"}}}',
        '{"current": "local", "contexts": {"a": {"nix": "x"}}}',
        '{"current": "local", "contexts": {"a": {"image": 3}}}',
        '{"current": "local", "contexts": {"a": []}}',
        "null",
        '{"current": "local", "contexts": {"a": null}}',
        '{"current": "local", "contexts": {"a": {"kube_context": "x"}}}',
        '{"current": "local", "contexts": {"local": {"backend": "kubernetes"}}}',
        '{"current": "local", "contexts": {"a": {"backend": "kubernetes", "image": "\\u001b[31m"}}}',
        '{"current": "local", "contexts": {"a": {"backend": "kubernetes", "kubeContext": "\\ud800"}}}',
        "[" * 100_000,
        '{"current": ' + "9" * 5000 + "}",
    ],
    ids=range(16),
)
def test_a_damaged_file_is_told_by_its_path(text: str) -> None:
    context.path().parent.mkdir(parents=True)
    context.path().write_text(text)
    with pytest.raises(UserError, match=r"contexts\.json: is no file of contexts") as caught:
        context.read()
    assert caught.value.hint == "mend it, or remove it"
    for python in ("NoneType", "indices", "attribute", "recursion"):
        assert python not in caught.value.message


def test_a_context_of_a_kubeconfig_may_have_any_name_that_can_be_printed() -> None:
    for name in ("kind-dev", "arn:aws:eks:eu-west-1:1:cluster/x", "me@prod lab", "Büro"):
        assert context.change("lab", {"kube_context": name}).kube_context == name


def test_another_backend_than_the_contexts_takes_nothing_of_it() -> None:
    context.change("lab", {"output": "pvc://runs"})
    context.use("lab")
    assert context.chosen(None).output == "pvc://runs"
    assert context.chosen("kubernetes").output == "pvc://runs"
    assert context.chosen("local") == Context("lab", "local")
