"""Which generation a job's first pods are of."""

from __future__ import annotations

import pytest

from support.scenario import Scenario, pytorchjob
from trainserve.kube import names


@pytest.mark.parametrize(
    ("said", "first"), [(None, "1"), ("3", "4"), ("0", "1"), ("", "1"), ("-2", "1"), ("many", "1"), ("9" * 40, "1")]
)
def test_a_job_that_goes_on_for_a_failed_one_counts_on(said: str | None, first: str) -> None:
    annotations = None if said is None else {names.ANNOTATION_AFTER_GENERATION: said}
    with Scenario(pytorchjob(annotations=annotations)) as world:
        world.settle()
        assert set(world.generations().values()) == {first}
        assert world.status()["generation"] == int(first)
