"""Starting from weights: files of every kind, what fits and what does not, and torchvision's own from a server."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import shutil
import signal
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from support import bundles, pictures
from support.ranks import Ranks, classifier
from support.threads import one_thread  # noqa: F401  a fixture
from trainserve.errors import EXIT_OK, EXIT_PEER_LOST, EnvironmentProblem, UserError
from trainserve.machine.files import sha256_of
from trainserve.train import imagenet, weightfiles
from trainserve.train.architecture import build
from trainserve.train.checkpoint import load
from trainserve.train.distributed import Group
from trainserve.train.imagefolder import scan_for
from trainserve.train.recipe import Recipe, resolve
from trainserve.train.weightfiles import Source, check
from trainserve.train.weights import begin, fit_to, hint, read


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> Path:
    """A bundle of the classes that `folder` has. Nobody changes it."""
    return bundles.bundle(tmp_path_factory.mktemp("known"))


@functools.cache
def torchvisions(arch: str = "resnet18", classes: int = 1000, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state_dict as torchvision publishes them, with weights of chance."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return dict(getattr(torchvision.models, arch)(num_classes=classes).state_dict())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return pictures.write_classes(tmp_path_factory.mktemp("data"), {"1": 9, "10": 9, "2": 9}, size=8)


def recipe(folder: Path, weights: str | None, *, size: int = 8, **spec: Any) -> Recipe:
    model = {"imageSize": size, "weights": weights, **spec.pop("model", {})}
    made = classifier(folder, model=model, train={"batchSize": 4, "lr": 0.02, **spec.pop("train", {})})
    return resolve(made, scan_for(made), 8, 1)


def begun(recipe: Recipe, output: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The network's tensors after `begin`, and what was said."""
    said: list[str] = []
    torch.manual_seed(1)
    model = build(recipe.classifier.spec.model.arch, len(recipe.classes), recipe.stem)
    begin(model, recipe, Group(), output, said.append)
    return model.state_dict(), said


def test_a_plain_file_gives_everything_but_the_head(folder, tmp_path):
    save_file(torchvisions(), tmp_path / "r.safetensors")
    state, said = begun(recipe(folder, str(tmp_path / "r.safetensors"), size=96), tmp_path)
    same = [name for name, tensor in state.items() if torch.equal(tensor, torchvisions()[name])]
    assert len(same) == 120
    assert set(state) - set(same) == {"fc.weight", "fc.bias"}
    assert said == [f"weights: {tmp_path}/r.safetensors, 120 of 122 tensors taken, head fc new for 3 classes"]
    record = json.loads((tmp_path / "weights.json").read_text())
    assert record["sha256"] == sha256_of(tmp_path / "r.safetensors")
    assert (record["taken"], record["tensors"], record["arch"]) == (120, 122, "resnet18")


def test_the_stem_of_imagenet_is_adapted_to_small_pictures(folder, tmp_path):
    save_file(torchvisions(), tmp_path / "r.safetensors")
    state, said = begun(recipe(folder, str(tmp_path / "r.safetensors")), tmp_path)
    old, new = torchvisions()["conv1.weight"], state["conv1.weight"]
    assert new.shape == (64, 3, 3, 3)
    torch.testing.assert_close(new.sum((2, 3)), old.sum((2, 3)))  # the answer to an area of one colour
    torch.testing.assert_close(
        new[:, :, 0, 0] * 9, (old[:, :, :3, :3] * outer([1, 1, 1 / 3])).sum((2, 3)) * 9, msg="a corner"
    )
    assert "conv1 adapted 7x7 -> 3x3" in said[0]


def outer(shares: list[float]) -> torch.Tensor:
    return torch.tensor(shares)[:, None] * torch.tensor(shares)[None]


def test_the_small_stem_goes_into_the_middle_of_the_large_one(folder, tmp_path):
    state = {**torchvisions(), "conv1.weight": torch.randn(64, 3, 3, 3)}
    save_file(state, tmp_path / "r.safetensors")
    found, said = begun(recipe(folder, str(tmp_path / "r.safetensors"), model={"stem": "imagenet"}), tmp_path)
    assert torch.equal(found["conv1.weight"][:, :, 2:5, 2:5], state["conv1.weight"])
    assert found["conv1.weight"].count_nonzero() == state["conv1.weight"].count_nonzero()
    assert "conv1 adapted 3x3 -> 7x7" in said[0]


