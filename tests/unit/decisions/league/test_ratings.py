"""Elo, estimates and exploitability: closed forms and a slower second way."""

from __future__ import annotations

from math import log10

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.league.cournot_game import Cournot, best_responses
from cryptoalpha.decisions.league.ratings import PAIR_GAMES, Estimate, elo


def test_two_players_differ_by_the_log_odds_of_their_score():
    ratings = elo(np.array([[0.5, 0.75], [0.25, 0.5]]))
    won = PAIR_GAMES * 0.75 + 0.5
    assert ratings[0] - ratings[1] == pytest.approx(400.0 * log10(won / (PAIR_GAMES + 1 - won)))
    assert ratings.mean() == pytest.approx(1500.0)


def test_ratings_are_found_again_from_the_scores_they_imply():
    """At the ratings that explain every score exactly (draw included), nothing is left to gain."""
    truth = np.array([1620.0, 1500.0, 1440.0, 1440.0])
    chance = 1.0 / (1.0 + 10.0 ** ((truth[None, :] - truth[:, None]) / 400.0))
    scores = ((PAIR_GAMES + 1) * chance - 0.5) / PAIR_GAMES
    np.testing.assert_allclose(elo(scores), truth, atol=1e-6)


def test_a_cycle_has_no_best_and_a_clean_sheet_no_infinity():
    cycle = np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])
    np.testing.assert_allclose(elo(cycle), 1500.0)
    assert np.isfinite(elo(np.array([[0.5, 1.0], [0.0, 0.5]]))).all()
    np.testing.assert_allclose(elo(np.array([[0.5]])), 1500.0)
    with pytest.raises(ConfigError, match="sum to 1"):
        elo(np.array([[0.5, 0.9], [0.9, 0.5]]))


def test_an_estimate_is_mean_and_standard_error():
    found = Estimate.of(np.array([1.0, 3.0, 5.0, 7.0]))
    assert (found.mean, found.error) == (4.0, pytest.approx((20.0 / 3.0 / 4.0) ** 0.5))
    assert found.low == pytest.approx(4.0 - 1.96 * found.error)
    assert found.high > found.mean
    with pytest.raises(ConfigError, match="standard error"):
        Estimate.of(np.array([1.0]))


@pytest.mark.parametrize("players", [2, 3, 4])
def test_nothing_is_to_be_gained_at_nash_and_something_off_it(players):
    game = Cournot(players, grid=np.arange(61) / 60.0)  # 20, 15 and 12 sixtieths are on it
    pure = np.eye(61)
    at = round(60 * game.nash)
    assert game.exploitability(pure[at]) == pytest.approx(0.0, abs=1e-12)
    for other in (0, at - 1, at + 1, 60):
        assert game.exploitability(pure[other]) > 1e-5
    assert game.exploitability(np.full(61, 1 / 61)) > 0.05


def test_exploitability_is_what_enumeration_finds():
    """Three players, everything summed out over both others' choices."""
    game = Cournot(3, grid=np.linspace(0.0, 1.0, 6))
    shares = stream(0, "shares").dirichlet(np.ones(6))
    earned = np.zeros(6)
    for i, q in enumerate(game.grid):
        for j, a in enumerate(game.grid):
            for k, b in enumerate(game.grid):
                earned[i] += shares[j] * shares[k] * q * (1.0 - (q + a + b))
    assert game.exploitability(shares) == pytest.approx(earned.max() - shares @ earned)


@pytest.mark.parametrize(("players", "published"), [(2, 0.325), (3, 0.250), (5, 0.169)])
def test_answering_the_average_finds_nash(players, published):
    game = Cournot(players)
    average = best_responses(game, 400).mean()
    assert average == pytest.approx(published, abs=0.001)
    assert abs(average - game.nash) <= 0.025


@pytest.mark.parametrize("players", [3, 5])
def test_answering_the_latest_self_cycles(players):
    """The mutation: without the population's average, from three players on, monopoly follows ruin for ever."""
    chosen = best_responses(Cournot(players), 400, against="latest")
    np.testing.assert_array_equal(chosen[-6:], [0.5, 0.0] * 3 if chosen[-6] == 0.5 else [0.0, 0.5] * 3)
    assert np.abs(chosen[200:] - Cournot(players).nash).min() > 0.025
