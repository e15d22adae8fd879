"""The command line in this process: a hundred times as fast as one of its own, for what starts nothing."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass

import pytest

from trainserve.cli.main import main


@dataclass
class Said:
    """What a command left."""

    code: int
    out: str
    err: str


class Here:
    """Runs `platform WORDS`; made by the fixture `here`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: object) -> Said:
        self._monkeypatch.setenv("COLUMNS", "120")
        self._monkeypatch.setattr(sys, "argv", ["platform", *map(str, words)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            with pytest.raises(SystemExit) as end:
                main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        said = self._capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Said(end.value.code, said.out, said.err)