@pytest.mark.parametrize(
    ("classes", "order", "words"),
    [
        (("1", "10", "2"), [0, 1, 2], "122 of 122 tensors taken, head fc kept"),
        (("2", "1", "10"), [1, 2, 0], "head fc kept, its rows in this run's order of classes"),
        (("a", "2"), None, "head fc new for 3 classes (the weights know 2, 1 of them among these)"),
    ],
)
@pytest.mark.slow
def test_the_head_of_a_bundle_stays_where_the_classes_are_the_same(folder, known, tmp_path, classes, order, words):
    bundle = known if order == [0, 1, 2] else bundles.bundle(tmp_path / "b", classes)
    state, said = begun(recipe(folder, str(bundle)), tmp_path)
    before = bundles.checkpoint(classes).weights
    assert words in said[0]
    if order is not None:
        assert torch.equal(state["fc.weight"], before["fc.weight"][order])
        assert torch.equal(state["fc.bias"], before["fc.bias"][order])
    assert torch.equal(state["layer4.1.conv2.weight"], before["layer4.1.conv2.weight"])


@pytest.mark.slow
def test_a_bundles_file_is_the_bundle(known):
    assert weightfiles.locate(str(known / "weights.safetensors")) == weightfiles.locate(str(known))


def test_an_altered_bundle_is_refused(folder, known, tmp_path):
    bundle = shutil.copytree(known, tmp_path / "b")
    save_file(torchvisions(classes=3), bundle / "weights.safetensors")
    with pytest.raises(UserError, match=r"was altered: its sha256 is not that in model\.json"):
        begun(recipe(folder, str(bundle)), tmp_path)


PLAIN = {"conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight", "fc.weight"}


def some(prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: torchvisions()[name] for name in sorted(PLAIN)}


@pytest.mark.parametrize(
    ("value", "averaged"),
    [
        (some, False),
        (lambda: some("module."), False),
        (lambda: some("model."), False),
        (lambda: some("_orig_mod.module."), False),
        (lambda: {"state_dict": some("model."), "epoch": 3}, False),
        (lambda: {"model": some(), "model_ema": {"n_averaged": torch.tensor(3), **some("module.")}, "epoch": 3}, False),
        (lambda: {"model_ema": {"n_averaged": torch.tensor(3), **some("module.")}}, True),
        (lambda: {"weights": some(), "optimizer": {}, "rng": None}, False),
        (lambda: {**some(), **some("ema.")}, False),
    ],
)
def test_names_are_found_whatever_stands_before_them(value, averaged, tmp_path):
    torch.save(value(), tmp_path / "w.pth")
    found, is_averaged = read(tmp_path / "w.pth")
    assert set(found) >= PLAIN
    assert all(torch.equal(found[name], torchvisions()[name]) for name in PLAIN)
    assert is_averaged is averaged


def zip_of(name: str) -> Any:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"")

    return write


