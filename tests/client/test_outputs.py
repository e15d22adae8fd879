"""A run's output, fetched from where it is; the lines that the Master has kept."""

from __future__ import annotations

import pytest

from support.buckets import Failing, in_memory
from trainserve.client import context, evaluate
from trainserve.client.cluster import calls, outputs
from trainserve.client.cluster.connect import Place
from trainserve.client.cluster.logs import NotGiven
from trainserve.client.cluster.outputs import fetched, kept_logs, log_of
from trainserve.client.cluster.run import ClusterRun
from trainserve.client.listener import Listener
from trainserve.client.logs import LogLine
from trainserve.client.models import archive_of, bundle_of, find_model
from trainserve.errors import DataError, EnvironmentProblem, UserError

RUN = ClusterRun(Place(None, "team"), "flowers")
URL = "memory://bucket/out/flowers"


@pytest.fixture
def store(monkeypatch, tmp_path):
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(outputs, "where", lambda run: (URL, None))
    with in_memory(URL) as found:
        yield found


def filled(store):
    for name in (
        "events.jsonl", "predictions.jsonl", "flowers.mar", "bundle/model.json", "bundle/golden/00.png",
        "checkpoints/step-00000010/meta.json", "checkpoints/step-00000010/state.pt", "tensorboard/events.out",
    ):  # fmt: skip
        store.write(name, name.encode())


def test_what_a_report_needs_is_fetched_once_and_the_weights_of_checkpoints_are_not(store, monkeypatch):
    filled(store)
    output = fetched(RUN, Listener())
    names = {path.relative_to(output.folder).as_posix() for path in output.folder.rglob("*") if path.is_file()}
    assert names == {
        ".fetched.json", "events.jsonl", "predictions.jsonl", "flowers.mar", "bundle/model.json",
        "bundle/golden/00.png", "checkpoints/step-00000010/meta.json",
    }  # fmt: skip
    (output.folder / "report.html").write_text("ours")
    store.write("events.jsonl", b"more of them")
    store.remove(["flowers.mar"])
    heard = []
    listener = Listener()
    listener.downloading = lambda *of: heard.append(of)  # type: ignore[method-assign]
    again = fetched(RUN, listener)
    assert heard == [("k8s://team/flowers", 12, 12)]
    assert (again.folder / "events.jsonl").read_bytes() == b"more of them"
    assert not (again.folder / "flowers.mar").exists()
    assert (again.folder / "report.html").read_text() == "ours"


def test_runs_of_one_name_on_two_clusters_have_copies_of_their_own(store):
    filled(store)
    there = ClusterRun(Place("other", "team"), "flowers")
    assert fetched(RUN, Listener()).folder != fetched(there, Listener()).folder


def test_the_contexts_output_is_only_of_its_own_cluster(monkeypatch, tmp_path):
    def absent(*_):
        raise UserError("no such run")

    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path))
    monkeypatch.setattr(outputs, "ask", absent)
    here = context.Context(name="here", backend="kubernetes", kube_context="here", output="s3://runs/a")
    monkeypatch.setattr(outputs.contexts, "read", lambda: context.Contexts("here", {"here": here}))
    assert outputs.where(ClusterRun(Place("here", "team"), "flowers")) == ("s3://runs/a/flowers", None)
    with pytest.raises(UserError, match="no such run"):
        outputs.where(ClusterRun(Place("other", "team"), "flowers"))


def test_a_download_that_breaks_leaves_no_half_file(store, monkeypatch):
    filled(store)
    monkeypatch.setattr(outputs, "reached", lambda *of, **more: Opened(Failing(store, every=4)))
    with pytest.raises(EnvironmentProblem):
        fetched(RUN, Listener())
    monkeypatch.undo()


class Opened:
    def __init__(self, bucket) -> None:
        self.bucket = bucket

    def __enter__(self):
        return self.bucket

    def __exit__(self, *error) -> None:
        return None


def test_nothing_there_yet_and_a_folder_of_a_node_are_told(store, monkeypatch):
    with pytest.raises(UserError, match="has written nothing to memory://bucket/out/flowers yet"):
        fetched(RUN, Listener())
    monkeypatch.setattr(outputs, "where", lambda run: ("hostpath:///mnt/out", None))
    with pytest.raises(EnvironmentProblem, match="a folder of the node"):
        fetched(RUN, Listener())


def test_a_name_that_leads_out_is_not_followed(store):
    from trainserve.machine.bucket.store import Item

    class Bad(Failing):
        def list(self, prefix=""):
            yield Item("bundle/../../../evil", 1, "1")

    with pytest.raises(DataError):
        outputs.bring(
            Bad(store, 10**9), {"bundle/../../../evil": Item("bundle/../../../evil", 1, "1")}, *_place(), label="x"
        )


