"""The market genome: who knows what, and what an answer is made of."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.nets.config import GenomeConfig
from cryptoalpha.nets.evoformer import Evoformer
from cryptoalpha.nets.genome.heads import LevelHead, level_probabilities, random_walk_levels
from cryptoalpha.nets.genome.losses import genome_loss, pinball
from cryptoalpha.nets.genome.market_genome import MarketGenome, trunk_sizes
from cryptoalpha.nets.genome.values import GenomeInputs, GenomeReading, GenomeTargets

TINY = GenomeConfig(
    window_bars=12, width=16, heads=2, layers=2, pair_width=8, pair_heads=2, pair_head_width=4, outer_width=4, distance_bins=6
)
S, N, V, F = 3, 12, 16, 2


def windows(seed: int = 0, batch: int = 2) -> GenomeInputs:
    """Windows as they come: tokens on, sources missing, no 3rd frame at first, an outage of one column in the second window."""
    rng = np.random.default_rng(seed)
    missing = rng.random((batch, S, N, V)) < 0.1
    present = np.ones((batch, S, N), bool)
    present[:, 2, :3] = False
    present[1:, :, 5] = False
    return GenomeInputs(
        tokens=torch.tensor((rng.random((batch, S, N, V)) < 0.1) & ~missing),
        missing=torch.tensor(missing),
        hidden=torch.tensor(rng.random((batch, N)) < 0.15),
        pair=torch.tensor(rng.normal(size=(batch, N, N, F))).float(),
        present=torch.tensor(present),
    )


def outcomes(seed: int = 0, batch: int = 2) -> GenomeTargets:
    rng = np.random.default_rng(seed + 1)
    known = torch.tensor(rng.random((batch, N)) < 0.8)
    reach = [torch.where(known, torch.tensor(rng.exponential(2.0, (batch, N))).float(), torch.nan) for _ in range(4)]
    classes = [torch.where(known, torch.tensor(rng.integers(0, 3, (batch, N))), -1) for _ in range(2)]
    distance = torch.tensor(rng.integers(0, 6, (batch, N, N))).triu()
    distance[:, torch.tril(torch.ones(N, N), -1).bool()] = -1
    supervised = torch.zeros(batch, N, dtype=torch.bool)
    supervised[:, N // 2 :] = True
    return GenomeTargets(*reach, *classes, distance, windows(seed, batch).tokens, supervised)


def randomised(seed: int = 0, kind: torch.dtype = torch.float32) -> MarketGenome:
    """Every weight drawn anew: last layers of zeros would hide every leak."""
    net = MarketGenome(TINY, frames=S, pair=F, seed=seed).to(kind).eval()
    random = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=random) * 0.3)
        net.token_after.copy_(torch.randn(net.token_after.shape, generator=random))
    return net


def in_double(inputs: GenomeInputs) -> GenomeInputs:
    return inputs._replace(pair=inputs.pair.double())


def after_training(net: MarketGenome, steps: int = 4) -> MarketGenome:
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    net.train()
    for step in range(steps):
        inputs = windows(step)
        loss, _ = genome_loss(net(inputs), inputs, outcomes(step), token_prior=net.token_prior)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


def before(reading: GenomeReading, column: int) -> list[torch.Tensor]:
    """All answers at columns before `column`."""
    return [*(head[:, :column] for head in reading[:5]), reading.tokens[:, :, :column], reading.distance[:, :column, :column]]


def future_changed(inputs: GenomeInputs, column: int, size: float) -> GenomeInputs:
    rng = torch.Generator().manual_seed(column)
    late = torch.arange(N) >= column
    latest = late[:, None] | late[None, :]
    return GenomeInputs(
        tokens=inputs.tokens ^ (late[:, None] & (torch.rand(inputs.tokens.shape, generator=rng) < 0.5)),
        missing=inputs.missing ^ (late[:, None] & (torch.rand(inputs.missing.shape, generator=rng) < 0.5)),
        hidden=inputs.hidden ^ (late & (torch.rand(inputs.hidden.shape, generator=rng) < 0.5)),
        pair=inputs.pair + size * latest[..., None] * torch.randn(inputs.pair.shape, generator=rng),
        present=inputs.present ^ (late & (torch.rand(inputs.present.shape, generator=rng) < 0.5)),
    )


@pytest.mark.parametrize("column", [1, N // 2, N - 1])
@pytest.mark.parametrize("trained", [False, True])
def test_what_comes_later_changes_no_answer_at_all(column, trained):
    net = after_training(randomised()) if trained else randomised()
    inputs = windows()
    with torch.no_grad():
        now = net(inputs)
        for size in (1.0, 1e3):
            then = net(future_changed(inputs, column, size))
            assert all(torch.equal(a, b) for a, b in zip(before(now, column), before(then, column), strict=True))
            assert all(not torch.equal(a, b) for a, b in zip(now, then, strict=True))


def test_a_trunk_that_may_look_ahead_is_caught_by_the_test_above():
    net, inputs = randomised(), windows()
    ahead = Evoformer(trunk_sizes(TINY), causal="none").eval()
    ahead.load_state_dict(net.trunk.state_dict())
    net.trunk = ahead
    with torch.no_grad():
        now, then = before(net(inputs), N // 2), before(net(future_changed(inputs, N // 2, 1.0)), N // 2)
    assert all(not torch.equal(a, b) for a, b in zip(now, then, strict=True))


def test_a_shorter_window_answers_the_same_up_to_its_end():
    net, whole = randomised(kind=torch.float64), in_double(windows())
    cut = GenomeInputs(*(part[:, :, :7] for part in whole[:2]), whole.hidden[:, :7], whole.pair[:, :7, :7], whole.present[:, :, :7])
    with torch.no_grad():
        for a, b in zip(before(net(whole), 7), net(cut), strict=True):
            torch.testing.assert_close(a, b, rtol=0.0, atol=1e-12)


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 1.0, 10.0]))
@settings(max_examples=40, deadline=None)
def test_levels_are_in_order_whatever_the_weights(seed, scale):
    head = LevelHead(8, 5, horizon=24)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in head.parameters():
            weight.copy_(torch.randn(weight.shape, generator=random) * scale)
        levels = head(torch.randn(50, 8, generator=random))
    assert (levels[:, 0] > 0).all()
    assert (torch.diff(levels, dim=-1) > 0).all()


def test_permuted_frames_with_their_vectors_change_nothing():
    net, inputs = randomised(kind=torch.float64), in_double(windows())
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        now = net(inputs)
        net.embedding.row.copy_(net.embedding.row[order].clone())
        net.token_after.copy_(net.token_after[:, order].clone())  # what is usual in a frame moves with it
        then = net(inputs._replace(tokens=inputs.tokens[:, order], missing=inputs.missing[:, order], present=inputs.present[:, order]))
        other = net(inputs._replace(tokens=inputs.tokens[:, [1, 0, 2]]))
    for name in GenomeReading._fields:
        a, b = getattr(now, name), getattr(then, name)
        torch.testing.assert_close(a[:, order] if name == "tokens" else a, b, rtol=0.0, atol=1e-12)
    assert not torch.allclose(now.trend, other.trend)  # tokens in another frame are something else


def test_the_content_of_a_hidden_column_never_counts():
    net, inputs = randomised(), windows()
    hidden = inputs.hidden[:, None, :, None].expand_as(inputs.tokens)
    touching = (inputs.hidden[:, :, None] | inputs.hidden[:, None, :])[..., None]
    other = inputs._replace(
        tokens=inputs.tokens ^ hidden, missing=inputs.missing ^ hidden, pair=inputs.pair.masked_fill(touching, float("nan"))
    )
    assert inputs.hidden.any()
    with torch.no_grad():
        shown = net(other._replace(hidden=torch.zeros_like(inputs.hidden), pair=inputs.pair))
        for a, b, c in zip(net(inputs), net(other), shown, strict=True):
            assert torch.equal(a, b)
            assert not torch.equal(a, c)


def test_padding_never_counts_and_gives_no_gradient_that_is_not_a_number():
    net, inputs = randomised(), windows()
    absent = ~inputs.present
    none = absent.all(1)
    touching = (none[:, :, None] | none[:, None, :])[..., None]
    other = inputs._replace(
        tokens=inputs.tokens | absent[..., None],
        missing=inputs.missing | absent[..., None],
        pair=inputs.pair.masked_fill(touching, float("nan")),
    )
    loss, _ = genome_loss(net(other), other, outcomes(), token_prior=net.token_prior)
    loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in net.parameters())
    with torch.no_grad():
        for a, b in zip(net(inputs), net(other), strict=True):
            assert torch.equal(a, b)
    # other frames of a column must not care what an absent frame would have held either: more padding rows, same answers
    with torch.no_grad():
        wide = MarketGenome(TINY, frames=S + 1, pair=F).eval()
        wide.load_state_dict({**net.state_dict(), **{k: wide.state_dict()[k] for k in ("embedding.row", "token_prior", "token_after")}})
        wide.embedding.row[:S] = net.embedding.row
        grown = other._replace(
            tokens=torch.cat((other.tokens, torch.ones_like(other.tokens[:, :1])), 1),
            missing=torch.cat((other.missing, torch.zeros_like(other.missing[:, :1])), 1),
            present=torch.cat((other.present, torch.zeros_like(other.present[:, :1])), 1),
        )
        torch.testing.assert_close(net(inputs).supports, wide(grown).supports, rtol=1e-4, atol=1e-5)


def test_nothing_present_is_answered_with_numbers():
    net, inputs = randomised(), windows()
    with torch.no_grad():
        assert all(head.isfinite().all() for head in net(inputs._replace(present=torch.zeros_like(inputs.present))))


def test_an_untrained_genome_answers_what_is_usual():
    net = MarketGenome(TINY, frames=S, pair=F, horizon=24).eval()
    with torch.no_grad():
        reading = net(windows())
        # |N(0, 24)| σ at .1 and .9, an ATR being 1.596 σ: √24 / 1.596 · (.1257, 1.6449)
        assert reading.supports[0, 0, [0, -1]].tolist() == pytest.approx([0.386, 5.049], abs=1e-3)
        net.start_from(
            below=torch.tensor([0.2, 0.8, 1.5, 2.5, 6.0]),
            above=torch.tensor([0.1, 0.7, 1.0, 2.0, 4.0]),
            hold=torch.full((10,), 0.75),
            trend=torch.tensor([0.2, 0.3, 0.5]),
            movement=torch.tensor([0.4, 0.4, 0.2]),
            tokens=torch.full((S, V), 0.25),
        )
        reading = net(windows())
    assert reading.supports[1, 3].tolist() == pytest.approx([0.2, 0.8, 1.5, 2.5, 6.0], abs=1e-5)
    assert reading.resistances[1, 3].tolist() == pytest.approx([0.1, 0.7, 1.0, 2.0, 4.0], abs=1e-5)
    assert reading.hold.sigmoid().unique().tolist() == pytest.approx([0.75])
    assert reading.trend.softmax(-1)[0, 0].tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert reading.movement.softmax(-1)[0, 0].tolist() == pytest.approx([0.4, 0.4, 0.2])
    assert reading.tokens.sigmoid().unique().tolist() == pytest.approx([0.25])


def test_an_untrained_genome_expects_of_a_token_what_followed_the_last_bar_seen():
    net, inputs = MarketGenome(TINY, frames=S, pair=F).eval(), windows()
    off, on, always = (torch.full((S, V), p) for p in (0.1, 0.6, 0.3))
    net.start_from(tokens=always, after_off=off, after_on=on)
    with torch.no_grad():
        said = net(inputs).tokens.sigmoid()
    for b, s, n, v in np.ndindex(2, S, N, 4):
        before = [m for m in range(n) if inputs.present[b, s, m] and not inputs.hidden[b, m]]
        known = bool(before) and not inputs.missing[b, s, before[-1], v]
        expected = (0.6 if inputs.tokens[b, s, before[-1], v] else 0.1) if known else 0.3
        assert said[b, s, n, v].item() == pytest.approx(expected, abs=1e-5)


def test_the_best_levels_are_the_quantiles_of_what_happened():
    excursion = torch.tensor(np.random.default_rng(0).exponential(2.0, 400)).float()
    head = LevelHead(1, 5, horizon=24)
    optimiser = torch.optim.Adam([head.steps.bias], lr=0.03)
    for step in range(500):
        for group in optimiser.param_groups:
            group["lr"] = 0.03 * (1.0 - step / 500)
        optimiser.zero_grad()
        pinball(head(torch.zeros(400, 1)), excursion).mean().backward()
        optimiser.step()
    levels = head(torch.zeros(1, 1))[0].detach().numpy()
    # the minimum is flat between two neighbours, so it is the share below each level that is compared
    share = (excursion.numpy()[:, None] < levels).mean(0)
    assert share == pytest.approx(level_probabilities(5), abs=0.011)


def test_levels_of_a_random_walk_by_simulation():
    ticks = 256
    path = np.cumsum(np.random.default_rng(1).normal(size=(1_000, 24 * ticks)) / np.sqrt(ticks), axis=1)
    bars = path.reshape(1_000, 24, ticks)
    opens = np.concatenate((np.zeros((1_000, 1)), bars[:, :-1, -1]), axis=1)
    ranges = np.maximum(bars.max(2), opens) - np.minimum(bars.min(2), opens)
    reach = np.concatenate((path.max(1), -path.min(1)))
    found = np.quantile(np.maximum(reach, 0.0) / ranges.mean(), level_probabilities(5))
    assert found == pytest.approx(random_walk_levels(5, 24).numpy(), rel=0.1, abs=0.07)


def test_keeping_only_what_enters_a_block_changes_no_gradient():
    inputs, gradients = in_double(windows()), []
    for keep in (False, True):
        net = randomised(kind=torch.float64).train()  # dropout must be drawn alike
        net.trunk.recompute = keep
        torch.manual_seed(3)
        targets = GenomeTargets(*(part.double() if part.is_floating_point() else part for part in outcomes()))
        loss, _ = genome_loss(net(inputs), inputs, targets, token_prior=net.token_prior)
        loss.backward()
        gradients.append([weight.grad for weight in net.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=1e-12)


def test_a_seed_is_the_initial_weights_and_touches_no_other_stream():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = (MarketGenome(TINY, frames=S, pair=F, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.rand(1) == expected
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_inputs_of_another_genome_are_refused():
    net = MarketGenome(TINY, frames=S, pair=F)
    with pytest.raises(ConfigError, match="frames"):
        net(windows()._replace(pair=torch.zeros(2, N, N, F + 1)))
    with pytest.raises(ConfigError, match="frames"):
        MarketGenome(TINY, frames=0, pair=F)


def test_every_weight_is_taught():
    net = randomised()
    loss, parts = genome_loss(net(windows()), windows(), outcomes(), token_prior=net.token_prior)
    loss.backward()
    assert set(parts) == {"levels", "hold", "trend", "movement", "tokens", "distance"}
    silent = [name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert silent == []
