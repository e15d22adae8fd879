"""When a rank is given up, on a clock that the test moves; and real processes that hang."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.runs import agent, wait_until
from trainserve.launch.ranks import Rank
from trainserve.launch.termination import Failure
from trainserve.launch.watchdog import Watchdog, main_thread
from trainserve.observe import heartbeat
from trainserve.observe.heartbeat import Pulse


class World:
    """Ranks of one node whose processes only wait, and a clock."""

    def __init__(self, folder: Path, count: int, stall_s: float | None) -> None:
        self.now = 1000.0
        self.ranks, self.pulses = [], []
        for number in range(count):
            path = folder / f"rank-{number}.heartbeat"
            heartbeat.create(path)
            process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
            self.ranks.append(Rank(number, number, process, folder / "none", None, path))
            self.pulses.append(Pulse(path, stall_s=stall_s, clock=lambda: self.now))
        self.dog = Watchdog(self.ranks, clock=lambda: self.now)

    def wait(self, seconds: float, nap: float = 0.0) -> Failure | None:
        """Looks twice a second, as an agent does; `nap` seconds of them the machine sleeps."""
        self.now += nap
        for _ in range(int(2 * seconds)):
            self.now += 0.5
            found = self.dog.look()
            if found is not None:
                return found
        return None

    def close(self) -> None:
        self.dog.close()
        for rank in self.ranks:
            rank.process.kill()
            rank.process.communicate()


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(tmp_path, 2, getattr(request, "param", None))
    yield made
    made.close()


def test_a_rank_that_makes_no_step_is_given_up_after_a_minute(world: World) -> None:
    for step in range(1, 30):
        world.now += 0.1
        for pulse in world.pulses:
            pulse.step(step)
    world.pulses[0].waits()
    assert world.wait(59) is None
    found = world.wait(10)
    assert found is not None
    assert (found.rank, found.code) == (1, 201)
    assert "no progress for 62 s in training after step 29" in found.message


def test_slow_steps_are_given_twenty_times_their_median(world: World) -> None:
    for step in range(1, 20):
        world.now += 10
        for pulse in world.pulses:
            pulse.step(step)
    assert world.wait(190) is None
    assert world.wait(20) is not None


@pytest.mark.parametrize("world", [5], indirect=True)
def test_what_is_no_step_may_take_ten_times_as_long(world: World) -> None:
    for pulse in world.pulses:
        pulse.step(1)
        pulse.expect("a checkpoint")
    world.pulses[1].waits()
    assert world.wait(49) is None
    found = world.wait(5)
    assert found is not None
    assert found.rank == 0
    assert "a checkpoint" in found.message


@pytest.mark.parametrize("world", [5], indirect=True)
def test_before_training_and_after_it_nobody_is_watched(world: World) -> None:
    assert world.wait(1000) is None
    for pulse in world.pulses:
        pulse.step(1)
        pulse.rest()
    assert world.wait(1000) is None


@pytest.mark.parametrize("world", [5], indirect=True)
def test_batches_of_a_validation_are_progress(world: World) -> None:
    for pulse in world.pulses:
        pulse.step(1)
    for _ in range(20):
        for pulse in world.pulses:
            pulse.beat("a validation")
        assert world.wait(4) is None


@pytest.mark.parametrize("world", [20], indirect=True)
def test_a_laptop_that_slept_is_no_stall(world: World) -> None:
    for pulse in world.pulses:
        pulse.step(1)
    assert world.wait(5) is None
    assert world.wait(5, nap=8 * 3600) is None
    for pulse in world.pulses:
        pulse.step(2)
    assert world.wait(15) is None


@pytest.mark.parametrize("world", [20], indirect=True)
def test_ranks_that_wait_for_others_are_given_half_as_long_again(world: World) -> None:
    for pulse in world.pulses:
        pulse.step(1)
        pulse.waits()
    assert world.wait(29) is None
    found = world.wait(5)
    assert found is not None
    assert "waiting for the other ranks" in found.message


@pytest.mark.parametrize("world", [1_000_000], indirect=True)
def test_a_large_number_turns_it_off(world: World) -> None:
    for pulse in world.pulses:
        pulse.step(1)
    world.ranks[0].process.send_signal(signal.SIGSTOP)
    assert world.wait(5000) is None


def test_a_frozen_process_is_found_before_training_too(world: World) -> None:
    world.ranks[1].process.send_signal(signal.SIGSTOP)
    wait_until(lambda: _state(world.ranks[1].process.pid) == "T", "it is stopped")
    assert world.wait(59) is None
    found = world.wait(10)
    assert found is not None
    assert found.rank == 1
    assert "is frozen: a signal has stopped its process" in found.message


def test_a_rank_that_gets_on_again_is_spared(world: World) -> None:
    for pulse in world.pulses:
        pulse.step(1)
    assert world.wait(60) is None
    for pulse in world.pulses:
        pulse.step(2)
    assert world.wait(50) is None


def test_the_main_thread_is_the_last_one() -> None:
    first = 'Thread 0x1 (most recent call first):\n  File "a", line 1 in x'
    text = first + '\n\nCurrent thread 0x2 (most recent call first):\n  File "b", line 2 in main\n'
    assert main_thread(text).endswith('File "b", line 2 in main')
    assert main_thread("") == ""


HANG = """\
import os, threading, time
from trainserve.launch.pulse import open_pulse
pulse = open_pulse(stall_s=1)
rank = int(os.environ["RANK"])
def deadlock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
for step in range(1, 5):
    pulse.step(step)
if rank == 1:
    deadlock()
pulse.waits()
time.sleep(60)
"""


@pytest.mark.slow
def test_a_deadlock_in_c_code_ends_the_node_with_the_stacks_in_its_log(tmp_path: Path) -> None:
    process = agent(tmp_path, HANG, {"PET_NPROC_PER_NODE": "2"})
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 201, output
    assert "[rank 1]" in output
    assert "line 8 in deadlock" in output
    assert "[rank 0]   File" in output  # where the others wait
    told = json.loads((tmp_path / "termination-log").read_text())
    assert (told["rank"], told["exitCode"]) == (1, 201)
    assert told["cause"] == "rank 1 stalled (exit code 201)"
    assert "script.py:8 in deadlock" in told["message"]
    assert "in deadlock" in told["traceback"]


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
