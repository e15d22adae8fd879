"""Who holds the lease, by the object and the time it has stayed as it is."""

from __future__ import annotations

import pytest

from trainserve.errors import UserError
from trainserve.kube.cluster import Manifest
from trainserve.operator import lease as leases
from trainserve.operator.lease import Timing

NOW = 1_700_000_000.25


def held_by(holder: str, duration_s: int = 15) -> Manifest:
    lease = leases.new("operator", "team", holder, Timing(), NOW)
    lease["metadata"] |= {"uid": "u1", "resourceVersion": "7"}
    lease["spec"]["leaseDurationSeconds"] = duration_s
    return lease


@pytest.mark.parametrize(
    ("lease", "unchanged_s", "step"),
    [
        (None, 0.0, "create"),
        (held_by("a"), 0.0, "renew"),
        (held_by("a"), 1000.0, "renew"),  # nobody has taken it: it is still ours
        (held_by("b"), 0.0, "wait"),
        (held_by("b"), 14.9, "wait"),
        (held_by("b"), 15.0, "take"),
        (held_by("b", 40), 15.0, "wait"),  # the holder's duration counts, not ours
        (held_by(""), 0.0, "take"),
        ({"metadata": {}, "spec": None}, 0.0, "take"),
    ],
)
def test_what_is_done_about_a_lease(lease: Manifest | None, unchanged_s: float, step: str) -> None:
    assert leases.next_step(lease, "a", unchanged_s) == step


def test_each_change_is_on_the_version_that_was_read() -> None:
    lease, timing = held_by("b"), Timing(20, 10, 2)
    precondition = {"uid": "u1", "resourceVersion": "7"}
    assert leases.renewed(lease, "a", timing, NOW) == {
        "metadata": precondition,
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 20, "renewTime": "2023-11-14T22:13:20.250000Z"},
    }
    taken = leases.taken(lease, "a", timing, NOW)
    assert taken["metadata"] == precondition
    assert taken["spec"]["leaseTransitions"] == 1
    assert taken["spec"]["acquireTime"] == "2023-11-14T22:13:20.250000Z"
    released = leases.released(lease, NOW)
    assert released["metadata"] == precondition
    assert released["spec"]["holderIdentity"] == ""


@pytest.mark.parametrize(
    "words", [(10, 10, 2), (15, 2, 2), (15, 10, 0), (15, 10, -1), (0.5, 0.2, 0.1), (15.5, 10, 2), (2**31, 10, 2)]
)
def test_times_that_do_not_fit_are_refused(words: tuple[float, float, float]) -> None:
    with pytest.raises(UserError) as refused:
        Timing(*words)
    assert refused.value.hint is not None
    assert "--leader-elect" in refused.value.message
