"""Real training on nodes whose pods are processes of this machine, and what it left in its output."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from support.command import platform
from support.kwok import on_own_nodes
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.job import training_job
from trainserve.spec.load import load


def digits_folder(folder: Path) -> Path:
    """A folder with 20 pictures of each digit, made below `folder`."""
    got = platform("data", "get", "digits", folder / "all", home=folder)
    assert got.returncode == 0, got.stderr
    for kind in sorted(path for path in (folder / "all").rglob("*") if path.is_dir() and list(path.glob("*.png"))):
        to = folder / "digits" / kind.name
        to.mkdir(parents=True, exist_ok=True)
        for picture in sorted(kind.glob("*.png"))[:20]:
            shutil.copy(picture, to / picture.name)
    return folder / "digits"


def sets(data: Path, *, nodes: int, epochs: int, name: str = "digits") -> list[str]:
    """FIELD=VALUE, as for `platform train --set`, of a small training of so many nodes."""
    train = {
        "nodes": nodes,
        "epochs": epochs,
        "batchSize": 12 * nodes,
        "workers": 0,
        "checkpointEverySteps": 2,
        "warmupEpochs": 0,
        "lr": 0.05,
    }
    found = [f"metadata.name={name}", f"data.path={data}", "model.imageSize=16", "data.augment.cropScale=[0.9,1]"]
    return [*found, *(f"train.{name}={value}" for name, value in train.items())]


def training(
    namespace: str, data: Path, output: Path, *more: str, nodes: int, epochs: int, name: str = "digits"
) -> Manifest:
    """What `platform train` would create, spread over the nodes of the test; one core a pod. `more`: as `sets`."""
    output.mkdir(parents=True, exist_ok=True)  # a volume that is a path of the node has to be there
    job = training_job(
        load(None, [*sets(data, nodes=nodes, epochs=epochs, name=name), *more]),
        namespace=namespace,
        output=str(output),
        data_path=str(data),
        python=sys.executable,
        image=names.LOCAL_IMAGE,
        local=True,
    )
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        template = replica["template"]
        template["spec"] = on_own_nodes(template["spec"], namespace)
        template["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1"}}
        template["spec"]["topologySpreadConstraints"] = [
            {
                "topologyKey": names.LABEL_HOSTNAME,
                "maxSkew": 1,
                "whenUnsatisfiable": "DoNotSchedule",
                "nodeTaintsPolicy": "Honor",
                "labelSelector": {"matchLabels": {names.LABEL_JOB_NAME: name}},
            }
        ]
    return job


def events_of(output: Path) -> list[dict[str, object]]:
    path = output / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def checkpointed(output: Path) -> int:
    """The step of the newest checkpoint."""
    return max(steps_of(output, "checkpoint"), default=0)


def steps_of(output: Path, kind: str) -> list[int]:
    """The steps of the events of this kind: checkpoint, stopped, resume."""
    return [int(str(event["step"])) for event in events_of(output) if event["kind"] == kind]


def result(output: Path) -> tuple[str, dict[int, float]]:
    """The digest of the best weights, and each epoch's validation loss: the last one's tells of the last weights."""
    lineage = json.loads((output / "bundle" / "model.json").read_text())["lineage"]
    epochs = [event for event in events_of(output) if event["kind"] == "epoch"]
    losses = {int(str(event["epoch"])): float(str(event["valLoss"])) for event in epochs}
    return str(lineage["weightsDigest"]), losses
