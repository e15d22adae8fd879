"""The digest of a data set and its manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainserve.errors import DataError
from trainserve.train import manifest
from trainserve.train.manifest import File

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0"), min_size=1, max_size=20).filter(
    lambda word: word not in {".", ".."}
)
PATHS = st.lists(WORDS, min_size=1, max_size=3).map("/".join)
FILES = st.lists(
    st.builds(
        File, PATHS, st.binary(max_size=9).map(lambda data: hashlib.sha256(data).hexdigest()), st.integers(0, 99)
    ),
    unique_by=lambda file: file.path,
    max_size=12,
)


@given(FILES)
def test_what_is_written_is_read(files):
    assert set(manifest.decode(manifest.encode(files), "here")) == set(files)


@given(FILES, st.randoms())
def test_order_makes_no_other_digest(files, random):
    shuffled = random.sample(files, len(files))
    assert manifest.digest_of(shuffled) == manifest.digest_of(files)
    assert manifest.encode(shuffled) == manifest.encode(files)


@given(FILES.filter(bool), st.data())
def test_another_byte_another_name_or_a_file_less_is_another_digest(files, data):
    at = data.draw(st.integers(0, len(files) - 1))
    digest = manifest.digest_of(files)
    others = [*files[:at], *files[at + 1 :]]
    assert manifest.digest_of(others) != digest
    assert manifest.digest_of([*others, files[at]._replace(sha256="0" * 64)]) != digest
    assert manifest.digest_of([*others, files[at]._replace(path=files[at].path + "x")]) != digest


@given(FILES, st.data())
def test_a_damaged_manifest_is_refused_or_the_same(files, data):
    """Whatever one letter becomes: never other files under the digest that was written."""
    text = bytearray(manifest.encode(files))
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = manifest.decode(bytes(text), "here")
    except DataError:
        return
    assert manifest.digest_of(found) == manifest.digest_of(files)


@pytest.mark.parametrize(
    "path", ["../a.png", "/a.png", "a/../../b.png", "a//b.png", "", "a\\b.png", "a\0.png", "\ud800.png", "x" * 1001]
)
def test_a_name_that_leads_out_is_refused(path):
    whole = json.loads(manifest.encode([File("a.png", "0" * 64, 1)]))
    whole["files"] = [[path, "0" * 64, 1]]
    with pytest.raises(DataError, match="is no name of a file"):
        manifest.decode(json.dumps(whole).encode(), "s3://b/manifest.json")


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"format": 2}', b'{"format":1,"files":[["a",1,2]],"digest":"x"}', b"\xff"]
)
def test_what_is_no_manifest_is_told_with_its_place(text):
    with pytest.raises(DataError, match=r"s3://b/manifest\.json"):
        manifest.decode(text, "s3://b/manifest.json")


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("rose/1.png", True), ("1.JPG", True), ("rose/.1.png", False),
        (".trash/1.png", False), ("__MACOSX/a/1.png", False),
        ("rose/readme.txt", False), (".dataset.json", False), ("manifest.json", False),
    ],
)  # fmt: skip
def test_what_counts(path, is_one):
    assert manifest.is_picture(path) is is_one


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum of coreutils is not installed here")
def test_the_digest_is_what_sha256sum_says(tmp_path):
    for name in ("b/2.png", "a/1.png", "a b/3.png", "ä/4.png"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(name.encode())
    command = r"find . -type f | sed 's|^./||' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum"
    assert command in (manifest.__doc__ or "")
    said = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=True, text=True).stdout
    files = [
        File(path.relative_to(tmp_path).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest(), 0)
        for path in tmp_path.rglob("*.png")
    ]
    assert manifest.digest_of(files) == f"sha256:{said.split()[0]}"
