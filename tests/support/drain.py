"""A training whose pods are taken away: it is held in mid-epoch, and asked how it goes on."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from support import slowdisk
from support.kubectl import Kubectl
from support.nodetraining import events_of, steps_of, training
from support.real import generation_of, state_of
from trainserve.kube import names
from trainserve.kube.cluster import Manifest

WITHIN_S = 600.0  # of what takes seconds, on a machine that is busy with other tests
LOOKS = 20  # after so many it is looked whether the job has failed


class Training:
    """The job `digits`, from its creation on; `output` is where it leaves what it makes."""

    def __init__(
        self,
        kubectl: Kubectl,
        data: Path,
        folder: Path,
        *more: str,
        nodes: int,
        epochs: int,
        grace_s: int | None = None,
    ) -> None:
        assert kubectl.namespace
        self._kubectl = kubectl
        self._slow, self._writing = folder / slowdisk.SLOW, folder / slowdisk.WRITING
        self.output = folder / "output"
        env = {slowdisk.SLOW_DISK: str(folder), **({} if grace_s is None else {names.ENV_GRACE: str(grace_s)})}
        job = training(kubectl.namespace, data, self.output, *more, nodes=nodes, epochs=epochs)
        for replica in job["spec"]["pytorchReplicaSpecs"].values():
            container = replica["template"]["spec"]["containers"][0]
            container["command"] = [sys.executable, "-m", "trainserve.launch", slowdisk.__file__]
            container["env"] += [{"name": name, "value": value} for name, value in env.items()]
        kubectl.apply(job)

    def job(self) -> Manifest:
        found: Manifest = self._kubectl.json("get", "pytorchjob", "digits")
        return found

    def pods(self) -> list[Manifest]:
        found: list[Manifest] = self._kubectl.json("get", "pods", f"--selector={names.LABEL_JOB_NAME}=digits")["items"]
        return found

    def generation(self) -> int:
        return int((self.job().get("status") or {}).get("generation", 1))

    def notices(self) -> list[str]:
        return [str(event["message"]) for event in events_of(self.output) if event["kind"] == "notice"]

    def hold(self) -> None:
        """From here on a checkpoint takes as long as it is not let go; returns once one is in the making."""
        self._slow.touch()
        self.until(self._writing.exists, "a checkpoint is being written")

    def let_go(self) -> None:
        self._slow.unlink()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """With a pause between two looks, since most of them are a kubectl each."""
        give_up = time.monotonic() + WITHIN_S
        for look in itertools.count(1):
            if condition():
                return
            job = self.job() if look % LOOKS == 0 or time.monotonic() > give_up else {}
            assert time.monotonic() <= give_up, f"not within {WITHIN_S:.0f} s: {what}: {job.get('status')}"
            assert state_of(job) != names.FAILED, job["status"]
            time.sleep(0.5)

    def until_stopped(self, times: int) -> None:
        """So many gangs have ended on request: a generation begins with the request already."""
        self.until(lambda: len(steps_of(self.output, "stopped")) >= times, f"stop {times}")

    def until_generation(self, number: int) -> None:
        self.until(lambda: self.generation() >= number, f"gang {number}")
        assert self.generation() == number, self.job()["status"]

    def until_running(self, generation: int) -> None:
        """All pods of this gang run, and no other is left."""

        def there() -> bool:
            pods = self.pods()
            return len(pods) == 2 and all(
                generation_of(pod) == generation
                and pod["status"].get("phase") == "Running"
                and "deletionTimestamp" not in pod["metadata"]
                for pod in pods
            )

        self.until(there, f"gang {generation} runs")

    def until_deleting(self, pod: str) -> None:
        found = ("get", "pod", pod, "--output=jsonpath={.metadata.deletionTimestamp}")
        self.until(lambda: self._kubectl(*found) != "", f"{pod} is asked to go")

    def succeeded(self) -> Manifest:
        """The job once it has ended, and well."""
        self.until(lambda: state_of(self.job()) == names.SUCCEEDED, "a good end")
        return self.job()


def evict(kubectl: Kubectl, pod: str, *, refused: bool = False) -> str:
    """By the API that `kubectl drain`, autoscalers and deschedulers use; what is said where it is refused."""
    metadata = {"name": pod, "namespace": kubectl.namespace}
    eviction = json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata})
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{pod}/eviction"
    done = kubectl.run("create", "--raw", path, "-f", "-", stdin=eviction)
    assert (done.returncode != 0) == refused, done.stderr
    return done.stderr


def free_of_charge(job: Manifest) -> int:
    """How many restarts there were; none has counted."""
    status = job["status"]
    assert status.get("restarts", 0) == 0, status
    assert all(entry["free"] for entry in status["history"]), status
    return len(status["history"])
