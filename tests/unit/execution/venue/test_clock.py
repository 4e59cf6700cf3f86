"""The venue's clock: an offset with a known bound, and stamps that no jump of our own clock can move."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.time import HOUR, MILLISECOND, SECOND
from cryptoalpha.execution.live.clock import Reading, VenueClock

WALL = 1_700_000_000 * SECOND


class Machine:
    """A machine whose wall clock can be set; its monotonic clock only runs."""

    def __init__(self) -> None:
        self.elapsed, self.wall_error = 5 * SECOND, 0

    def wall(self) -> int:
        return WALL + self.elapsed + self.wall_error

    def monotonic(self) -> int:
        return self.elapsed

    def clock(self) -> VenueClock:
        return VenueClock(wall=self.wall, monotonic=self.monotonic)


@settings(max_examples=50)
@given(skew=st.integers(-2 * HOUR, 2 * HOUR), out=st.integers(0, SECOND), back=st.integers(0, SECOND), after=st.integers(0, 10 * HOUR))
def test_the_offset_is_wrong_by_at_most_half_a_round_trip(skew, out, back, after):
    machine = Machine()
    clock, sent = machine.clock(), machine.elapsed
    machine.elapsed += out
    venue = machine.wall() + skew  # read there at this moment
    machine.elapsed += back
    offset = clock.set(Reading(venue=venue, sent=sent, received=machine.elapsed))
    assert abs(offset - skew) <= (out + back) // 2 + 1
    machine.elapsed += after
    assert abs(clock.now() - (machine.wall() + skew)) <= (out + back) // 2 + 1


def test_setting_our_clock_back_or_forth_moves_no_stamp():
    machine = Machine()
    clock = machine.clock()
    clock.set(Reading(venue=WALL + HOUR, sent=machine.elapsed, received=machine.elapsed))
    before = clock.milliseconds()
    for jump in (-HOUR, HOUR, -3 * SECOND):
        machine.wall_error = jump
        machine.elapsed += 10 * MILLISECOND
        before += 10
        assert clock.milliseconds() == before
    assert clock.offset() == clock.now() - machine.wall()  # told against the clock as it now is


def test_before_the_first_reading_it_is_our_own_clock():
    machine = Machine()
    assert machine.clock().now() == machine.wall()
    assert machine.clock().offset() == 0
