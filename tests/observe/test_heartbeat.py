from __future__ import annotations

from pathlib import Path

from trainserve.observe import heartbeat
from trainserve.observe.heartbeat import Pulse, Reader, of_environment


def test_what_a_rank_says_is_what_its_agent_reads(tmp_path: Path) -> None:
    path = tmp_path / "beat"
    heartbeat.create(path)
    reader, pulse = Reader(path), Pulse(path, stall_s=7)
    assert reader.read() == heartbeat.Heartbeat()
    pulse.answers()
    pulse.expect("the first pictures")
    found = reader.read()
    assert (found.beats, found.limit_s, found.what, found.answers) == (1, 70.0, "the first pictures", True)
    pulse.step(5)
    pulse.waits()
    found = reader.read()
    assert (found.beats, found.step, found.limit_s, found.stall_s, found.waits) == (2, 5, 7.0, 7.0, True)
    pulse.works()
    pulse.rest()
    found = reader.read()
    assert (found.beats, found.limit_s, found.waits) == (3, 0.0, False)
    reader.close()


def test_the_limit_follows_the_median_step_but_never_exceeds_the_others_patience() -> None:
    now = [0.0]
    pulse = Pulse(None, peer_s=600, clock=lambda: now[0])
    limits = {}
    for seconds in (0.05, 1.0, 10.0, 100.0):
        for step in range(200):
            now[0] += seconds
            pulse.step(step)
        limits[seconds] = (round(pulse.stall_s), round(pulse.long_s))
    assert limits == {0.05: (60, 600), 1.0: (60, 600), 10.0: (200, 600), 100.0: (600, 600)}


def test_one_slow_step_does_not_raise_it() -> None:
    now = [0.0]
    pulse = Pulse(None, clock=lambda: now[0])
    for step in range(64):
        now[0] += 500.0 if step == 40 else 5.0
        pulse.step(step)
    assert pulse.stall_s == 100.0


def test_without_an_agent_a_pulse_is_silent(tmp_path: Path) -> None:
    assert of_environment(None) is None
    assert of_environment(str(tmp_path / "gone")) is None
    pulse = Pulse()
    pulse.expect("x")
    pulse.step(1)
    pulse.rest()
