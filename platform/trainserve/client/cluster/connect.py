"""The way to a cluster, for one call: a connected client, and what it raises in the words of the command line.

The functions here are for callers that know no asyncio: each call has a loop of its own, and leaves nothing open.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from trainserve.client.cluster.patience import Patience
from trainserve.client.listener import Listener
from trainserve.errors import EnvironmentProblem, PlatformError, UserError
from trainserve.kube import names
from trainserve.kube.cluster import AlreadyExists, ApiError, BadRequest, Forbidden, Invalid
from trainserve.kube.outage import problem

if TYPE_CHECKING:
    from trainserve.kube.client import KubeCluster

T = TypeVar("T")

DEFAULT_NAMESPACE = "default"  # Kubernetes' own, where a kubeconfig names none
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_READING = ("get", "list", "watch")
_MAY_NOT = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]+)"| at the cluster scope)'
)


@dataclass(frozen=True)
class Place:
    """A namespace of a cluster. `context`: of the kubeconfig; None is its current one.

    `kubeconfig` None is $KUBECONFIG, the account of the pod we run in, or ~/.kube/config. `is_asked_for`: the context
    is not what a bare command means, so whatever names a run here names it too.

    Raises UserError for what can be no namespace, whoever has named it.
    """

    context: str | None
    namespace: str
    kubeconfig: str | None = None
    is_asked_for: bool = False

    def __post_init__(self) -> None:
        if self.namespace and not _NAMESPACE.fullmatch(self.namespace):
            raise UserError(
                f"namespace {self.namespace!r:.80} is not allowed; allowed: small letters, digits, inner -, at most 63",
                hint="it is what --namespace says, else the spec, the current context or the kubeconfig",
            )

    def kubectl(self) -> str:
        """How a command of kubectl begins that is about this place."""
        context = f" --context={self.context}" if self.context else ""
        return f"kubectl{context} --namespace={self.namespace}"


@dataclass(frozen=True)
class Session:
    """A connection, how long its server has been silent, and who hears of it."""

    cluster: KubeCluster
    patience: Patience
    listener: Listener


Work: TypeAlias = Callable[[Session], Awaitable[T]]


def ask(place: Place, work: Work[T], listener: Listener | None = None) -> T:
    """What `work` returns, given a connection. Its errors are those of `trainserve.errors`, as `in_words` says."""

    async def all_of_it() -> T:
        async with opened(place, listener) as session:
            return await work(session)

    try:
        return asyncio.run(all_of_it())
    except (ApiError, OSError) as error:
        raise in_words(error) from error


def each(
    place: Place, work: Callable[[Session], AsyncIterator[list[T]]], listener: Listener | None = None
) -> Iterator[T]:
    """What `work` yields, one by one, as it comes. It goes on only while somebody waits for the next."""
    runner = asyncio.Runner()

    async def all_of_it() -> AsyncIterator[list[T]]:
        async with opened(place, listener) as session:
            async for some in work(session):
                yield some

    found = all_of_it()

    async def next_ones() -> list[T] | None:
        return await anext(found, None)

    try:
        while (some := _in_words(runner, next_ones())) is not None:
            yield from some
    finally:  # after Ctrl-C, too, which may have come anywhere in the loop
        runner.close()


def _in_words(runner: asyncio.Runner, work: Coroutine[Any, Any, T]) -> T:
    try:
        return runner.run(work)
    except (ApiError, OSError) as error:
        raise in_words(error) from error


@asynccontextmanager
async def opened(place: Place, listener: Listener | None = None) -> AsyncIterator[Session]:
    """A connection for the length of a block. Raises EnvironmentProblem where there is no usable kubeconfig."""
    from trainserve.kube.client import connect  # which imports the Kubernetes client

    heard = listener or Listener()
    patience = Patience(heard.notice)
    async with connect(place.kubeconfig, place.context, on_request=patience.answered) as cluster:
        yield Session(cluster, patience, heard)


def default_namespace(context: str | None, kubeconfig: str | None = None) -> str:
    """The namespace that the kubeconfig's context names, or that of the pod we run in; else `default`.

    Raises EnvironmentProblem where there is no such context.
    """
    import yaml

    from trainserve.kube import kubeconfig as checked
    from trainserve.kube import kubeconfigfiles

    paths = kubeconfigfiles.named(kubeconfig)
    own = Path(names.ACCOUNT_FOLDER, "namespace")
    if not paths and context is None and own.exists():
        return own.read_text(encoding="utf-8").strip() or DEFAULT_NAMESPACE
    try:
        contents = kubeconfigfiles.contents(paths or kubeconfigfiles.DEFAULT_PATH)
    except (OSError, yaml.YAMLError):
        return DEFAULT_NAMESPACE  # the connection says what is wrong with the file
    return checked.check(contents, context).namespace or DEFAULT_NAMESPACE


def in_words(error: ApiError | OSError) -> PlatformError:
    """An answer of the API server, or that there is none, for a person: who may not do what where, and what helps."""
    if isinstance(error, Forbidden):
        return _forbidden(error)
    if isinstance(error, BadRequest | Invalid | AlreadyExists):
        return UserError(f"the API server refuses it: {error.message}")
    return problem(error)


def may_not(error: Forbidden) -> bool:
    """Whether it is a role that this user lacks, and not a quota or an admission policy that the object meets."""
    return _MAY_NOT.search(error.message) is not None


def _forbidden(error: Forbidden) -> EnvironmentProblem:
    match = _MAY_NOT.search(error.message)
    if match is None:  # a quota, or an admission policy
        return EnvironmentProblem(f"the API server refuses it: {error.message}")
    user, verb, group, namespace = match["user"], match["verb"], match["group"], match["namespace"]
    resource = f"{match['resource']}.{group}" if group else match["resource"]
    where = f"in namespace {namespace}" if namespace else "in the whole cluster"
    role = "view" if verb in _READING else "edit"
    scope = f" in namespace {namespace}" if namespace else ", or name one namespace"
    return EnvironmentProblem(
        f"{user} may not {verb} {resource} {where}: no role of this user has the verb {verb} for it",
        hint=f"ask for the role {role}{scope}: kubectl auth can-i {verb} {resource}"
        + (f" --namespace={namespace}" if namespace else " --all-namespaces"),
    )
