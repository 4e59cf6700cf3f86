"""The forecaster read group by group: the block's own answers up to rounding, the same bits however it came to the group."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.nets.config import EvoformerConfig, HeadsConfig
from cryptoalpha.nets.evoformer import Evoformer
from cryptoalpha.nets.evoformer.by_row import TrunkByRow
from cryptoalpha.nets.forecaster import Forecast, Forecaster, ForecastInputs
from cryptoalpha.nets.forecaster.by_row import ForecasterByRow, groups

CONTEXT, ANSWERED, ASSETS = 21, 20, 5
ROWS = CONTEXT + ANSWERED
SIZES = EvoformerConfig(sequence_width=16, pair_width=8, head_width=8, heads=2, pair_heads=2, pair_head_width=4, outer_width=4, blocks=3)


def build(**changes: object) -> Forecaster:
    """Every weight counts: a fresh network is silent."""
    made = Forecaster(SIZES, HeadsConfig(), horizons=2, price=6, chain=3, text=7, pair=4, seed=1, **changes).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=draw))
    return made.requires_grad_(False)


@pytest.fixture(scope="module")
def net() -> Forecaster:
    return build()


@pytest.fixture(scope="module")
def inputs() -> ForecastInputs:
    """Holes, an asset that comes late, one that is never there, bars at the front that are not."""
    draw = torch.Generator().manual_seed(2)
    cells = (1, ROWS, ASSETS)
    present = torch.rand(cells, generator=draw) < 0.9
    present[:, :25, 0] = present[:, :, 1] = present[:, :3] = False

    def seen(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=draw) < 0.8

    return ForecastInputs(
        price=torch.randn(*cells, 6, generator=draw),
        price_seen=seen(*cells, 6),
        chain=torch.randn(*cells, 3, generator=draw),
        chain_seen=seen(*cells, 3),
        text=torch.randn(*cells, 7, generator=draw),
        text_weight=torch.rand(cells, generator=draw) * seen(*cells),
        pair=torch.randn(*cells, ASSETS, 4, generator=draw),
        pair_seen=seen(*cells, ASSETS, 4),
        present=present,
    )


def reader(net: Forecaster) -> ForecasterByRow:
    return ForecasterByRow(net, assets=ASSETS, context=CONTEXT, answered=ANSWERED)


def known(inputs: ForecastInputs, until: int) -> ForecastInputs:
    """The block as it is before the bars from row `until` on are known: they are padding."""
    return ForecastInputs(*(torch.cat((part[:, :until], torch.zeros_like(part[:, until:])), 1) for part in inputs))


def bits(said: list[tuple[int, Forecast]], until: int = ROWS) -> dict[int, bytes]:
    """All that is said of each answered row before `until`."""
    rows = ((first + t, one, t) for first, one in said for t in range(one.location.shape[1]))
    return {row: b"".join(part[:, t].numpy().tobytes() for part in one) for row, one, t in rows if row < until}


def test_the_groups_cover_the_block_and_none_lies_in_both_parts():
    found = groups(CONTEXT, ANSWERED)
    assert [t for first, stop in found for t in range(first, stop)] == list(range(ROWS))
    assert all(stop <= CONTEXT or first >= CONTEXT for first, stop in found)
    assert len(found) == 5, "these tests pass several groups of both parts"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_says_what_the_pass_over_the_block_says(inputs, dtype, tolerance):
    """In doubles too, which tell the same sums from nearly the same."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        net = build()
        given = ForecastInputs(*(part.to(dtype) if part.is_floating_point() else part for part in inputs))
        with torch.inference_mode():
            whole = net(given)
        said = reader(net).read(given, ROWS)
    finally:
        torch.set_default_dtype(before)
    there = inputs.present[0, CONTEXT:]
    for name in Forecast._fields:
        expected = getattr(whole, name)[0, CONTEXT:][there]
        found = torch.cat([getattr(one, name)[0] for _, one in said])[there]
        assert found.dtype == dtype
        assert expected.abs().max() > 0.05
        np.testing.assert_allclose(found, expected, atol=tolerance, rtol=tolerance, err_msg=name)


