"""What the market genome is taught with, against slow loops and closed forms; and that it learns a planted market."""

import math

import numpy as np
import pytest
import torch

from cryptoalpha.nets.config import GenomeConfig
from cryptoalpha.nets.genome.calibration import HOTTEST, fit_hold_calibration, fit_temperature
from cryptoalpha.nets.genome.losses import LossWeights, genome_loss, held, token_loss
from cryptoalpha.nets.genome.market_genome import MarketGenome
from cryptoalpha.nets.genome.values import GenomeInputs, GenomeReading, GenomeTargets

B, S, N, V, K = 2, 2, 6, 4, 5


def one_case(seed: int = 0) -> tuple[GenomeReading, GenomeInputs, GenomeTargets, torch.Tensor]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.tensor(rng.normal(size=shape))

    def maybe(values: torch.Tensor, unknown: float) -> torch.Tensor:
        return values.masked_fill(torch.tensor(rng.random(values.shape) < 0.3), unknown)

    reading = GenomeReading(
        normal(B, N, K).exp().cumsum(-1), normal(B, N, K).exp().cumsum(-1), normal(B, N, 2 * K), normal(B, N, 3), normal(B, N, 3),
        normal(B, S, N, V), normal(B, N, N, 7),
    )  # fmt: skip
    tokens = torch.tensor(rng.random((B, S, N, V)) < 0.3)
    inputs = GenomeInputs(
        tokens=tokens,
        missing=torch.tensor(rng.random((B, S, N, V)) < 0.2),
        hidden=torch.tensor(rng.random((B, N)) < 0.4),
        pair=torch.zeros(B, N, N, 1),
        present=torch.tensor(rng.random((B, S, N)) < 0.7),
    )
    targets = GenomeTargets(
        *(maybe(normal(B, N).abs() * 3.0, math.nan) for _ in range(2)),
        *(maybe(normal(B, N) * 3.0, math.nan) for _ in range(2)),
        *(maybe(torch.tensor(rng.integers(0, 3, (B, N))), -1) for _ in range(2)),
        maybe(torch.tensor(rng.integers(0, 7, (B, N, N))), -1),
        tokens,
        torch.tensor(rng.random((B, N)) < 0.7),
    )
    return reading, inputs, targets, normal(S, V)


