"""How the pods of a job find each other: the environment that torchrun and `torch.distributed` read.

Source: kubeflow.org/v1 as the Training Operator v1.9 has it, in its order, then ours. A Worker-only job that is not
elastic gets the same names, with Worker 0 as the master.
"""

from __future__ import annotations

from trainserve.kube import names, replicas
from trainserve.kube.cluster import Manifest


def env(job: Manifest, replica_type: str, index: int, generation: int) -> list[Manifest]:
    """EnvVars to append after the user's, so that these win; `generation` is the gang's."""
    nproc = job["spec"].get("nprocPerNode")
    elastic = job["spec"].get("elasticPolicy")
    pairs: list[tuple[str, str]] = [(names.ENV_PYTHONUNBUFFERED, "1")]
    if names.REPLICA_MASTER in replicas.replica_counts(job) or elastic is None:
        pairs += _static(job, replica_type, index)
    if nproc is not None:
        pairs.append((names.ENV_PET_NPROC_PER_NODE, str(nproc)))
    if elastic is None:
        pairs.append((names.ENV_PET_NNODES, str(replicas.total_replicas(job))))
    else:
        pairs += _elastic(job, elastic)
    metadata = job["metadata"]
    pairs += [
        (names.ENV_JOB, f"{metadata['namespace']}/{metadata['name']}"),
        (names.ENV_JOB_UID, metadata["uid"]),
        (names.ENV_GENERATION, str(generation)),
    ]
    return [{"name": name, "value": value} for name, value in pairs]


def wait_for(job: Manifest, replica_type: str, index: int) -> str | None:
    """`<host>:<port>` that must answer before the replica's containers start; None: it need not wait.

    In an elastic job the rendezvous store is what answers first; the master's own port opens only after it has met.
    """
    elastic = job["spec"].get("elasticPolicy")
    own_name = names.replica_name(job["metadata"]["name"], replica_type, index)
    if elastic is None:
        host, port = _master_address(job), replicas.port(job, replicas.leader(job)[0])
    elif elastic.get("standalone") or elastic.get("rdzvBackend", "c10d") != "c10d":
        return None
    else:
        host, port = _elastic_endpoint(job, elastic)
    return None if host == own_name else f"{host}:{port}"


def world_size(job: Manifest) -> int:
    """Processes over all pods, as far as the API says: nprocPerNode `auto`, `gpu` and `cpu` count as one."""
    nproc = str(job["spec"].get("nprocPerNode") or "auto")
    return replicas.total_replicas(job) * (int(nproc) if nproc.isdigit() else 1)


def _static(job: Manifest, replica_type: str, index: int) -> list[tuple[str, str]]:
    address = _master_address(job)
    port = str(replicas.port(job, replicas.leader(job)[0]))
    rank = str(replicas.node_rank(job, replica_type, index))
    return [
        (names.ENV_MASTER_PORT, port),
        (names.ENV_PET_MASTER_PORT, port),
        (names.ENV_MASTER_ADDR, address),
        (names.ENV_PET_MASTER_ADDR, address),
        (names.ENV_WORLD_SIZE, str(world_size(job))),
        (names.ENV_RANK, rank),
        (names.ENV_PET_NODE_RANK, rank),
    ]


def _elastic(job: Manifest, elastic: Manifest) -> list[tuple[str, str]]:
    host, port = _elastic_endpoint(job, elastic)
    workers = replicas.replica_counts(job).get(names.REPLICA_WORKER, 1)
    smallest = elastic.get("minReplicas") or elastic.get("maxReplicas") or workers
    largest = elastic.get("maxReplicas") or elastic.get("minReplicas") or workers
    pairs = [
        (names.ENV_PET_RDZV_ENDPOINT, f"{host}:{port}"),
        (names.ENV_PET_RDZV_BACKEND, elastic.get("rdzvBackend") or "c10d"),
        (names.ENV_PET_NNODES, f"{smallest}:{largest}"),
    ]
    if elastic.get("maxRestarts") is not None:
        pairs.append((names.ENV_PET_MAX_RESTARTS, str(elastic["maxRestarts"])))
    if elastic.get("nProcPerNode") is not None:
        pairs.append((names.ENV_PET_NPROC_PER_NODE, str(elastic["nProcPerNode"])))
    if elastic.get("rdzvId") is not None:
        pairs.append((names.ENV_PET_RDZV_ID, elastic["rdzvId"]))
    if elastic.get("rdzvConf"):
        settings = ",".join(f"{entry['key']}={entry['value']}" for entry in elastic["rdzvConf"])
        pairs.append((names.ENV_PET_RDZV_CONF, settings))
    if elastic.get("standalone"):
        pairs.append((names.ENV_PET_STANDALONE, ""))
    return pairs


def _master_address(job: Manifest) -> str:
    return names.replica_name(job["metadata"]["name"], *replicas.leader(job))


def _elastic_endpoint(job: Manifest, elastic: Manifest) -> tuple[str, int]:
    host = elastic.get("rdzvHost") or names.replica_name(job["metadata"]["name"], names.REPLICA_WORKER, 0)
    return host, int(elastic.get("rdzvPort") or replicas.port(job, names.REPLICA_WORKER))
