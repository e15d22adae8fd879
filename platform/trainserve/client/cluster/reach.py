"""A store that may be anywhere, as a Bucket: a bucket by its own protocol, a claim through a pod that mounts it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trainserve.client.cluster.connect import Place
from trainserve.client.listener import Listener
from trainserve.errors import UserError
from trainserve.machine.bucket.store import Bucket, open_bucket
from trainserve.spec import location
from trainserve.spec.location import Claim, Url


@contextmanager
def reached(
    url: str, place: Place | None, listener: Listener, *, image: str | None = None, read_only: bool = False
) -> Iterator[Bucket]:
    """What is below `url`: a bucket's URL, or `pvc://CLAIM[/sub/path]` of `place`, for the length of the block.

    Raises UserError, EnvironmentProblem.
    """
    match location.parse(url):
        case Url(text):
            yield open_bucket(text)
        case Claim(name, sub):
            if place is None:
                raise UserError(
                    f"{url} is a claim of a cluster, and no cluster is chosen",
                    hint="platform context use NAME, or --kube-context and --namespace",
                )
            from trainserve.client.cluster.helper import mounted

            with mounted(name, sub, place, listener, image=image, read_only=read_only) as folder:
                yield folder
        case _:
            raise UserError(f"{url} is no place that can be reached from here", hint="a bucket's URL, or pvc://CLAIM")
