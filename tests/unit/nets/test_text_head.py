"""The sentiment head and the loss that lets coarse labels teach it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.nets.text.head import SentimentHead, label_set_loss


def test_a_sharp_label_is_cross_entropy():
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.0, 0.5], [1.0, 0.0, 0.0, 0.0, -1.0]], dtype=torch.float64)
    may = torch.nn.functional.one_hot(torch.tensor([2, 0]), 5).bool()
    loss = label_set_loss(logits, may, torch.ones(2, 5, dtype=torch.bool))
    assert float(loss) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, torch.tensor([2, 0]))))


def test_a_coarse_label_is_the_share_of_its_grades_by_hand():
    """Shares .1 .2 .3 .15 .25: positive of three has .4 of 1; bullish of two .4 of the .7 that are not neutral."""
    shares = torch.tensor([[0.1, 0.2, 0.3, 0.15, 0.25]] * 2, dtype=torch.float64)
    may = torch.tensor([[False, False, False, True, True]] * 2)
    among = torch.tensor([[True] * 5, [True, True, False, True, True]])
    losses = [float(label_set_loss(shares[:1].log(), may[:1], among[i : i + 1])) for i in range(2)]
    assert losses == pytest.approx([-np.log(0.4), -np.log(0.4 / 0.7)])
    both = label_set_loss(shares.log(), may, among, torch.tensor([1.0, 3.0], dtype=torch.float64))
    assert float(both) == pytest.approx((losses[0] + 3.0 * losses[1]) / 4.0)


def test_a_binary_label_says_nothing_about_neutral():
    logits = torch.zeros(1, 5, requires_grad=True)
    among = torch.tensor([[True, True, False, True, True]])
    label_set_loss(logits, torch.tensor([[False, False, False, True, True]]), among).backward()
    assert logits.grad is not None
    assert float(logits.grad[0, 2]) == 0.0
    assert float(logits.grad[0, 3]) < 0.0 < float(logits.grad[0, 0])


@pytest.mark.parametrize("hidden", [0, 8])
def test_the_same_seed_gives_the_same_head_and_touches_no_other_stream(hidden):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = (SentimentHead(6, hidden=hidden, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(1), expected)
    x = torch.ones(2, 6)
    assert torch.equal(one(x), two(x))
    assert not torch.equal(one(x), other(x))
    assert one(x).shape == (2, 5)


def test_the_scaler_is_that_of_the_training_vectors_and_leaves_constants_alone():
    head = SentimentHead(2)
    head.fit_scaler(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    assert head.mean.tolist() == [2.0, 7.0]
    assert head.scale.tolist() == [1.0, 1.0]


def test_impossible_widths_are_refused():
    with pytest.raises(ConfigError):
        SentimentHead(0)
