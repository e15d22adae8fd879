"""Deadlines are counted by a clock that nobody sets."""

from __future__ import annotations

from trainserve.machine.clock import Steady, elapsed


class Machine:
    """A wall clock and the time that really passes."""

    def __init__(self) -> None:
        self.wall, self.real = 1_000_000.0, 50.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.real += seconds

    def steady(self, not_before: float = 0.0) -> Steady:
        return Steady(not_before, wall=lambda: self.wall, elapsed=lambda: self.real)


def test_what_is_set_back_or_forward_changes_nothing() -> None:
    machine = Machine()
    clock = machine.steady()
    machine.passes(10)
    machine.wall -= 86_400
    machine.passes(5)
    assert clock() == 1_000_015.0
    machine.wall += 1e9
    machine.passes(5)
    assert clock() == 1_000_020.0


def test_time_that_is_known_to_have_passed_does_not_come_again() -> None:
    machine = Machine()
    machine.wall -= 3600  # set back while no supervisor lived
    clock = machine.steady(not_before=1_000_000.0)
    machine.passes(7)
    assert clock() == 1_000_007.0


def test_it_goes_on() -> None:
    before = elapsed()
    assert elapsed() >= before
