"""Where data of this machine is pushed to: as it was typed, and by the current context where it was not."""

from __future__ import annotations

from trainserve.client import context as contexts
from trainserve.client.cluster.connect import Place, default_namespace
from trainserve.errors import UserError
from trainserve.spec.location import CLAIM_SCHEME

HINT = "platform data push FOLDER s3://BUCKET/PATH, or once: platform context set NAME --data-store s3://BUCKET/PATH"


def target(
    store: str | None, *, kube_context: str | None = None, namespace: str | None = None, image: str | None = None
) -> tuple[Place | None, str, str | None]:
    """(place of a claim, store, image of a helper pod). Raises UserError where no store is known."""
    current = contexts.read().named()
    wanted = store or current.data_store
    if wanted is None:
        raise UserError("which store? none was given, and the current context has no dataStore", hint=HINT)
    if not wanted.startswith(CLAIM_SCHEME):
        unused = [flag for flag, value in (("--kube-context", kube_context), ("--namespace", namespace)) if value]
        if unused:
            raise UserError(f"{unused[0]} has no effect on {wanted}, which is no claim", hint="leave it out")
        return None, wanted, None
    cluster = kube_context or current.kube_context
    place = Place(cluster, namespace or current.namespace or default_namespace(cluster))
    return place, wanted, image or current.image
