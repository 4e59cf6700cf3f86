"""The capital ramp: health moves it, a loss ends it, profit does nothing; what is written stands after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import DAY
from cryptoalpha.lifecycle.gates.config import RampConfig
from cryptoalpha.lifecycle.gates.ramp import CapitalRamp, Health

CONFIG = RampConfig(steps=(0.1, 0.5, 1.0), healthy_days=2.0, least_decisions=10, stop_loss=0.1)


class Clock:
    def __init__(self) -> None:
        self.days = 0.0

    def __call__(self) -> int:
        return round(self.days * DAY)


def ramp_at(path: Path, clock: Clock) -> CapitalRamp:
    return CapitalRamp(path / "ramp.sqlite", CONFIG, now=clock)


def well(decisions: int = 10, equity: float = 100.0) -> Health:
    return Health(decisions, 0, (), equity)


def test_two_healthy_days_and_ten_decisions_are_one_step(tmp_path):
    clock = Clock()
    ramp = ramp_at(tmp_path, clock)
    assert ramp.begin("loop", "v1", equity=100.0).share == 0.1
    clock.days = 1.9
    assert ramp.observe("loop", well(50)).share == 0.1  # too early
    clock.days = 2.0
    assert ramp.observe("loop", well(0)).share == 0.5
    clock.days = 4.0
    assert ramp.observe("loop", well(9)).share == 0.5  # too few decisions on this step
    assert ramp.observe("loop", well(1)).share == 1.0
    assert ramp.status("loop").state == "full"
    assert [change.share for change in ramp.history("loop")] == [0.1, 0.1, 0.5, 0.5, 1.0]


@pytest.mark.parametrize("sick", [Health(5, 1, (), 100.0), Health(5, 0, ("an answer was NaN",), 100.0)])
def test_a_fault_or_a_decision_unlike_its_replay_is_a_step_back_and_a_new_stretch(tmp_path, sick):
    clock = Clock()
    ramp = ramp_at(tmp_path, clock)
    ramp.begin("loop", "v1", equity=100.0)
    clock.days = 2.0
    assert ramp.observe("loop", well()).share == 0.5
    clock.days = 3.5
    assert ramp.observe("loop", sick).share == 0.1
    clock.days = 4.5
    assert ramp.observe("loop", well(100)).share == 0.1  # the stretch began anew at 3.5
    clock.days = 5.5
    assert ramp.observe("loop", well()).share == 0.5


def test_a_loss_ends_it_until_a_person_begins_again(tmp_path):
    clock = Clock()
    ramp = ramp_at(tmp_path, clock)
    ramp.begin("loop", "v1", equity=100.0)
    assert ramp.observe("loop", well(1, equity=90.01)).share == 0.1
    stopped = ramp.observe("loop", well(1, equity=90.0))
    assert (stopped.state, stopped.share) == ("stopped", 0.0)
    assert "loss of 10%" in stopped.reason
    clock.days = 90.0
    assert ramp.observe("loop", well(1_000, equity=200.0)).share == 0.0
    assert ramp.begin("loop", "v1", equity=90.0).share == 0.1


def test_beginning_twice_goes_on_and_another_version_begins_at_the_first_step(tmp_path):
    clock = Clock()
    ramp = ramp_at(tmp_path, clock)
    ramp.begin("loop", "v1", equity=100.0)
    clock.days = 2.0
    ramp.observe("loop", well())
    assert ramp.begin("loop", "v1", equity=50.0).share == 0.5
    assert ramp.begin("loop", "v2", equity=50.0).share == 0.1
    assert ramp.status("genome") is None


def test_what_cannot_be_is_refused(tmp_path):
    ramp = ramp_at(tmp_path, Clock())
    with pytest.raises(ConfigError, match="no ramp of line"):
        ramp.observe("loop", well())
    with pytest.raises(ConfigError, match="equity of nan"):
        ramp.begin("loop", "v1", equity=float("nan"))
    ramp.begin("loop", "v1", equity=100.0)
    with pytest.raises(DataError):
        ramp.observe("loop", Health(1, 2, (), 100.0))
    with pytest.raises(DataError):
        ramp.observe("loop", Health(1, 0, (), float("nan")))  # a NaN would never stop it
    for steps in ((0.5, 0.1, 1.0), (0.1, 0.5), ()):
        with pytest.raises(ValidationError, match="rise to exactly 1"):
            RampConfig(steps=steps)


@settings(max_examples=40, deadline=None)
@given(
    looks=st.lists(st.tuples(st.floats(0.1, 3.0), st.integers(0, 20), st.booleans(), st.floats(90.1, 1e6)), max_size=15),
    others=st.lists(st.floats(90.1, 1e6), min_size=15, max_size=15),
)
def test_profit_moves_nothing(tmp_path_factory, looks, others):
    """Two books with the same health and any equity above the stop stand on the same steps for ever."""
    shares = []
    for equities in ([equity for *_, equity in looks], others):
        clock = Clock()
        ramp = ramp_at(tmp_path_factory.mktemp("ramp"), clock)
        seen = [ramp.begin("loop", "v1", equity=100.0).share]
        for (days, decisions, sick, _), equity in zip(looks, equities, strict=False):
            clock.days += days
            seen.append(ramp.observe("loop", Health(decisions, 0, ("late",) if sick else (), equity)).share)
        shares.append(seen)
    assert shares[0] == shares[1]


CLIMBING = """
import sys
from pathlib import Path
from cryptoalpha.core.time import DAY
from cryptoalpha.lifecycle.gates.config import RampConfig
from cryptoalpha.lifecycle.gates.ramp import CapitalRamp, Health
day = [0]
ramp = CapitalRamp(Path(sys.argv[1]), RampConfig(steps=(0.1, 0.5, 1.0), healthy_days=1.0, least_decisions=1), now=lambda: day[0] * DAY)
ramp.begin("loop", "v1", equity=100.0)
while True:
    day[0] += 1
    sick = ("late",) if day[0] % 5 == 0 else ()
    print(ramp.observe("loop", Health(1, 0, sick, 100.0)).share, flush=True)
"""


def test_killed_at_any_moment_what_was_told_stands(tmp_path):
    """What the killed process printed is in the file, and at most one more change that it had no time to tell."""
    for attempt in range(5):
        path = tmp_path / f"ramp{attempt}.sqlite"
        child = subprocess.Popen([sys.executable, "-c", CLIMBING, str(path)], stdout=subprocess.PIPE, text=True)
        told = [float(child.stdout.readline()) for _ in range(3 + 7 * attempt)]
        os.kill(child.pid, signal.SIGKILL)
        told += [float(line) for line in child.communicate()[0].split("\n") if line.endswith(("0.1", "0.5", "1.0"))]
        kept = [change.share for change in CapitalRamp(path, CONFIG, now=Clock()).history("loop")][1:]
        assert kept[: len(told)] == told
        assert len(kept) - len(told) <= 1
