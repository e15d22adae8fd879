from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainserve.local.patch import merge
from trainserve.operator.status_patch import difference

values = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
statuses = st.dictionaries(st.text(max_size=2), values, max_size=4)


@given(statuses, statuses)
def test_applied_to_the_old_it_gives_the_new(old: dict, new: dict) -> None:
    assert merge(old, difference(old, new)) == new


@given(statuses)
def test_nothing_to_send_for_the_same(status: dict) -> None:
    assert difference(status, status) == {}
