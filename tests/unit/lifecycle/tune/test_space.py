"""The space: every draw is a network that can be built, sizes follow the preset, and what is in use is a point of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.tune.config import TuneConfig
from cryptoalpha.lifecycle.tune.space import ForecasterSpace
from cryptoalpha.nets.presets import EVOFORMERS

NOW = {"learning_rate": 5e-4, "batch": 8, "sigma": 0.02, "dropout": 0.15, "heads": 4, "head_width": 32}


def space(preset: str = "small", **changes: object) -> ForecasterSpace:
    return ForecasterSpace(TuneConfig(**changes), EVOFORMERS[preset], 16, NOW)  # type: ignore[arg-type]


class Drawn:
    """Draws what hypothesis says, inside the bounds."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return self.data.draw(st.floats(low, high), name)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        assert (high - low) % step == 0, "a range that its step does not fill is narrowed by the sampler, with a warning"
        return self.data.draw(st.sampled_from(range(low, high + 1, step)), name)


@settings(deadline=None, max_examples=200)
@given(data=st.data(), preset=st.sampled_from(sorted(EVOFORMERS)), relative=st.booleans())
def test_heads_divide_the_width_and_the_width_stays_in_its_range(data, preset, relative):
    chosen = space(preset, relative=relative)
    params = chosen.draw(Drawn(data))
    trunk, (low, high) = chosen.trunk(params), chosen.width
    assert trunk.sequence_width == trunk.heads * trunk.head_width
    assert low <= trunk.sequence_width <= high
    assert chosen.heads[0] <= trunk.heads <= chosen.heads[1]
    assert trunk.row_dropout == trunk.pair_dropout == params["dropout"]
    assert trunk.blocks == EVOFORMERS[preset].blocks


def test_sizes_of_a_preset_are_the_same_shares_of_its_own():
    assert (space("seed").heads, space("seed").width) == ((8, 16), (256, 1024))
    assert (space("small").heads, space("small").width) == ((3, 5), (43, 171))  # ×4/12 and ×128/768, rounded
    assert (space("small", relative=False).heads, space("small", relative=False).width) == ((8, 16), (256, 1024))


def test_a_batch_of_16_to_128_bars_is_one_to_eight_blocks():
    assert space().blocks == (1, 8)


def test_the_settings_in_use_are_a_point_if_they_lie_in_the_space():
    assert space().begin == NOW
    assert space(generations=0).begin == {name: value for name, value in NOW.items() if name != "sigma"}
    assert space(learning_rate=(1e-3, 1e-2)).begin == {}
    assert space(relative=False).begin == {}  # 4 heads are not 8 to 16


def test_a_space_without_a_point_is_refused():
    with pytest.raises(ConfigError, match="no width from 10 to 11 is a multiple of 8 heads"):
        space(relative=False, width=(10, 11)).head_width(8)
    for wrong in ({"width": (5, 5)}, {"dropout": (0.1, 1.0)}, {"sigma": (0.0, 0.1)}, {"trials": 0}):
        with pytest.raises(ValidationError):
            TuneConfig(**wrong)