def _place():
    from trainserve.machine.home import home

    return home() / "copy", Listener()


def test_the_verbs_about_models_take_a_run_of_a_cluster(store):
    filled(store)
    name, bundle = bundle_of("k8s://team/flowers")
    assert (name, bundle.name, (bundle / "model.json").read_bytes()) == ("flowers", "bundle", b"bundle/model.json")
    assert archive_of("k8s://team/flowers").read_bytes() == b"flowers.mar"
    store.remove(["bundle/model.json"])
    with pytest.raises(UserError, match="has no bundle yet"):
        bundle_of("k8s://team/flowers")


def test_a_bare_name_under_a_context_that_is_a_cluster_is_the_same_run_and_fetched_once(store, monkeypatch, tmp_path):
    filled(store)
    context.save(context.Context("lab", "kubernetes", namespace="team", output="pvc://runs"))
    context.use("lab")
    monkeypatch.chdir(tmp_path)
    assert archive_of("flowers").read_bytes() == b"flowers.mar"
    asked = []
    monkeypatch.setattr(outputs, "fetched", lambda run, listener: asked.append(str(run)) or fetched(run, listener))
    monkeypatch.setattr(evaluate, "_by_bundle", lambda word, *of, **more: find_model(word))
    for word in ("flowers", "k8s://team/flowers"):
        assert evaluate.evaluate(word, None, Listener()).bundle.parent.name == "flowers"
    assert asked == ["k8s://team/flowers"] * 2


def test_kept_lines_come_generation_after_generation(store):
    store.write("logs/g2/flowers-master-0-rank0.log", b"third\nfourth")
    store.write("logs/g1/flowers-worker-0-rank1.log", b"second\n")
    store.write("logs/g1/flowers-master-0-rank0.log", b"first\n")
    store.write("logs/g10/flowers-master-0-agent.log", b"last\n")
    store.write("logs/notes.txt", b"no log\n")
    found = [str(line) for line in kept_logs(RUN, Listener(), rank=None, tail=None)]
    assert found == [
        "[flowers-master-0.g1] first", "[flowers-worker-0.g1] second", "[flowers-master-0.g2] third",
        "[flowers-master-0.g2] fourth", "[flowers-master-0.g10] last",
    ]  # fmt: skip
    assert [line.text for line in kept_logs(RUN, Listener(), rank=0, tail=1)] == ["first", "fourth"]
    with pytest.raises(UserError, match="no log of rank 7"):
        list(kept_logs(RUN, Listener(), rank=7, tail=None))


def _silent(monkeypatch, said=()):
    """A cluster that gives these lines, and then no more."""

    def each(place, ask, listener):
        yield from said
        raise NotGiven("the log of pod flowers-master-0 cannot be read", hint="is the node alive?")

    monkeypatch.setattr(calls, "each", each)


def _logs(heard):
    listener = Listener()
    listener.notice = heard.append  # type: ignore[method-assign]
    return [str(each) for each in calls.logs(RUN, listener, follow=False, rank=None, tail=None, previous=False)]


def test_what_a_node_does_not_give_is_read_from_the_output(store, monkeypatch):
    store.write("logs/g1/flowers-master-0-rank0.log", b"first\n")
    _silent(monkeypatch)
    heard = []
    assert _logs(heard) == ["[flowers-master-0.g1] first"]
    (told,) = heard
    assert "flowers-master-0 cannot be read; these are the lines that its output has" in told


def test_what_a_node_does_not_give_and_the_output_has_not_is_told(store, monkeypatch):
    _silent(monkeypatch)
    with pytest.raises(NotGiven, match="cannot be read"):
        _logs([])
    store.write("logs/g1/flowers-master-0-rank0.log", b"first\n")
    _silent(monkeypatch, said=[LogLine("flowers-master-0.g1", "first")])
    with pytest.raises(NotGiven, match="cannot be read"):  # and no line twice
        _logs([])


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("logs/g3/a-b-master-0-rank12.log", (3, "a-b-master-0", 12)),
        ("logs/g0/a-worker-1-agent.log", (0, "a-worker-1", -1)),
        ("logs/g3/rank1.log", None),
        ("logs/gx/a-rank1.log", None),
        ("logs/g3/a-12.log", None),
        ("logs/g3/a-rank1.txt", None),
        ("logs/g3/deep/a-rank1.log", None),
    ],
)
def test_what_is_a_log(name, key):
    assert log_of(name) == key
