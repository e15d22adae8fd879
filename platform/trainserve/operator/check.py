"""Whether an installed operator works: it answers, and the API server takes a PyTorchJob. Nothing is changed."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Callable

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Forbidden, Manifest, NotFound
from trainserve.kube.outage import problem

ANSWER_S = 10.0
READY_PATH = "/readyz"


def check(
    kubeconfig: str | None, context: str | None, namespace: str, *, url: str | None, tell: Callable[[str], None]
) -> None:
    """Tell what is well, a sentence each. Raises EnvironmentProblem for the first thing that is not.

    `url` is where the operator's /readyz is (None: not asked). The job is created as a dry run, in `namespace`.
    """
    if url is not None:
        ask_ready(url)
        tell(f"the operator at {url} is ready")
    asyncio.run(_try_job(kubeconfig, context, namespace))
    tell(f"the API server takes PyTorchJobs in namespace {namespace} (a dry run: none was made)")


def ask_ready(url: str) -> None:
    """GET /readyz, past any proxy. Raises EnvironmentProblem with what it says is missing; UserError for no URL."""
    if not url.startswith(("http://", "https://")):
        raise UserError(f"--url {url}: expected http://HOST:PORT", hint="the operator's --metrics-address says which")
    asked = f"{url.rstrip('/').removesuffix(READY_PATH)}{READY_PATH}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked, timeout=ANSWER_S):
            return
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(4096).decode(errors="replace").strip()
        raise EnvironmentProblem(f"{asked} answers {error.code}: {said}", hint="its log says why") from None
    except OSError as error:
        raise EnvironmentProblem(
            f"{asked} does not answer: {getattr(error, 'reason', error)}",
            hint="do the operator's pods run, and does a NetworkPolicy let this one in?",
        ) from None


def sample_job(namespace: str) -> Manifest:
    """The smallest PyTorchJob that is whole."""
    container = {"name": names.CONTAINER, "image": names.image_for(names.IMAGE_TRAINER)}
    master = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
    return {
        "apiVersion": names.PYTORCHJOB.api_version,
        "kind": names.PYTORCHJOB.kind,
        "metadata": {"name": names.CHECKED_JOB, "namespace": namespace},
        "spec": {"pytorchReplicaSpecs": {names.REPLICA_MASTER: master}},
    }


async def _try_job(kubeconfig: str | None, context: str | None, namespace: str) -> None:
    from trainserve.kube.client import connect

    async with connect(kubeconfig, context) as cluster:
        try:
            await cluster.create(names.PYTORCHJOB, namespace, sample_job(namespace), dry_run=True)
        except NotFound as error:
            raise problem(error, "install the kind: the chart's crds.enabled, or manifests/base/crds") from error
        except Forbidden as error:
            raise problem(error, f"the account needs the verb create on pytorchjobs in {namespace}") from error
        except (ApiError, OSError) as error:
            raise problem(error, "is the kind older than this command? apply manifests/base/crds again") from error
