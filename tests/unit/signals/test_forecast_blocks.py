"""Blocks: the absolute grid, padding, scaling with training rows alone, and targets that were known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.time import HOUR
from cryptoalpha.signals.config import ForecastConfig
from cryptoalpha.signals.forecast.arrays import forecast_arrays
from cryptoalpha.signals.forecast.blocks import Blocks
from cryptoalpha.signals.forecast.labels import forecast_labels
from cryptoalpha.signals.forecast.scaling import ForecastScaler, fit_scalers
from cryptoalpha.signals.frame import Frame

CONFIG = ForecastConfig(context_bars=6, block_bars=4, correlation_bars=(10, 20), horizon_bars=(1, 3), clip=3.0)
ROWS = 163


class Silence:
    width = 3

    def encode(self, texts):
        raise AssertionError("there are no texts")


@pytest.fixture(scope="module")
def frame(make_frame) -> Frame:
    rng = np.random.default_rng(11)
    paths = {f"{name}/USDT": 50.0 * np.exp(np.cumsum(0.01 * rng.normal(size=ROWS))) for name in "ABC"}
    paths["B/USDT"][100:104] = np.nan
    return make_frame(paths)


@pytest.fixture(scope="module")
def blocks(frame) -> Blocks:
    return Blocks(forecast_arrays(frame, CONFIG, Silence()), CONFIG, forecast_labels(frame.panel, frame.sigma, CONFIG))


@pytest.fixture(scope="module")
def scaler(blocks) -> ForecastScaler:
    return fit_scalers(blocks.arrays, np.arange(40, 90), clip=CONFIG.clip)


def test_blocks_begin_at_multiples_since_1970(frame, blocks, start):
    first = start // HOUR // 4  # row 0 opens a block
    assert blocks.holding(np.array([0, 3, 4, 9, 10, 12])).tolist() == [first, first + 1, first + 2, first + 3]
    assert blocks.rows_of(np.array([first, first + 2])).tolist() == [
        [-1, -1, -1, -1, -1, -1, 0, 1, 2, 3],
        [2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    ]
    last = blocks.holding(np.array([ROWS - 1]))
    assert blocks.rows_of(last).tolist() == [[154, 155, 156, 157, 158, 159, 160, 161, 162, -1]]


def test_a_bar_stands_in_the_same_place_wherever_the_frame_begins(frame, blocks, scaler):
    later = Frame(frame.panel.rows(31, 150), frame.dataset)
    others = Blocks(forecast_arrays(later, CONFIG, Silence()), CONFIG)
    number = blocks.holding(np.array([100]))
    assert (others.rows_of(number) + 31).tolist() == blocks.rows_of(number).tolist()
    mine, theirs = blocks.inputs(number, scaler), others.inputs(number, scaler)
    for name in ("pair", "pair_seen", "present", "text", "text_weight"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name)), name


def test_padding_and_absent_bars_are_zero_and_unseen(blocks, scaler):
    numbers = blocks.holding(np.array([0, 100, ROWS - 1]))
    inputs = blocks.inputs(numbers, scaler)
    absent = torch.from_numpy(blocks.rows_of(numbers) < 0)
    assert absent.sum() == 7
    assert not inputs.present[absent].any()
    hole = torch.from_numpy(np.isin(blocks.rows_of(numbers), np.arange(100, 104)))
    assert inputs.present[hole].tolist() == [[True, False, True]] * 4
    for values, seen in ((inputs.price, inputs.price_seen), (inputs.chain, inputs.chain_seen)):
        assert not values[absent].any()
        assert not seen[absent].any()
        assert not values[hole][:, 1].any()
        assert not seen[hole][:, 1].any()
    assert not inputs.pair[absent].any()
    assert not inputs.pair_seen[hole][:, 1].any()
    assert not inputs.pair_seen[hole][:, :, 1].any()
    assert all(part.dtype in (torch.float32, torch.bool) for part in inputs)
    assert all(torch.isfinite(part.float()).all() for part in inputs)


def test_features_are_scaled_cut_and_masked(blocks, scaler):
    number = blocks.holding(np.array([120]))
    inputs, rows = blocks.inputs(number, scaler), blocks.rows_of(number)[0]
    raw = blocks.arrays.price[rows].astype(np.float64)
    expected = np.clip((raw - scaler.price.centre) / np.where(scaler.price.scale > 0, scaler.price.scale, np.inf), -3.0, 3.0)
    seen = np.isfinite(raw) & (scaler.price.scale > 0)
    assert np.array_equal(inputs.price_seen[0].numpy(), seen)
    assert np.array_equal(inputs.price[0].numpy(), np.where(seen, expected, 0.0).astype(np.float32))
    assert 0.2 < seen.mean() < 1.0
    assert inputs.price.abs().max() == 3.0


def test_scalers_see_training_rows_alone(frame, blocks, scaler):
    for values in (np.nan, 1e6):
        spoilt = forecast_arrays(frame, CONFIG, Silence())
        for array in (spoilt.price, spoilt.chain, spoilt.pair):
            array[:40] = array[90:] = values
        found = fit_scalers(spoilt, np.arange(40, 90), clip=3.0)
        for name, array in scaler.as_arrays().items():
            assert array.tobytes() == found.as_arrays()[name].tobytes(), name
    assert scaler.price.fitted_until == frame.panel.known_at[89]
    everything = fit_scalers(blocks.arrays, np.arange(ROWS), clip=3.0)
    assert everything.price.centre.tobytes() != scaler.price.centre.tobytes()


def test_an_asset_beside_itself_does_not_set_the_scale_of_pairs(blocks, scaler):
    off = ~np.eye(3, dtype=bool)
    pairs = blocks.arrays.pair[40:90][:, off].reshape(-1, 6)
    assert scaler.pair.centre[0] == np.median(pairs[np.isfinite(pairs[:, 0]), 0].astype(np.float64))
    assert abs(scaler.pair.centre[0]) < 0.4


def test_scalers_need_rows(blocks):
    with pytest.raises(ModelError, match="no rows to fit"):
        fit_scalers(blocks.arrays, np.array([ROWS + 5]), clip=3.0)


def test_scalers_survive_a_file(scaler):
    again = ForecastScaler.from_arrays(scaler.as_arrays(), clip=3.0, fitted_until=5)
    assert again.pair.scale.tobytes() == scaler.pair.scale.tobytes()
    with pytest.raises(ModelError, match="scaler/chain/centre"):
        ForecastScaler.from_arrays({k: v for k, v in scaler.as_arrays().items() if k != "scaler/chain/centre"}, clip=3.0, fitted_until=5)


def test_targets_are_the_labels_of_answered_bars(frame, blocks):
    number = blocks.holding(np.array([121]))
    targets, rows = blocks.targets(number, known_by=int(frame.panel.known_at[-1])), blocks.rows_of(number)[0]
    assert targets.supervised[0].tolist() == [False] * 6 + [True] * 4
    assert np.array_equal(targets.move[0, 6:].numpy(), blocks.labels.move[rows[6:]], equal_nan=True)
    assert np.array_equal(targets.volatility[0, 6:].numpy(), blocks.labels.volatility[rows[6:]], equal_nan=True)
    assert np.array_equal(targets.correlation[0, 6:].numpy(), blocks.labels.correlation[rows[6:]], equal_nan=True)
    assert torch.isnan(targets.move[0, :6]).all()


@pytest.mark.parametrize("moment", [121, 122, 124, 130, 148])
def test_a_label_that_was_not_known_yet_teaches_nothing(moment, frame, blocks):
    number, known_by = blocks.holding(np.array([121])), int(frame.panel.known_at[moment])
    targets, rows = blocks.targets(number, known_by=known_by), blocks.rows_of(number)[0]
    for place in range(6, 10):
        for h, bars in enumerate(CONFIG.horizon_bars):
            assert torch.isfinite(targets.move[0, place, 0, h]) == (rows[place] + 1 + bars <= moment)
        assert torch.isfinite(targets.correlation[0, place, 0, 1]) == (rows[place] + 1 + 24 <= moment)
        assert targets.supervised[0, place] == (rows[place] + 2 <= moment)


def test_only_the_rows_asked_for_are_taught(frame, blocks, scaler):
    always = int(frame.panel.known_at[-1])
    rows = np.array([97, 98, 121])
    assert blocks.targets(blocks.holding(rows), known_by=always, rows=rows).supervised.sum() == 3
    samples = blocks.samples(rows, scaler, known_by=always)
    assert len(samples) == 2
    assert len(blocks.samples(rows, scaler, known_by=int(frame.panel.known_at[100]))) == 1  # nothing known about 121
    assert len(blocks.samples(np.arange(40, 120), scaler, known_by=always)) == 20
    assert len(blocks.samples(np.arange(40, 120), scaler, known_by=always, every=4)) == 5
    assert len(blocks.samples(np.array([ROWS - 1]), scaler, known_by=always)) == 0


def test_without_labels_there_are_no_targets(blocks):
    with pytest.raises(ConfigError, match="no targets"):
        Blocks(blocks.arrays, CONFIG).targets(np.array([0]), known_by=0)


def test_a_batch_is_a_function_of_its_indices(frame, blocks, scaler):
    samples = blocks.samples(np.arange(40, 120), scaler, known_by=int(frame.panel.known_at[120]))
    together, alone = samples.take(torch.tensor([3, 7, 0])), samples.take(torch.tensor([7]))
    for batch, one in zip((*together[0], *together[1]), (*alone[0], *alone[1]), strict=True):
        assert batch[1:2].numpy().tobytes() == one.numpy().tobytes()


def test_other_data_rows_or_moments_are_other_samples(frame, blocks, scaler):
    known = [int(frame.panel.known_at[t]) for t in (120, 121)]
    prints = {
        blocks.samples(rows, of, known_by=moment).fingerprint()
        for rows, of, moment in (
            (np.arange(40, 90), scaler, known[0]),
            (np.arange(40, 91), scaler, known[0]),
            (np.arange(40, 90), scaler, known[1]),
            (np.arange(40, 90), fit_scalers(blocks.arrays, np.arange(40, 80), clip=3.0), known[0]),
        )
    }
    assert len(prints) == 4
    assert blocks.samples(np.arange(40, 90), scaler, known_by=known[0]).fingerprint() in prints


def test_a_line_learns_from_them(frame, blocks, scaler):
    """From scaled features to the moves, by plain descent on masked squares: inputs and targets stand where they belong."""
    samples = blocks.samples(np.arange(80, 140), scaler, known_by=int(frame.panel.known_at[145]))
    inputs, targets = samples.take(torch.arange(len(samples)))
    known = targets.supervised[:, :, None, None] & torch.isfinite(targets.move)
    weights, losses = torch.zeros(50, 2, requires_grad=True), []
    for _ in range(100):
        loss = (inputs.price @ weights - torch.nan_to_num(targets.move))[known].square().mean()
        (slope,) = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            weights -= 0.02 * slope
        losses.append(loss.item())
    assert known.sum() > 300
    assert losses[-1] < 0.8 * losses[0]
