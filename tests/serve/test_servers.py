from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainserve.errors import UserError
from trainserve.serve import servers
from trainserve.serve.servers import Endpoint, ServerRecord, claim, find_server, running_servers, write_record


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path))
    return tmp_path


def record(name: str = "digits", models: dict[str, str] | None = None, port: int = 21000) -> ServerRecord:
    return ServerRecord(
        name=name,
        pid=1,
        rest_url=f"http://127.0.0.1:{port}",
        grpc_target=f"127.0.0.1:{port + 1}",
        management_url=f"http://127.0.0.1:{port + 2}",
        models=models or {name: "1.0"},
        max_upload_mib=16,
        log="/log",
    )


def test_found_by_name_model_and_url() -> None:
    with claim("both") as path:
        write_record(path, record("both", {"a": "1.0", "b": "1.10"}))
        expected = Endpoint("http://127.0.0.1:21000", "127.0.0.1:21001", ("a", "b"), None, 16, "torchserve")
        assert find_server("both") == expected
        assert find_server("b").pick_model(None) == "b"
        assert find_server("http://localhost:21000/predictions/a").pick_model(None) == "a"
        assert find_server("http://127.0.0.1:21000") == expected
        assert find_server("grpc://127.0.0.1:21001") == expected
        with pytest.raises(UserError, match=r"which model\? it serves a, b"):
            expected.pick_model(None)
        with pytest.raises(UserError, match=r"no model 'c'; it serves a, b"):
            expected.pick_model("c")
    assert running_servers() == []


def test_a_name_is_taken_while_its_server_runs() -> None:
    with claim("digits") as path:
        with pytest.raises(UserError, match="a server named 'digits' runs already, just starting"), claim("digits"):
            pass
        write_record(path, record())
        with pytest.raises(UserError, match=r"runs already at http://127.0.0.1:21000 \(process 1\)"), claim("digits"):
            pass
    with claim("digits"):
        pass


def test_a_killed_server_is_not_found_and_its_name_is_free(home: Path) -> None:
    code = (
        "import sys, time; from trainserve.serve import servers\n"
        "with servers.claim('digits') as path:\n"
        f"    path.write_text({json.dumps(json.dumps(record().__dict__))})\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"ready\n"
    assert [server.name for server in running_servers()] == ["digits"]
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert (home / "serving" / "digits" / "server.json").exists()
    assert running_servers() == []
    with pytest.raises(UserError, match="no server named 'digits' runs here"):
        find_server("digits")
    with claim("digits"):
        assert not (home / "serving" / "digits" / "server.json").exists()


def test_unknown_name_suggests_a_near_one() -> None:
    with claim("digits") as path:
        write_record(path, record())
        with pytest.raises(UserError, match=r"no server named 'digts' runs here, did you mean 'digits'\?"):
            find_server("digts")
        with pytest.raises(UserError, match="runs here; running: digits"):
            find_server("flowers")


def test_a_model_served_twice_needs_the_server_s_name() -> None:
    with claim("one") as one, claim("two") as two:
        write_record(one, record("one", {"m": "1.0"}))
        write_record(two, record("two", {"m": "1.0"}, port=22000))
        with pytest.raises(UserError, match="model 'm' is served by one, two"):
            find_server("m")


def test_a_server_elsewhere() -> None:
    assert find_server("https://models.example.org/predictions/digits") == Endpoint(
        "https://models.example.org", None, model="digits"
    )
    assert find_server("grpc://10.0.0.1:7070") == Endpoint(None, "10.0.0.1:7070")
    assert find_server("grpc://[::1]:7070") == Endpoint(None, "[::1]:7070")
    with pytest.raises(UserError, match=r"which model\? its models are not known here"):
        find_server("http://10.0.0.1:8080").pick_model(None)


@pytest.mark.parametrize(
    "text", ["ftp://x", "http://", "http://h:port", "http://h/models/a", "http://h/?a=b", "grpc://h", "grpc://h:1/a"]
)
def test_not_a_server_s_url(text: str) -> None:
    with pytest.raises(UserError):
        find_server(text)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x"])
def test_names_are_checked_before_a_path_is_built(name: str) -> None:
    with pytest.raises(UserError, match="server name"), claim(name):
        pass


def test_a_record_of_another_version_is_passed_over() -> None:
    with claim("digits") as path:
        path.write_text('{"name": "digits", "novel": 1}')
        assert running_servers() == []
    assert servers.running_servers() == []
