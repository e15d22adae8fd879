from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from support import bundles
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.package import archive, mar
from trainserve.package.handler_source import handler_source
from trainserve.package.mar import build_mar, read_mar
from trainserve.package.settings import model_config
from trainserve.spec.classifier import ServeSpec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.bundle(tmp_path_factory.mktemp("mar"))


@pytest.fixture(scope="module")
def whole(bundle: Path) -> Path:
    build_mar(bundle, bundle.parent / "digits.mar", name="digits", version="1.10")
    return bundle.parent / "digits.mar"


@pytest.fixture(scope="module")
def light(whole: Path) -> Path:
    """The archive with a few bytes for weights: reading verifies digests and does not load them."""

    def shrink(files: dict[str, bytes]) -> None:
        values = json.loads(files["model.json"])
        values["digests"]["weights.safetensors"] = hashlib.sha256(b"weights" * 100).hexdigest()
        files.update({"weights.safetensors": b"weights" * 100, "model.json": json.dumps(values).encode()})

    return rewritten(whole, whole.with_name("light.mar"), shrink)


def rewritten(source: Path, target: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """A copy of a .mar whose files `change` altered."""
    files = archive.entries(source)
    change(files)
    archive.write(files, target)
    return target


def test_two_builds_have_one_sha256(bundle: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "a folder, with a comma [and] brackets"
    copied = elsewhere / "bundle"
    for file in sorted(bundle.rglob("*")):
        if file.is_file():
            target = copied / file.relative_to(bundle)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
            os.utime(target, (1, 1))
            target.chmod(0o600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    digest = build_mar(copied, elsewhere / "other.mar", name="digits", version="1.10")
    assert digest == hashlib.sha256(whole.read_bytes()).hexdigest()
    assert sorted(path.name for path in elsewhere.iterdir()) == ["bundle", "other.mar"]


def test_archiver_cannot_remove_a_folder_of_the_model_s_name(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "digits"
    victim.mkdir()
    (victim / "data").touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    build_mar(bundle, tmp_path / "digits.mar", name="digits")
    assert (victim / "data").exists()


def test_content(whole: Path) -> None:
    with zipfile.ZipFile(whole) as source:
        names = source.namelist()
        manifest = json.loads(source.read("MAR-INF/MANIFEST.json"))
        index_to_name = json.loads(source.read("index_to_name.json"))
        assert source.read("resnet_classifier.py") == handler_source()
    assert names == sorted(names)
    golden = {f"golden/{index:02d}.png" for index in range(8)} | {"golden/expected.json"}
    assert set(names) == golden | {
        "MAR-INF/MANIFEST.json",
        "architecture.py",
        "index_to_name.json",
        "model-config.yaml",
        "model.json",
        "preprocess.py",
        "resnet_classifier.py",
        "weights.safetensors",
    }
    assert manifest["model"]["modelVersion"] == "1.10"
    assert index_to_name == {"0": "1", "1": "10", "2": "2"}  # IMG-05: as in the checkpoint


def test_reads_what_it_built(whole: Path, bundle: Path) -> None:
    info = read_mar(whole)
    assert (info.name, info.version) == ("digits", "1.10")
    assert info.description.classes == ["1", "10", "2"]
    assert info.golden_picture(info.golden[0]) == (bundle / "golden" / "00.png").read_bytes()


def test_other_settings_are_packed(bundle: Path, tmp_path: Path) -> None:
    serve = ServeSpec.model_validate({"workers": 3, "batchSize": 8, "maxUploadMib": 2, "topK": 1})
    build_mar(bundle, tmp_path / "m.mar", name="m", serve=serve)
    assert read_mar(tmp_path / "m.mar").description.serve == serve
    with zipfile.ZipFile(tmp_path / "m.mar") as source:
        config = yaml.safe_load(source.read("model-config.yaml"))
    assert config == {
        "minWorkers": 3,
        "maxWorkers": 3,
        "batchSize": 8,
        "maxBatchDelay": 5,
        "responseTimeout": 30,
        "startupTimeout": 120,
        "maxRetryTimeoutInSec": 60,
        "handler": {"topK": 1, "maxPixels": 50_000_000, "maxUploadBytes": 2 * 1024 * 1024},
    }


def test_without_workers_the_server_decides_how_many() -> None:
    assert "Workers" not in model_config(ServeSpec())


@pytest.mark.parametrize("name", ["", ".hidden", "-option", "a/b", "a b", "a..b", "ü", "x" * 129, "a,b", "a=b"])
def test_names_that_torchserve_cannot_take(bundle: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"model name .*: allowed are letters, digits"):
        build_mar(bundle, tmp_path / "m.mar", name=name)


def test_destination_is_a_folder(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder; give a file such as .*/digits.mar"):
        build_mar(bundle, tmp_path, name="digits")


def test_nothing_in_the_systems_temporary_folder_is_touched(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archiver removes $TMPDIR/NAME, whatever is in it; ours once was where a relative path did not lead."""
    precious = tmp_path / "tmp" / "digits" / "precious"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    # What Python falls back to where TMPDIR is no folder: the first of these that can be written.
    monkeypatch.setenv("TEMP", str(tmp_path / "tmp"))
    build_mar(bundle, Path("digits.mar"), name="digits")
    assert precious.read_text() == "mine"
    assert [path.name for path in Path().iterdir()] == ["digits.mar"]


def test_an_archive_is_called_like_one(bundle: Path, tmp_path: Path) -> None:
    """`-o json` is the format with other verbs, and a file called json would be nobody's wish."""
    with pytest.raises(UserError, match=r"an archive ends with \.mar\nhint: -o .*/json\.mar, .*--output"):
        build_mar(bundle, tmp_path / "json", name="digits")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_build_leaves_the_old_archive(
    bundle: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "digits.mar"
    old.write_bytes(b"old")
    monkeypatch.setattr(mar, "ARCHIVER", "import sys; sys.exit('ModelArchiverError: no')")
    with pytest.raises(EnvironmentProblem, match=r"torch-model-archiver failed: ModelArchiverError: no"):
        build_mar(bundle, old, name="digits")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("digits.mar", b"old")]


def test_archiver_that_is_not_installed(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mar, "ARCHIVER", "raise ModuleNotFoundError(\"No module named 'model_archiver'\")")
    with pytest.raises(EnvironmentProblem, match=r"hint: pip install 'trainserve\[train\]'"):
        build_mar(bundle, tmp_path / "m.mar", name="digits")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file"):
        read_mar(tmp_path / "nope.mar")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder, not a .mar"):
        read_mar(tmp_path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty file, not a .mar"),
        (b"plain text", "not a .mar"),
        (bytes(1000), "not a .mar"),
        (b"\x1f\x8b\x08" + bytes(100), "not a .mar"),
    ],
)
def test_not_a_zip(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "x.mar").write_bytes(data)
    with pytest.raises(UserError, match=said):
        read_mar(tmp_path / "x.mar")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated(light: Path, tmp_path: Path, share: float) -> None:
    data = light.read_bytes()
    (tmp_path / "x.mar").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"truncated or damaged"):
        read_mar(tmp_path / "x.mar")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_without_its_begin(light: Path, tmp_path: Path, share: float) -> None:
    """zipfile finds the table at the end, and then reads before the begin of the file."""
    data = light.read_bytes()
    (tmp_path / "x.mar").write_bytes(data[int(len(data) * share) :])
    with pytest.raises(UserError, match=r"x\.mar: not a \.mar \(which is a zip file\): "):
        read_mar(tmp_path / "x.mar")


def test_damage_of_any_kind_is_the_archives_and_no_traceback(light: Path, tmp_path: Path) -> None:
    """Bytes of its directory (what zipfile believes) and anywhere, changed by a seeded chance."""
    data, path = light.read_bytes(), tmp_path / "x.mar"
    directory = data.index(b"PK\x01\x02")
    chance = random.Random(5)
    refused: list[UserError] = []
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(chance.choice([1, 3, 30])):
            changed[chance.randrange(directory if chance.random() < 0.8 else 0, len(data))] = chance.randrange(256)
        path.write_bytes(changed)
        try:
            read_mar(path)
        except UserError as error:
            refused.append(error)
    assert len(refused) > 200
    assert all(str(path) in error.message and error.hint for error in refused)


def test_what_would_unpack_to_far_more_than_it_is(light: Path, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.mar"
    with zipfile.ZipFile(light) as source, zipfile.ZipFile(bomb, "w") as target:
        for item in source.infolist():
            target.writestr(item, source.read(item))
        target.writestr("zeros", bytes(100 * 2**20), zipfile.ZIP_DEFLATED, 1)
    assert bomb.stat().st_size < 2**20
    with pytest.raises(UserError, match=r"refused: unpacked it would have 100 MiB, and it has \d+ KiB itself"):
        read_mar(bomb)


@pytest.mark.parametrize("name", ["preprocess.py", "./preprocess.py", "golden//00.png", "golden/00.png/"])
def test_two_files_of_one_name(light: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "x.mar"
    shutil.copy(light, target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's own: that is the point
        with zipfile.ZipFile(target, "a") as added:
            added.writestr(name, b"" if name.endswith("/") else b"evil")
    with pytest.raises(UserError, match=r"refused: it holds two files named '(preprocess\.py|golden/00\.png)'"):
        read_mar(target)


def test_flipped_bit(light: Path, tmp_path: Path) -> None:
    data = bytearray(light.read_bytes())
    data[data.index(b"weights" * 50)] ^= 1
    (tmp_path / "x.mar").write_bytes(data)
    with pytest.raises(UserError, match=r"truncated or damaged .mar: Bad CRC-32 for file 'weights.safetensors'"):
        read_mar(tmp_path / "x.mar")


def test_a_zip_that_is_no_mar(tmp_path: Path) -> None:
    archive.write({"a.txt": b"x"}, tmp_path / "x.mar")
    with pytest.raises(UserError, match=r"a zip file, but not a .mar: it has no MAR-INF/MANIFEST.json"):
        read_mar(tmp_path / "x.mar")


def test_a_mar_of_somebody_else(tmp_path: Path) -> None:
    manifest = {"model": {"modelName": "m", "modelVersion": "1.0", "handler": "image_classifier"}}
    archive.write({archive.MANIFEST: json.dumps(manifest).encode(), "model.pt": b"x"}, tmp_path / "x.mar")
    with pytest.raises(UserError, match=r"not one that this platform packed"):
        read_mar(tmp_path / "x.mar")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil"])
def test_names_that_leave_the_folder(light: Path, tmp_path: Path, name: str) -> None:
    target = rewritten(light, tmp_path / "x.mar", lambda files: files.update({name: b"x"}))
    with pytest.raises(UserError, match=r"which would leave its folder"):
        read_mar(target)


@pytest.mark.parametrize("file", ["weights.safetensors", "preprocess.py", "resnet_classifier.py", "golden/00.png"])
def test_altered_after_packing(light: Path, tmp_path: Path, file: str) -> None:
    target = rewritten(light, tmp_path / "x.mar", lambda files: files.update({file: files[file] + b" "}))
    with pytest.raises(UserError, match=rf"{file} was altered after packing"):
        read_mar(target)


def test_incomplete(light: Path, tmp_path: Path) -> None:
    target = rewritten(light, tmp_path / "x.mar", lambda files: files.pop("golden/03.png"))
    with pytest.raises(UserError, match=r"incomplete: golden/03.png is missing"):
        read_mar(target)


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b'{"model": {"modelName": "m"}}', b"\xff"])
def test_manifest_without_a_model(light: Path, tmp_path: Path, manifest: bytes) -> None:
    target = rewritten(light, tmp_path / "x.mar", lambda files: files.update({archive.MANIFEST: manifest}))
    with pytest.raises(UserError, match=r"names no model, version and handler"):
        read_mar(target)


def test_a_manifest_with_a_name_that_no_model_has_is_the_archives_fault(light: Path, tmp_path: Path) -> None:
    def renamed(files: dict[str, bytes]) -> None:
        manifest = json.loads(files[archive.MANIFEST])
        manifest["model"]["modelName"] = "../up"
        files[archive.MANIFEST] = json.dumps(manifest).encode()

    with pytest.raises(UserError, match=r"x\.mar: MAR-INF/MANIFEST\.json: model name '\.\./up': .*\nhint: "):
        read_mar(rewritten(light, tmp_path / "x.mar", renamed))


def test_model_json_of_a_later_version(light: Path, tmp_path: Path) -> None:
    def later(files: dict[str, bytes]) -> None:
        files["model.json"] = json.dumps({**json.loads(files["model.json"]), "schemaVersion": 2}).encode()

    with pytest.raises(UserError, match=r"model.json: schemaVersion"):
        read_mar(rewritten(light, tmp_path / "x.mar", later))


def test_a_device_or_pipe_is_never_replaced_by_an_archive(bundle: Path, tmp_path: Path) -> None:
    """`-o /dev/null` as root would leave a machine without /dev/null."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.mar").symlink_to("pipe")
    for name in ("pipe", "link.mar"):
        with pytest.raises(UserError, match="is a pipe or device, not a file"):
            build_mar(bundle, tmp_path / name, name="digits")
        with pytest.raises(UserError, match=r"is a pipe or device, not a \.mar"):
            read_mar(tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.mar", "pipe"]
