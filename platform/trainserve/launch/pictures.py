"""The pictures of a job, where its spec names a URL: fetched once a node, while all ranks wait for each other.

The first rank of each node has a process of its own fetch them (`fetcher.py`); meanwhile all ranks tell each other
every few seconds that it goes on, so a node that takes longer than others is waited for, however long it takes.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from typing import IO, Any

from trainserve.errors import EXIT_DATA, EXIT_USER, DataError, EnvironmentProblem, PeerLost, PlatformError, UserError
from trainserve.kube.names import ENV_SPEC
from trainserve.machine.usage import size_words
from trainserve.spec.classifier import Classifier
from trainserve.spec.location import Url, parse
from trainserve.train.distributed import Group

ROUND_S = 3.0  # between two words of the ranks to each other
TELL_S = 30.0  # between two lines about how far all nodes are
END_S = 5.0  # how long the process may take to end after its last word

Fact = dict[str, Any]

log = logging.getLogger(__name__)


def fetched(classifier: Classifier, group: Group) -> Classifier:
    """`classifier` with a folder of this node in the place of a URL; as it is where its data is a folder.

    Raises DataError, EnvironmentProblem or UserError on the ranks whose node cannot have the pictures, PeerLost on the
    others.
    """
    if not isinstance(parse(classifier.spec.data.path), Url):
        return classifier
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    fetching = None if local_rank else _Fetching(classifier)
    facts: list[Fact] = []
    told, number = time.monotonic(), 0
    try:
        while True:
            own: Fact = {} if fetching is None else fetching.fact(0.2 if not number else ROUND_S)
            facts = group.exchange(f"pictures {number}", own)
            leaders = [(rank, fact) for rank, fact in enumerate(facts) if fact]
            _check(own, leaders)
            if all("path" in fact for _, fact in leaders):
                break
            if group.is_first and time.monotonic() - told >= TELL_S:
                told = time.monotonic()
                log.info("%s", _how_far([fact for _, fact in leaders]))
            number += 1
    finally:
        if fetching is not None:
            fetching.close()
    path = facts[group.rank - local_rank]["path"]
    data = classifier.spec.data.model_copy(update={"path": path})
    return classifier.model_copy(update={"spec": classifier.spec.model_copy(update={"data": data})})


class _Fetching:
    """The process, and the last that it said."""

    def __init__(self, classifier: Classifier) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainserve.launch.fetcher"],
            env={**os.environ, ENV_SPEC: classifier.model_dump_json(by_alias=True)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._last: Fact = {"done": 0, "total": 0}
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def fact(self, patience_s: float) -> Fact:
        """What to tell the others: how far it is, the result, or an error."""
        self._reader.join(patience_s)
        if self._reader.is_alive():
            return dict(self._last)
        code = self._process.wait(END_S)
        if code and "error" not in self._last:
            self._last = {"error": f"the process that fetches the pictures ended with {code}", "hint": None}
        return {**self._last, "code": code}

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(END_S)

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._last = json.loads(line)


def _check(own: Fact, leaders: list[tuple[int, Fact]]) -> None:
    if "error" in own:
        raise _error(own)
    for rank, fact in leaders:
        if "error" in fact:
            raise PeerLost(f"the node of rank {rank} cannot have the pictures: {fact['error']}")
    digests = {fact["digest"] for _, fact in leaders if "digest" in fact}
    if len(digests) > 1:
        first = next(fact["digest"] for _, fact in leaders if "digest" in fact)
        other = next(rank for rank, fact in leaders if fact.get("digest") not in {None, first})
        raise DataError(
            f"rank {other}'s node has fetched other pictures than rank 0's: {' and '.join(sorted(digests))}",
            hint="somebody writes to the data set, or a cache of a node holds another version: give spec.data.digest",
        )


def _error(fact: Fact) -> PlatformError:
    kinds: dict[int, type[PlatformError]] = {EXIT_DATA: DataError, EXIT_USER: UserError}
    return kinds.get(fact.get("code", 0), EnvironmentProblem)(fact["error"], hint=fact.get("hint"))


def _how_far(facts: list[Fact]) -> str:
    ready = sum("path" in fact for fact in facts)
    slowest = min((fact for fact in facts if "path" not in fact), key=lambda fact: fact.get("done", 0))
    total = slowest.get("total", 0)
    far = f"{100 * slowest['done'] / total:.0f} % of {size_words(total)}" if total else size_words(slowest["done"])
    return f"{ready} of {len(facts)} nodes have the pictures; the slowest has {far}"