class Harmful:
    """What a pickle can do to whoever loads it."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: path.write_bytes(b"hello"), "nor one that torch.save wrote"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"\x80\x02."), "cannot be read as a state_dict"),
        (lambda path: (torch.save(some(), path), path.write_bytes(path.read_bytes()[:-9])), "was cut short"),
        (zip_of("model/code/x.py"), "is a TorchScript program"),
        (zip_of("MAR-INF/MANIFEST.json"), "a zip file, but not one that torch.save wrote"),
        (lambda path: torch.save({"a": Harmful()}, path), "it holds more than tensors"),
        (lambda path: torch.save([1, 2], path), "holds a list, not a state_dict"),
        (lambda path: torch.save({"features.0.weight": torch.zeros(2)}, path), "holds no ResNet"),
        (lambda path: torch.save({**some("q."), **some("k.")}, path), "holds 2 networks: 'k.', 'q.'"),
    ],
)
def test_what_is_no_state_dict_is_refused_in_words(write, says, tmp_path):
    write(tmp_path / "w.pth")
    with pytest.raises(UserError, match=says):
        read(tmp_path / "w.pth")


def test_what_torch_wrote_is_taken_before_there_is_a_run(tmp_path):
    """The old format too, which is no zip file."""
    for number, new in enumerate((True, False)):
        torch.save(some(), tmp_path / f"{number}.pth", _use_new_zipfile_serialization=new)
        check(str(tmp_path / f"{number}.pth"), "resnet18")
        assert set(read(tmp_path / f"{number}.pth")[0]) == PLAIN


def test_other_networks_are_refused_with_the_likely_one(tmp_path):
    save_file(torchvisions("resnet50"), tmp_path / "r.safetensors")
    with pytest.raises(UserError, match=r"holds a resnet50, and spec\.model\.arch is resnet18") as caught:
        check(str(tmp_path / "r.safetensors"), "resnet18")
    assert caught.value.hint == "use --arch resnet50"
    check(str(tmp_path / "r.safetensors"), "resnet50")


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_each_network_is_known_by_its_tensors(arch):
    with torch.device("meta"):
        state = build(arch, 2, "imagenet").state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    weightfiles.check_arch(shapes, arch, "x")
    with pytest.raises(UserError, match=f"holds a {arch}"):
        weightfiles.check_arch(shapes, "vgg", "x")


@pytest.mark.parametrize("arch", ["wide_resnet50_2", "resnext50_32x4d"])
def test_wide_and_grouped_networks_are_refused(arch):
    with torch.device("meta"):
        state = getattr(torchvision.models, arch)().state_dict()
    with pytest.raises(UserError, match="a wide or grouped ResNet"):
        weightfiles.check_arch({name: tuple(tensor.shape) for name, tensor in state.items()}, "resnet50", "x")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("layer3.1.bn2.running_var"), "not whole: it has no layer3.1.bn2.running_var"),
        (lambda state: state.update({"layer2.0.bn1.bias": torch.zeros(5)}), r"layer2.0.bn1.bias is \[5\], not \[128\]"),
        (lambda state: state.update({"bn1.weight": torch.full((64,), torch.nan)}), "bn1.weight holds numbers that are"),
        (lambda state: state.pop("conv1.weight"), "conv1.weight is None"),
    ],
)
def test_what_does_not_fit_is_named(change, says):
    state = dict(torchvisions())
    change(state)
    wanted = build("resnet18", 3, "small").state_dict()
    with pytest.raises(UserError, match=says):
        fit_to(wanted, state, "resnet18", ["a", "b", "c"], Source(Path("w.pth")))


def test_a_cut_file_is_told_before_there_is_a_run(tmp_path):
    save_file(some(), tmp_path / "r.safetensors")
    data = (tmp_path / "r.safetensors").read_bytes()
    for end, says in ((len(data) - 1, "was cut short"), (5, "no safetensors file"), (40, "no safetensors file")):
        (tmp_path / "r.safetensors").write_bytes(data[:end])
        with pytest.raises(UserError, match=says):
            check(str(tmp_path / "r.safetensors"), "resnet18")


def test_few_large_pictures_without_weights_get_a_hint(folder, tmp_path):
    _, said = begun(recipe(folder, None, size=96), tmp_path)
    assert said == [
        "21 training pictures, 7 of the smallest class: with so few, starting from ImageNet weights usually helps: "
        "--weights imagenet"
    ]
    assert hint(recipe(folder, None, size=32)) is None


# torchvision's own files, from a server on this machine.


@contextmanager
def served(
    files: dict[str, bytes], *, cut: int = 0, hold: threading.Event | None = None
) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server with these files, and the paths that were asked for; `cut` bytes short of what it announces.

    With `hold` an answer ends only when that is set.
    """
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            data = files.get(self.path.lstrip("/"))
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write((data or b"")[: len(data or b"") - cut])
            self.wfile.flush()
            if hold is not None:
                hold.wait(60)

        def log_message(self, *_: Any) -> None:
            """Silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


DATA = b"weights" * 1000
NAME = f"resnet18-{hashlib.sha256(DATA).hexdigest()[:8]}.pth"


@pytest.fixture
def caches(tmp_path, monkeypatch) -> Path:
    """Our cache's folder; torch's is empty."""
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "home" / "weights"


def fetch(url: str) -> tuple[Path, list[str]]:
    said: list[str] = []
    path = imagenet.cached_or_fetched(imagenet.Published("imagenet resnet18 V1", f"{url}/{NAME}"), said.append, bool)
    return path, said


def test_a_file_is_fetched_once_and_checked_each_time(caches):
    with served({NAME: DATA}) as (url, asked):
        path, said = fetch(url)
        assert said == [f"weights: fetching {url}/{NAME}"]
        assert fetch(url) == (path, [])
        assert asked == [f"/{NAME}"]
        path.write_bytes(DATA[:-1])
        again, said = fetch(url)
    assert "is damaged" in said[0]
    assert again.read_bytes() == DATA
    assert sorted(entry.name for entry in caches.iterdir()) == [NAME, f"torn-{NAME}"]
    assert len(asked) == 2


def test_torchs_own_cache_is_used_where_it_is_whole(caches, tmp_path):
    theirs = tmp_path / "torch" / "hub" / "checkpoints" / NAME
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(DATA)
    assert fetch("http://127.0.0.1:9") == (theirs, [])
    theirs.write_bytes(b"other")
    with served({NAME: DATA}) as (url, _):
        path, said = fetch(url)
    assert path == caches / NAME
    assert "is damaged and passed over" in said[0]
    assert theirs.read_bytes() == b"other"


@pytest.mark.parametrize(
    ("files", "cut", "says"),
    [
        ({NAME: b"something else"}, 0, "whose sha256 does not begin with"),
        ({NAME: DATA}, 10, "cannot be had"),
        ({}, 0, "cannot be had: HTTP 404 Not Found"),
    ],
)
def test_a_download_that_fails_leaves_nothing_and_names_the_other_way(caches, files, cut, says):
    with served(files, cut=cut) as (url, _), pytest.raises(EnvironmentProblem, match=says) as caught:
        fetch(url)
    assert f"{url}/{NAME}" in caught.value.message
    assert "--weights FILE" in str(caught.value.hint)
    assert list(caches.iterdir()) == []


def test_no_server_is_told_with_the_address(caches):
    with pytest.raises(EnvironmentProblem, match=r"cannot be had: .*refused"):
        fetch("http://127.0.0.1:9")


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_every_network_has_a_published_file_with_its_digest(arch):
    found = imagenet.published(arch)
    assert found.file_name.startswith(f"{arch}-")
    assert len(found.digest) == 8
    assert found.name == f"imagenet {arch} {'V1' if arch in ('resnet18', 'resnet34') else 'V2'}"


def test_imagenet_weights_become_the_network(folder, caches, tmp_path, monkeypatch):
    torch.save(torchvisions(), tmp_path / "made.pth")
    name = f"resnet18-{sha256_of(tmp_path / 'made.pth')[:8]}.pth"
    with served({name: (tmp_path / "made.pth").read_bytes()}) as (url, _):
        monkeypatch.setattr(imagenet, "published", lambda arch: imagenet.Published("imagenet x V1", f"{url}/{name}"))
        state, said = begun(recipe(folder, "imagenet"), tmp_path)
    assert torch.equal(state["layer1.0.conv1.weight"], torchvisions()["layer1.0.conv1.weight"])
    assert said[-1] == (
        "weights: imagenet x V1, 120 of 122 tensors taken, head fc new for 3 classes, conv1 adapted 7x7 -> 3x3"
    )


# Whole runs.

TINY = {"epochs": 1, "batchSize": 8, "lr": 0.02, "warmupEpochs": 0}


@pytest.mark.slow
def test_all_ranks_start_from_the_weights_and_a_resume_never_reads_them_again(folder, known, tmp_path):
    bundle = shutil.copytree(known, tmp_path / "b")
    made = classifier(folder, model={"imageSize": 8, "weights": str(bundle)}, train={**TINY, "lr": 1e-8})
    with Ranks(made, tmp_path / "run", 2) as ranks:
        assert ranks.codes() == [EXIT_OK, EXIT_OK], ranks.log()
    assert sum("head fc kept" in event["message"] for event in ranks.events("notice")) == 1
    newest = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[-1]
    weights, before = load(newest).weights, bundles.checkpoint().weights
    torch.testing.assert_close(weights["layer4.1.conv2.weight"], before["layer4.1.conv2.weight"], atol=1e-5, rtol=0)
    lineage = json.loads((tmp_path / "run" / "bundle" / "model.json").read_text())["lineage"]
    assert lineage["weights"]["source"] == str(bundle)
    assert lineage["weights"]["sha256"] == sha256_of(bundle / "weights.safetensors")
    (bundle / "weights.safetensors").write_bytes(b"gone")
    with Ranks(made, tmp_path / "run", 1) as again:
        assert again.codes() == [EXIT_OK], again.log()
    lineage = json.loads((tmp_path / "run" / "bundle" / "model.json").read_text())["lineage"]
    assert lineage["weights"]["source"] == str(bundle)


SLOW_DOWNLOAD = """
import os, sys
from trainserve.train import imagenet
imagenet.published = lambda arch: imagenet.Published("imagenet x V1", os.environ["TEST_URL"])
from trainserve.launch import work
sys.exit(work.main())
"""


@pytest.mark.slow
def test_a_stop_during_a_long_download_ends_all_ranks_at_once(folder, caches, tmp_path):
    """There is nothing to save yet, so nobody waits for a checkpoint."""
    made = classifier(folder, model={"imageSize": 8, "weights": "imagenet"}, train=TINY)
    hold = threading.Event()
    with served({NAME: DATA}, cut=10, hold=hold) as (url, asked):
        env = {"TEST_URL": f"{url}/{NAME}"}
        with Ranks(made, tmp_path / "run", 2, program=("-c", SLOW_DOWNLOAD), env=env) as ranks:
            ranks.wait_for(lambda: asked)
            ranks.kill(signal.SIGTERM)
            codes = ranks.codes(20)
        hold.set()
    assert codes[0] == -signal.SIGTERM
    assert codes[1] in (-signal.SIGTERM, EXIT_PEER_LOST)
    assert not list(caches.glob(NAME))
