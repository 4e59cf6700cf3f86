"""The genome read column by column: the window's own answers up to rounding, the same bits however it came to the column."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.nets.config import EvoformerConfig, GenomeConfig
from cryptoalpha.nets.evoformer import Evoformer
from cryptoalpha.nets.evoformer.by_column import TrunkByColumn
from cryptoalpha.nets.genome import GenomeInputs, MarketGenome
from cryptoalpha.nets.genome.by_column import GenomeByColumn
from cryptoalpha.nets.genome.values import ColumnAnswers

BATCH, FRAMES, COLUMNS = 3, 2, 20
SIZES = GenomeConfig(window_bars=COLUMNS, width=16, heads=2, layers=3, pair_width=8, pair_heads=2, pair_head_width=4, outer_width=4)


@pytest.fixture(scope="module")
def net() -> MarketGenome:
    """Every weight counts: a fresh network is silent."""
    made, draw = MarketGenome(SIZES, frames=FRAMES, pair=2, seed=1).eval(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=draw))
    return made.requires_grad_(False)


@pytest.fixture(scope="module")
def inputs() -> GenomeInputs:
    """Holes in one row, in all rows, at the front; hidden columns; a window with nothing in it."""
    draw = torch.Generator().manual_seed(2)
    tokens = torch.rand(BATCH, FRAMES, COLUMNS, SIZES.vocabulary, generator=draw) < 0.2
    missing = (torch.rand(tokens.shape, generator=draw) < 0.1) & ~tokens
    present = torch.rand(BATCH, FRAMES, COLUMNS, generator=draw) < 0.9
    present[0, :, 5:8] = present[1, :, :6] = present[2] = False
    hidden = torch.zeros(BATCH, COLUMNS, dtype=torch.bool)
    hidden[0, 10:12] = True
    half = (torch.rand(BATCH, COLUMNS, COLUMNS, 2, generator=draw) < 0.3).float()
    return GenomeInputs(tokens, missing, hidden, torch.maximum(half, half.transpose(1, 2)), present)


def read_anew(net: MarketGenome, inputs: GenomeInputs, until: int = COLUMNS) -> list[ColumnAnswers]:
    return list(GenomeByColumn(net, batch=BATCH, columns=COLUMNS).read(inputs, until))


def bits(answers: list[ColumnAnswers]) -> list[bytes]:
    return [part.numpy().tobytes() for answer in answers for part in answer]


def test_says_what_the_pass_over_the_window_says(net, inputs):
    with torch.inference_mode():
        whole = net(inputs)
    found = read_anew(net, inputs)
    for k, name in enumerate(ColumnAnswers._fields):
        expected = getattr(whole, name).numpy()
        assert np.abs(expected).max() > 0.05
        np.testing.assert_allclose(torch.stack([one[k] for one in found], 1).numpy(), expected, atol=1e-5, rtol=1e-5, err_msg=name)


def test_a_column_more_changes_no_bit_of_what_was_said_and_equals_reading_all_at_once(net, inputs):
    reader = GenomeByColumn(net, batch=BATCH, columns=COLUMNS)
    for until in (1, 2, 7, 13, COLUMNS):
        grown = list(reader.read(inputs, until))
    assert bits(grown) == bits(read_anew(net, inputs))


def test_what_follows_may_be_anything(net, inputs):
    later = GenomeInputs(*(part.clone() for part in inputs))
    later.tokens[:, :, 12:] = ~later.tokens[:, :, 12:]
    later.pair[:, 12:] = later.pair[:, :, 12:] = torch.nan
    later.present[:, :, 12:] = True
    assert bits(read_anew(net, later, 12)) == bits(read_anew(net, inputs, 12))


@pytest.mark.parametrize("part", range(5))
def test_columns_that_changed_are_read_anew_with_all_after_them(net, inputs, part):
    """Each of the inputs alone, of one window of three, in the midst."""
    changed = GenomeInputs(*(each.clone() for each in inputs))
    if part == 3:
        changed.pair[1, 9, 7] = changed.pair[1, 7, 9] = 1.0 - changed.pair[1, 9, 7]
    elif part == 2:
        changed.hidden[1, 9] = True
    else:
        changed[part][1, :, 9] = ~changed[part][1, :, 9]
    reader = GenomeByColumn(net, batch=BATCH, columns=COLUMNS)
    before = bits(list(reader.read(inputs, COLUMNS)))
    after = bits(list(reader.read(changed, COLUMNS)))
    assert after == bits(read_anew(net, changed))
    assert after != before
    assert bits(list(reader.read(inputs, COLUMNS))) == before, "and back again"


def test_only_a_trunk_that_is_causal_along_its_columns_can_be_read_so():
    trunk = Evoformer(EvoformerConfig(sequence_width=8, pair_width=8, heads=2, blocks=1), causal="rows")
    with pytest.raises(ConfigError, match="causal"):
        TrunkByColumn(trunk, batch=1, rows=2, columns=4)


def test_a_thousand_bars_are_too_many_to_keep(net):
    assert GenomeByColumn.pays(net, batch=8, columns=64)
    assert not GenomeByColumn.pays(net, batch=8, columns=1_000)
