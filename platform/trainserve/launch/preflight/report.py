"""What all ranks found, brought together: the same line on every rank, or the same error."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from trainserve.errors import EnvironmentProblem, PeerLost
from trainserve.kube import names
from trainserve.launch.preflight import network, node
from trainserve.spec.classifier import Classifier
from trainserve.train.distributed import Group
from trainserve.train.recipe import Recipe

SHOWN = 4  # ranks named in a message


def met(group: Group) -> None:
    """Before the ranks' process group is made. Raises PeerLost where neighbours cannot connect.

    It may be one node's network, or a neighbour that has just died: worth another try, so no EnvironmentProblem.
    """
    found = together(group, "preflight neighbours", [network.neighbours(group)])
    if found is not None:
        hint = "pods of one job must reach each other on every port: see NetworkPolicies and the nodes' firewalls"
        raise PeerLost(found, hint=hint)


def joined(group: Group, classifier: Classifier, output: Path) -> str:
    """Once the ranks have met: what can be checked before a picture is looked at, in one line.

    Raises EnvironmentProblem on the ranks that found something; PeerLost on the others, and where an all-reduce hangs.
    """
    began = time.monotonic()
    asked = asked_gpus(classifier, os.environ)
    visible = torch.cuda.device_count() if asked else 0
    problems = [node.gpus(asked, visible) if asked else None]
    if group.is_first:
        problems += [node.writable(output), node.finished_by_another(output, os.environ)]
    refuse(group, "preflight node", problems)
    speed = network.all_reduce(group)
    ranks = f"{group.world_size} rank{'s' * (group.world_size != 1)}"
    if speed is None:
        reduced = "no all-reduce needed"
    else:
        reduced = (
            f"all-reduce {speed.bus_bytes_per_s / 1e6:,.0f} MB/s bus bandwidth, {1000 * speed.small_s:.1f} ms for "
            f"{network.SMALL} bytes ({'gloo' if group.device.type == 'cpu' else 'NCCL'})"
        )
    return f"preflight: {ranks} on {group.device.type}, {reduced}; {time.monotonic() - began:.1f} s"


def sized(group: Group, classifier: Classifier, recipe: Recipe, output: Path, cores: int) -> None:
    """Once the pictures are known: do batches fit into shared memory, and the run's files into the output?

    Raises as `joined` does.
    """
    workers = recipe.loader_processes(cores, group.ranks_here)
    needed = node.shared_memory_needed(recipe, workers, group.ranks_here)
    problems = [node.shared_memory(needed)]
    if group.is_first:
        problems.append(node.room(output, node.output_needed(classifier, recipe)))
    refuse(group, "preflight room", problems)


def refuse(group: Group, name: str, problems: Sequence[str | None]) -> None:
    """Raises EnvironmentProblem on the ranks that found something, and on the others PeerLost: they are victims."""
    found = together(group, name, problems)
    if found is None:
        return
    if any(problems):
        raise EnvironmentProblem(found)
    raise PeerLost(found)


def together(group: Group, name: str, problems: Sequence[str | None]) -> str | None:
    """What any rank found, in one sentence, the same on all ranks; None where none did. `name` must be new."""
    where = os.environ.get("HOSTNAME") or platform.node()
    found = group.exchange(name, [where, [problem for problem in problems if problem]])
    bad = [(rank, pod, said) for rank, (pod, texts) in enumerate(found) for said in texts]
    if not bad:
        return None
    lines = [f"rank {rank} ({pod}): {said}" for rank, pod, said in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"and {len(bad) - SHOWN} more like it")
    return "preflight: " + "; ".join(lines)


def asked_gpus(classifier: Classifier, env: Mapping[str, str]) -> int:
    """GPUs that this process is to see; 0 where none were asked for, or nobody gives them (a laptop).

    Of several MIG slices CUDA shows a process one (https://docs.nvidia.com/datacenter/tesla/mig-user-guide/).
    """
    pod = classifier.spec.pod
    if names.ENV_VERSION not in env or not pod.gpus:
        return 0
    return 1 if "/mig-" in (pod.gpu_resource or "") else pod.gpus
