"""What a rule is made of: conditions on a failure, and the words and commands that several rules share."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import TypeAlias

from trainserve.observe.why.scene import Scene, exit_words, search

Found: TypeAlias = Mapping[str, str] | None  # what a pattern's groups caught; None: the rule does not apply
When: TypeAlias = Callable[[Scene], Found]


def says(pattern: str) -> When:
    """In what the rank said; in its log only where it said nothing."""
    return lambda scene: search(pattern, scene.said or scene.log)


def logs(pattern: str) -> When:
    """In what the rank said or, also beside that, in its log: what a killed child or a C library leaves there."""
    return lambda scene: search(pattern, scene.all)


def code(*codes: int) -> When:
    return lambda scene: {} if scene.code in codes else None


def dies(*signals: str) -> When:
    return lambda scene: {} if scene.signal in signals else None


def reason(*reasons: str) -> When:
    return lambda scene: {} if scene.reason in reasons else None


def message(pattern: str) -> When:
    """In what the cluster says of the pod, or of the job."""
    return lambda scene: search(pattern, scene.message)


def either(*conditions: When) -> When:
    return lambda scene: next((found for when in conditions if (found := when(scene)) is not None), None)


def both(*conditions: When) -> When:
    def when(scene: Scene) -> Found:
        caught: dict[str, str] = {}
        for condition in conditions:
            found = condition(scene)
            if found is None:
                return None
            caught |= found
        return caught

    return when


def told(scene: Scene) -> str:
    """The first line of what the rank said, or the error at the end of its traceback."""
    lines = [line.strip() for line in scene.message.splitlines() if line.strip()]
    if not lines:
        lines = [line.strip() for line in reversed(scene.traceback.splitlines()) if line.strip()]
    return lines[0] if lines else exit_words(scene.code, scene.signal)


def pod(scene: Scene) -> str:
    """`Worker 1`, or the rank where no pod is known."""
    return scene.pod.title if scene.pod is not None else scene.who


def cluster_says(scene: Scene, longest: int = 300) -> str:
    """The cluster's own words in one line, else its reason."""
    text = " ".join(scene.message.split()) or scene.reason
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def kubectl(scene: Scene, command: str) -> str:
    """A command of kubectl about the run's namespace."""
    return f"{scene.evidence.kubectl or 'kubectl'} {command}"


def hint(scene: Scene, otherwise: str) -> str:
    """The hint that came with our own error, which knows more of the case than a rule."""
    caught = search(r"^hint: (?P<hint>.+)$", scene.message)
    return caught["hint"] if caught else otherwise


def less_memory(scene: Scene) -> str:
    if scene.train:
        batch = scene.smaller_batch()
        if batch < int(scene.train.get("batchSize") or 64):
            return scene.again(f"--batch-size {batch}")
        return scene.again("--image-size 128 --workers 0")
    return "give the container more memory (resources.limits.memory), or the program a smaller batch"


def slower(scene: Scene) -> str:
    rate = float(scene.train.get("lr") or 0.1) / 10
    return scene.again(f"--lr {rate:.3g}")


def check_data(scene: Scene) -> str:
    path = (scene.evidence.spec.get("data") or {}).get("path")
    return f"platform data check {shlex.quote(str(path))}" if path else "look at the labels that the data set gives"