def test_bar_after_bar_says_what_reading_all_at_once_says_to_the_bit(net, inputs):
    """Live: bars that are not known yet are padding, and the context is read ahead as it grows."""
    whole, live, read = bits(reader(net).read(inputs, ROWS)), reader(net), []
    for until in range(4, ROWS + 1):
        if until > CONTEXT:
            assert bits(live.read(known(inputs, until), until), until) == {row: whole[row] for row in range(CONTEXT, until)}
        elif live.next_stop <= until:
            read.append(live.next_stop)
            assert live.read(known(inputs, until), live.next_stop) == []
    assert read == [stop for _, stop in groups(CONTEXT, ANSWERED) if stop <= CONTEXT]


def test_what_follows_may_be_anything(net, inputs):
    later = ForecastInputs(*(part.clone() for part in inputs))
    for part in later:
        part[:, 30:] = ~part[:, 30:] if part.dtype == torch.bool else 1e3
    assert bits(reader(net).read(later, 30), 30) == bits(reader(net).read(inputs, 30), 30)


@pytest.mark.parametrize("row", [9, 30])
@pytest.mark.parametrize("part", ForecastInputs._fields)
def test_rows_that_changed_are_read_anew_with_all_after_them(net, inputs, part, row):
    """Each of the inputs alone, of one asset that is there, in the context and in the answered part."""
    asset = int(inputs.present[0, row].nonzero()[0, 0])
    changed = ForecastInputs(*(each.clone() for each in inputs))
    there = ForecastInputs(*(each.clone() for each in inputs))
    for each in (there, changed):  # so that a changed value is a seen one
        each.price_seen[0, row, asset] = each.chain_seen[0, row, asset] = True
        each.pair_seen[0, row, asset] = each.present[0, row] = True
        each.text_weight[0, row, asset] = 1.0
    cell = getattr(changed, part)[0, row, asset]
    getattr(changed, part)[0, row, asset] = ~cell if cell.dtype == torch.bool else cell + 1.0
    one = reader(net)
    before = bits(one.read(there, ROWS))
    after = bits(one.read(changed, ROWS))
    assert after == bits(reader(net).read(changed, ROWS))
    assert [t for t in before if before[t] != after[t]] == list(range(max(row, CONTEXT), ROWS))
    assert bits(one.read(there, ROWS)) == before, "and back again"


def test_what_stands_is_not_computed_again(net, inputs):
    one = reader(net)
    first = one.read(inputs, CONTEXT + 1)
    assert [id(answer) for _, answer in one.read(inputs, ROWS)][: len(first)] == [id(answer) for _, answer in first]


@pytest.mark.parametrize("mutant", ["keys", "before"])
def test_it_lives_by_what_is_kept(net, inputs, mutant):
    """Without the keys or the sums of the rows before, the answers are others."""
    one, whole = reader(net), bits(reader(net).read(inputs, ROWS))
    one.read(inputs, CONTEXT)
    block = one._trunk._blocks[1]
    if mutant == "keys":
        block.column.keys.zero_()
    else:
        block.outer.before = {row: (total * 0.0, count) for row, (total, count) in block.outer.before.items()}
    assert bits(one.read(inputs, ROWS)) != whole


def test_only_a_trunk_in_which_no_row_hears_of_later_ones_can_be_read_so():
    trunk = Evoformer(EvoformerConfig(sequence_width=8, pair_width=8, heads=2, blocks=1), causal="rows", pairs="shared")
    with pytest.raises(ConfigError, match='pairs="shared"'):
        TrunkByRow(trunk, rows=4, columns=2)


def test_what_cannot_be_read_so_or_not_be_kept_is_computed_whole(net):
    assert ForecasterByRow.pays(net, assets=20, context=32, answered=16)
    assert not ForecasterByRow.pays(net, assets=2_000, context=32, answered=16)
    without = build(pair_representation=False)
    assert not ForecasterByRow.pays(without, assets=2, context=32, answered=16)
    with pytest.raises(ConfigError, match="pair representation"):
        reader(without)
