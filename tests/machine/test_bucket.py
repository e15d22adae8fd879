"""Places for objects, without a server: what their errors mean, whose credentials count, and what is whole."""

from __future__ import annotations

import re
import urllib.error
from email.message import Message
from pathlib import Path

import pytest

from support.buckets import contents, in_memory
from support.published import serving
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.machine.bucket import awsfiles
from trainserve.machine.bucket.store import open_bucket, read, split
from trainserve.machine.bucket.words import Absent, told

# As obstore, urllib and fsspec say them, shortened.
SAID = {
    "no credentials": (
        "Error performing PUT http://169.254.169.254/latest/api/token in 2s, retry_timeout: 90s", EnvironmentProblem,
        "there are no credentials for it here", "AWS_ACCESS_KEY_ID",
    ),
    "wrong key": (
        "Client error with status 403 Forbidden: <Error><Code>InvalidAccessKeyId</Code></Error>", EnvironmentProblem,
        r"the credentials are refused \(InvalidAccessKeyId\)", "envFrom",
    ),
    "expired": (
        "status 400 Bad Request: <Code>ExpiredToken</Code>", EnvironmentProblem, "ExpiredToken", "envFrom",
    ),
    "no rights": (
        "status 403 Forbidden: <Error><Code>AccessDenied</Code></Error>", EnvironmentProblem,
        r"may not do that \(403 AccessDenied\)", "ask for the right",
    ),
    "no bucket": (
        "status 404 Not Found: <Error><Code>NoSuchBucket</Code></Error>", Absent, "there is no such bucket",
        "AWS_REGION",
    ),
    "no key": ("status 404 Not Found: <Code>NoSuchKey</Code>", Absent, "nothing of this name", "bucket and path"),
    "region": (
        "Received redirect without LOCATION, this normally indicates an incorrectly configured region",
        EnvironmentProblem, "another region", "AWS_REGION",
    ),
    "dns": ("retry_timeout: 90s, dns error, Name or service not known", EnvironmentProblem, "DNS", "AWS_ENDPOINT_URL"),
    "tls": ("invalid peer certificate: UnknownIssuer", EnvironmentProblem, "not trusted", "SSL_CERT_FILE"),
    "no tls": ("InvalidMessage(InvalidContentType)", EnvironmentProblem, "does not speak TLS", "AWS_ENDPOINT_URL"),
    "refused": ("Connection refused, retry_timeout: 90s", EnvironmentProblem, "connection refused", "try again"),
    "silent": ("operation timed out", EnvironmentProblem, "no answer in time", "try again"),
    "server": ("Server error with status 503 Service Unavailable", EnvironmentProblem, "HTTP status 503", "try again"),
    "unknown": ("something else\nwith a long trace", EnvironmentProblem, "something else$", "try again"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "says", "hint"), SAID.values(), ids=list(SAID))
def test_what_a_client_says_is_told_in_words(text, kind, says, hint):
    problem = told(OSError(text), "s3://b/x", "read", "s3")
    assert type(problem) is kind
    assert problem.message.startswith("s3://b/x cannot be read: ")
    assert re.search(says, problem.message)
    assert hint in str(problem.hint)


@pytest.mark.parametrize(("code", "kind"), [(404, Absent), (401, EnvironmentProblem), (403, EnvironmentProblem)])
def test_the_status_of_a_web_server_counts(code, kind):
    error = urllib.error.HTTPError("http://h/x", code, "", Message(), None)
    assert type(told(error, "http://h/x", "read")) is kind
    error.close()


def test_an_error_of_ours_stays_what_it_is():
    problem = UserError("no")
    assert told(problem, "s3://b", "read") is problem


KEYS = """\
[default]
aws_access_key_id = A
aws_secret_access_key = B
[lab]
aws_access_key_id = C
aws_secret_access_key = D
"""
MORE = "[default]\nregion = eu-west-1\n[profile lab]\nregion = eu-north-1\nendpoint_url = https://s3.lab/\n"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "credentials").write_text(KEYS)
    (tmp_path / "config").write_text(MORE)
    return {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
    }


def test_the_default_profile_counts_where_the_environment_says_nothing(files):
    assert awsfiles.config(files) == {"access_key_id": "A", "secret_access_key": "B", "region": "eu-west-1"}


def test_a_named_profile_counts(files):
    assert awsfiles.config({**files, "AWS_PROFILE": "lab"}) == {
        "access_key_id": "C", "secret_access_key": "D", "region": "eu-north-1", "endpoint": "https://s3.lab/",
    }  # fmt: skip
    with pytest.raises(UserError, match="AWS_PROFILE=nobody: no such profile"):
        awsfiles.config({**files, "AWS_PROFILE": "nobody"})


def test_the_environment_goes_before_files(files):
    env = {**files, "AWS_ACCESS_KEY_ID": "E", "AWS_REGION": "r", "AWS_ENDPOINT_URL": "http://minio:9000/"}
    assert awsfiles.config(env) == {"region": "r", "endpoint": "http://minio:9000"}


def test_without_anything_there_is_a_region_and_no_credentials(tmp_path):
    env = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "a"), "AWS_CONFIG_FILE": str(tmp_path / "b")}
    assert awsfiles.config(env) == {"region": "us-east-1"}
    (tmp_path / "a").write_text("no section = here\n")
    with pytest.raises(UserError, match="cannot be read"):
        awsfiles.config(env)


def test_a_file_system_shows_no_half_written_object(tmp_path):
    with in_memory() as bucket:
        bucket.write("a/b", b"whole")
        bucket.write("a/c.part-1234", b"half of somebody's")
        assert [item.name for item in bucket.list()] == ["a/b"]
        file = tmp_path / "file"
        file.write_bytes(b"x" * 10)
        bucket.send(file, "d")
        assert contents(bucket) == {"a/b": b"whole", "d": b"x" * 10}
        assert b"".join(bucket.stream("d", 7)) == b"xxx"
        with pytest.raises(UserError, match="more than 5 bytes"):
            read(bucket, "d", 5)


def test_a_web_folder_is_read_and_neither_listed_nor_written(tmp_path):
    with serving({"f/a b.png": b"picture"}) as server:
        bucket = open_bucket(f"{server.url}/f/")
        server.files["f/a%20b.png"] = b"picture"
        assert b"".join(bucket.stream("a b.png")) == b"picture"
        assert b"".join(bucket.stream("a b.png", 3)) == b"ture"
        with pytest.raises(Absent):
            read(bucket, "nothing", 5)
    with pytest.raises(UserError, match="has no list of its files"):
        list(bucket.list())
    with pytest.raises(UserError, match="nothing is written to a web server"):
        bucket.write("x", b"")


@pytest.mark.parametrize(("url", "says"), [("flowers", "is no URL"), ("nonsense://a/b", "Protocol not known")])
def test_what_is_no_url_is_told(url, says):
    with pytest.raises(UserError, match=says):
        open_bucket(url)


def test_the_folder_of_an_object():
    assert split("s3://b/a/f.zip") == ("s3://b/a", "f.zip")