def slow_parts(reading: GenomeReading, inputs: GenomeInputs, targets: GenomeTargets, prior: torch.Tensor) -> dict[str, float]:
    """The definitions, one number at a time."""
    r, i, t, prior = ([part.numpy() for part in reading], inputs, targets, prior.numpy())
    supports, resistances, hold, trend, movement, tokens, distance = r
    counted = [(b, n) for b in range(B) for n in range(N) if t.supervised[b, n] and i.present[b, :, n].any()]
    sides, holds = {"below": [], "above": []}, []
    for b, n in counted:
        for side, levels, reach, close, offset in (
            ("below", supports, t.below, t.close_below, 0),
            ("above", resistances, t.above, t.close_above, K),
        ):
            for k in range(K):
                p, error = 0.1 + 0.2 * k, float(reach[b, n]) - levels[b, n, k]
                if not math.isnan(error):
                    sides[side].append(p * error if error > 0 else (p - 1.0) * error)
                if not math.isnan(float(close[b, n])):
                    sure = 1.0 / (1.0 + math.exp(-hold[b, n, offset + k]))
                    holds.append(-math.log(sure if float(close[b, n]) <= levels[b, n, k] else 1.0 - sure))
    words = []
    for b, s, n, v in np.ndindex(B, S, N, V):
        if i.hidden[b, n] and i.present[b, s, n] and not i.missing[b, s, n, v]:
            rate = 1.0 / (1.0 + math.exp(-prior[s, v]))
            sure = 1.0 / (1.0 + math.exp(-(tokens[b, s, n, v] - prior[s, v])))
            words.append(-0.5 / rate * math.log(sure) if t.tokens[b, s, n, v] else -0.5 / (1.0 - rate) * math.log(1.0 - sure))
    far = [
        -math.log(np.exp(distance[b, a, n])[int(t.distance[b, a, n])] / np.exp(distance[b, a, n]).sum())
        for b, n in counted
        for a in range(N)
        if t.distance[b, a, n] >= 0 and i.present[b, :, a].any() and not i.hidden[b, a] and not i.hidden[b, n]
    ]
    classes = [
        [-math.log(np.exp(logits[b, n])[int(truth[b, n])] / np.exp(logits[b, n]).sum()) for b, n in counted if truth[b, n] >= 0]
        for logits, truth in ((trend, t.trend), (movement, t.movement))
    ]
    mean = [float(np.mean(values)) for values in (holds, *classes, words, far)]
    levels = (np.mean(sides["below"]) + np.mean(sides["above"])) / 2.0
    return dict(zip(("levels", "hold", "trend", "movement", "tokens", "distance"), [float(levels), *mean], strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_each_part_is_its_definition(seed):
    case = one_case(seed)
    reading, inputs, targets, prior = case
    total, parts = genome_loss(reading, inputs, targets, token_prior=prior, weights=LossWeights(1.0, 2.0, 3.0, 4.0, 5.0, 6.0))
    expected = slow_parts(*case)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(expected, rel=1e-10)
    assert float(total) == pytest.approx(sum(weight * part for weight, part in zip(range(1, 7), expected.values(), strict=True)))


def test_nothing_known_teaches_nothing():
    reading, inputs, targets, prior = one_case()
    reading = GenomeReading(*(part.requires_grad_() for part in reading))
    nothing = inputs._replace(hidden=torch.zeros_like(inputs.hidden))
    total, _ = genome_loss(reading, nothing, targets._replace(supervised=torch.zeros(B, N, dtype=torch.bool)), token_prior=prior)
    total.backward()
    assert total.item() == 0.0
    assert all(not part.grad.any() for part in reading)


def test_unknown_outcomes_leave_finite_gradients():
    reading, inputs, targets, prior = one_case()
    reading = GenomeReading(*(part.requires_grad_() for part in reading))
    genome_loss(reading, inputs, targets, token_prior=prior)[0].backward()
    assert all(part.grad.isfinite().all() and part.grad.any() for part in reading)


def test_moving_levels_does_not_help_the_calls_that_they_hold():
    reading, inputs, targets, prior = one_case()
    reading = GenomeReading(*(part.requires_grad_() for part in reading))
    only = LossWeights(levels=0.0, hold=1.0, trend=0.0, movement=0.0, tokens=0.0, distance=0.0)
    genome_loss(reading, inputs, targets, token_prior=prior, weights=only)[0].backward()
    assert not reading.supports.grad.any()
    assert reading.hold.grad.any()


def test_a_level_holds_if_no_close_lies_beyond_it():
    reading, _, targets, _ = one_case()
    levels = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64).expand(B, N, K)
    answered = reading._replace(supports=levels, resistances=levels)
    yes, known = held(
        answered, targets._replace(close_below=torch.full((B, N), 3.0).double(), close_above=torch.full((B, N), math.nan).double())
    )
    assert yes[0, 0, :K].tolist() == [False, False, True, True, True]
    assert known[0, 0].tolist() == [True] * K + [False] * K


def test_the_balanced_loss_learns_the_plain_frequency():
    # one token, on in 3 of 200 hidden cells, while the prior believed 10 %
    rate = torch.logit(torch.tensor(0.1)).view(1, 1)
    tokens = torch.zeros(1, 1, 200, 1, dtype=torch.bool)
    tokens[:, :, :3] = True
    everywhere = torch.ones(1, 1, 200, dtype=torch.bool)
    inputs = GenomeInputs(tokens, torch.zeros_like(tokens), everywhere[0], torch.zeros(1, 200, 200, 1), everywhere)
    nothing = torch.zeros(0)
    targets = GenomeTargets(nothing, nothing, nothing, nothing, nothing, nothing, nothing, tokens, nothing)
    logit = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.LBFGS([logit], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = token_loss(logit.expand(1, 1, 200, 1), inputs, targets, rate)
        loss.backward()
        return loss

    optimiser.step(closure)
    assert logit.sigmoid().item() == pytest.approx(3 / 200, rel=1e-3)


def test_calibration_finds_the_slope_and_shift_that_were_hidden():
    rng = np.random.default_rng(0)
    said = torch.tensor(rng.normal(size=(20_000, 2)))
    truth = torch.sigmoid(said * torch.tensor([0.5, 2.0]) + torch.tensor([1.0, -0.5]))
    yes = torch.tensor(rng.random((20_000, 2))) < truth
    scale, shift = fit_hold_calibration(said, yes, torch.ones_like(yes))
    assert scale.tolist() == pytest.approx([0.5, 2.0], abs=0.08)
    assert shift.tolist() == pytest.approx([1.0, -0.5], abs=0.05)


def test_calibration_without_evidence_changes_nothing_and_never_reverses():
    said = torch.randn(2_000, 1, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(2_000, 1, dtype=torch.bool)
    assert [part.tolist() for part in fit_hold_calibration(said, nothing, nothing)] == [[1.0], [0.0]]
    scale, shift = fit_hold_calibration(said, said < 0, ~nothing)  # the reverse of what was said
    assert (scale.item(), shift.item()) == (0.0, pytest.approx(0.0, abs=0.1))


def test_the_temperature_undoes_what_was_multiplied_in():
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.normal(size=(20_000, 3)))
    classes = torch.tensor([rng.choice(3, p=p) for p in logits.softmax(-1).numpy()])
    assert fit_temperature(3.0 * logits, classes) == pytest.approx(3.0, rel=0.05)
    assert fit_temperature(logits, torch.full((20_000,), -1)) == 1.0
    assert fit_temperature(logits, classes[torch.randperm(20_000, generator=torch.Generator().manual_seed(0))]) > 0.9 * HOTTEST


PLANTED = GenomeConfig(
    vocabulary=V, window_bars=12, width=24, heads=2, layers=1, pair_width=8, pair_heads=2, pair_head_width=4, outer_width=4, distance_bins=4
)


def planted_market(windows: int, seed: int, bars: int = 12) -> tuple[GenomeInputs, GenomeTargets]:
    """A market with rules: token 1 repeats token 0 of the bar before (9 of 10 times), token 2 that of three bars before; where token 0 is
    on, excursions are three times as long; with token 3 closes stay within a third of them and the trend is up (8 of 10 times), else it is
    mostly down or sideways; the distance of two bars says which of them have token 0."""
    rng = np.random.default_rng(seed)
    tokens = rng.random((windows, 2, bars, V)) < 0.3
    tokens[:, :, :, 0] = rng.random((windows, 2, bars)) < 0.5
    for token, lag in ((1, 1), (2, 3)):
        flipped = rng.random((windows, 2, bars - lag)) < 0.1
        tokens[:, :, lag:, token] = tokens[:, :, :-lag, 0] ^ flipped
    first = tokens[:, 0, :, 0]
    reach = rng.exponential(1.0, (2, windows, bars)) * np.where(first, 3.0, 1.0)
    up = rng.random((windows, bars)) < np.where(tokens[:, 0, :, 3], 0.8, 0.2)
    trend = np.where(up, 0, 1 + (rng.random((windows, bars)) < 0.5))
    distance = 2 * first[:, :, None] + first[:, None, :]
    distance = np.where(np.triu(np.ones((bars, bars), bool)), distance, -1)
    hidden = rng.random((windows, bars)) < 0.15
    everywhere = torch.ones(windows, bars, dtype=torch.bool)
    inputs = GenomeInputs(
        torch.tensor(tokens), torch.zeros(windows, 2, bars, V, dtype=torch.bool), torch.tensor(hidden),
        torch.zeros(windows, bars, bars, 1), everywhere[:, None].expand(-1, 2, -1),
    )  # fmt: skip
    below, above = torch.tensor(reach).float()
    closes = torch.tensor(reach * np.where(tokens[:, 0, :, 3], 0.3, 1.0)).float()
    classes = torch.tensor(trend)
    return inputs, GenomeTargets(below, above, *closes, classes, classes, torch.tensor(distance), inputs.tokens, everywhere)


def untaught(inputs: GenomeInputs, targets: GenomeTargets) -> MarketGenome:
    """A genome that answers what is usual in these windows."""
    net = MarketGenome(PLANTED, frames=2, pair=1, seed=0).eval()
    quantiles = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    shares = torch.bincount(targets.trend.flatten()) / targets.trend.numel()
    net.start_from(
        below=torch.quantile(targets.below, quantiles),
        above=torch.quantile(targets.above, quantiles),
        trend=shares,
        movement=shares,
        tokens=inputs.tokens.float().mean((0, 2)),
    )
    with torch.no_grad():
        net.start_from(hold=held(net(inputs), targets)[0].float().mean((0, 1)))
    return net


def test_a_planted_market_is_learned_beyond_what_is_usual():
    inputs, targets = planted_market(256, seed=1)
    unseen, truth = planted_market(64, seed=2)
    net = untaught(inputs, targets)
    with torch.no_grad():
        usual = genome_loss(net(unseen), unseen, truth, token_prior=net.token_prior)[1]
    optimiser = torch.optim.AdamW(net.train().parameters(), lr=1e-2)
    torch.manual_seed(0)
    for step in range(120):
        rows = torch.arange(step * 16, step * 16 + 16) % 256
        batch, answers = GenomeInputs(*(part[rows] for part in inputs)), GenomeTargets(*(part[rows] for part in targets))
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * (1.0 - step / 120)
        optimiser.zero_grad()
        genome_loss(net(batch), batch, answers, token_prior=net.token_prior)[0].backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
    with torch.no_grad():
        learned = genome_loss(net.eval()(unseen), unseen, truth, token_prior=net.token_prior)[1]
    ratio = {name: (learned[name] / usual[name]).item() for name in usual}
    # what can be known is known: the rest of each loss is chance by construction
    most = {"levels": 0.95, "hold": 0.97, "trend": 0.93, "movement": 0.93, "tokens": 0.97, "distance": 0.2}
    assert {name: value for name, value in ratio.items() if value > most[name]} == {}, ratio
