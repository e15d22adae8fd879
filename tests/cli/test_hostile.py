"""Words that nobody means: empty ones, endless ones, files where folders belong."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from support.command import platform
from support.here import Here
from support.tiny import tiny_run
from trainserve import errors
from trainserve.cli.main import of_the_machine, report
from trainserve.cli.output import emit, say
from trainserve.serve import servers


@pytest.mark.parametrize(
    "words",
    [
        ["package", ""],
        ["package", "x", "--out", ""],
        ["evaluate", ""],
        ["export", "", "--format", "onnx"],
        ["predict", "server", ""],
        ["data", "get", "digits", ""],
        ["data", "check", ""],
        ["report", "x", "--out", ""],
        ["train", "-f", ""],
    ],
    ids=" ".join,
)
def test_an_empty_word_is_never_the_current_folder(words: list[str], tmp_path: Path) -> None:
    done = platform(*words, home=tmp_path / "home", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "''" in done.stderr or '""' in done.stderr
    assert "hint: " in done.stderr or "allowed: " in done.stderr
    assert list(tmp_path.iterdir()) == []  # and nothing was written there


@pytest.mark.parametrize("verb", ["evaluate", "package"])
def test_an_endless_name_is_the_users_mistake_and_not_repeated_whole(verb: str, tmp_path: Path) -> None:
    done = platform(verb, "ü" * 300, home=tmp_path)
    assert done.returncode == 2
    assert "File name too long" in done.stderr
    assert "hint: " in done.stderr
    assert "ü" * 81 not in done.stderr


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP])
def test_something_else_where_a_file_or_folder_belongs_has_a_hint(number: int) -> None:
    told = of_the_machine(OSError(number, os.strerror(number), "/place"))
    assert (told.exit_code, told.message) == (errors.EXIT_ENVIRONMENT, f"/place: {os.strerror(number)}")
    assert told.hint


def test_a_home_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    done = platform("list", home=tmp_path / "home")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("hint: a file is where a folder belongs")


def test_a_home_of_a_user_that_is_not_there_is_a_folder_of_this_name(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = here("train", "--data", "~nobody-of-this-name/pictures")
    assert said.code == errors.EXIT_DATA
    assert said.err.startswith(f"error: data folder {Path.cwd()}/~nobody-of-this-name/pictures does not exist\n")
    monkeypatch.setenv("TRAINSERVE_HOME", "~nobody-of-this-name")
    assert here("list").code == 0


def test_an_endless_word_is_not_repeated_whole(here: Here) -> None:
    said = here("logs", "x", "--rank", "9" * 5000)
    assert said.code == 2
    assert len(said.err) < 3000
    assert said.err.endswith("hint: platform logs --help\n")


@pytest.mark.parametrize("value", ["metadata.labels.x=a b", f"train.deadlineSeconds={10**30}"])
def test_what_the_api_server_would_refuse_is_refused_before_there_is_a_run(
    value: str, home: Path, here: Here, tmp_path: Path
) -> None:
    said = here("train", "--data", tmp_path, "--name", "mine", "--set", value, "--dry-run")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith('error: PyTorchJob "mine" is invalid: ')
    assert not home.exists()


@pytest.mark.parametrize("verb", ["cancel", "rm"])
def test_a_run_that_is_named_twice_is_one(verb: str, home: Path, here: Here) -> None:
    tiny_run("mine", "")
    said = here(verb, "mine", "local://mine", "-o", "name")
    assert (said.code, said.out) == (0, "mine\n")


NO_EVENTS = [
    '{"time": 1, "kind": "step", "step": "x"}',
    '{"time": "x", "kind": "step", "step": 1}',
    '{"time": 1, "kind": "start", "epochs": [], "stepsPerEpoch": 3}',
    '{"time": 1, "kind": "epoch", "top1": true}',
    '{"time": 1, "kind": "step", "loss": NaN}',
    '{"time": 1, "kind": null}',
    "[" * 100_000,
]


@pytest.mark.parametrize("line", NO_EVENTS, ids=range(len(NO_EVENTS)))
def test_a_line_that_is_no_event_is_passed_over(line: str, home: Path, here: Here) -> None:
    run = tiny_run("mine", "")
    run.events_path.write_text(f'{line}\n{{"time": 2, "kind": "step", "epoch": 1, "step": 7, "loss": null}}\n')
    for words in (["list"], ["status", "mine"], ["why", "mine"]):
        said = here(*words, "-o", "json")
        assert said.code == 0, said.err
        json.loads(said.out, parse_constant=pytest.fail)
    assert json.loads(here("status", "mine", "-o", "json").out)["step"] == 7


def test_a_spec_that_is_no_text_is_no_reason_to_say_nothing(home: Path, here: Here) -> None:
    run = tiny_run("mine", "")
    run.spec_path.write_bytes(b"\xff\xfe\x00")
    assert here("why", "mine").code == 0


def test_documents_have_one_style_of_keys(home: Path, here: Here) -> None:
    with servers.claim("mine") as record:
        servers.write_record(
            record, servers.ServerRecord("mine", 1, "http://h:1", "h:2", "http://h:3", {"a_model": "1.0"}, 16, "/log")
        )
        listed = json.loads(here("list", "-o", "json").out)
        assert "http://h:1" in here("list").out
    assert listed["servers"] == [
        {
            "name": "mine",
            "pid": 1,
            "restUrl": "http://h:1",
            "grpcTarget": "h:2",
            "managementUrl": "http://h:3",
            "models": {"a_model": "1.0"},
            "maxUploadMib": 16,
            "log": "/log",
            "engine": "torchserve",
        }
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--backend", "kubernetes", "--data", "pvc://a", "--output", "pvc://b", "--dry-run"],
        ["list"],
        ["data", "push", ".", "pvc://a"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("flag", ["--namespace", "--kube-context"])
def test_an_empty_variable_of_the_shell_is_not_the_default_place(
    words: list[str], flag: str, home: Path, here: Here
) -> None:
    said = here(*words, flag, "")
    assert (said.code, said.out) == (2, "")
    assert f"{flag}: '' is no name; is a variable of the shell not set?" in said.err


@pytest.mark.parametrize("name", ["A b", "../x", "x\n", "$(HOME)", "\x1b[31m", "x" * 64, "🦊", "a.b"])
def test_a_word_that_is_no_namespace_is_refused_before_anybody_is_asked(name: str, home: Path, here: Here) -> None:
    words = ["train", "--backend", "kubernetes", "--data", "pvc://a", "--output", "pvc://b", "--dry-run"]
    for asked in (here(*words, "--namespace", name), here(*words, "--set", f"metadata.namespace={json.dumps(name)}")):
        assert (asked.code, asked.out) == (2, "")
        assert "error: namespace " in asked.err
        assert "allowed: small letters" in asked.err
        assert "hint: " in asked.err
        assert "\x1b" not in asked.err


OBEYED = "\x1b]0;title\x07\x1b[2J\r\x9b31m\x7f\u202e"


def test_a_terminal_obeys_nobody_elses_words(capsys: pytest.CaptureFixture[str]) -> None:
    emit("table", None, table=lambda: f"a\tb\nc {OBEYED} ü🦊")
    emit("name", None, table=str, names=[OBEYED])
    say(OBEYED)
    report(errors.UserError(OBEYED, hint=OBEYED))
    said = capsys.readouterr()
    assert said.out.startswith("a\tb\nc \\x1b]0;title\\x07")
    assert "ü🦊" in said.out
    assert not set(OBEYED) & set("\x1b\x07\r\x9b\x7f\u202e") & set(said.out + said.err)
    assert said.err.count("\\x1b[2J") == 3


def test_of_an_endless_error_the_field_and_what_is_allowed_are_left(here: Here, home: Path) -> None:
    words = ["train", "--backend", "kubernetes", "--data", "pvc://a", "--dry-run"]
    said = here(*words, "--output", f"/{'x' * 9000}")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: --output: spec.train.output: '/xxx")
    assert "allowed: pvc://CLAIM[/sub/path] or a bucket's URL\n" in said.err
    assert len(said.err) < 2500


@pytest.mark.parametrize("verb", ["status", "cancel", "rm", "why", "events", "logs", "wait", "resume"])
def test_a_name_that_no_run_of_a_cluster_can_have_is_not_asked_for(verb: str, here: Here, home: Path) -> None:
    for name in ("", "a/", "team/x y", "TEAM/x", "team/" + "x" * 3000, "../x", "team/\x1b[31m", "team/$(HOME)"):
        said = here(verb, f"k8s://{name}")
        assert (said.code, said.out) == (2, ""), name[:40]
        assert "hint: k8s://NAMESPACE/NAME" in said.err
        assert len(said.err) < 500
