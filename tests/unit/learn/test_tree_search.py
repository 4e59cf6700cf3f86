"""What a tree search promises: the same answer in any batch, what is legal, what is exact, and what its words mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.search import kernels, noise
from cryptoalpha.learn.search.batched_mcts import puct_weights
from cryptoalpha.learn.search.chance import EDGE
from cryptoalpha.learn.search.contract import Budget, LineStep, Outcomes, Roots, Rules, Step
from cryptoalpha.learn.search.gumbel import considered_visits
from cryptoalpha.learn.search.line import readable
from cryptoalpha.learn.search.plan import plan

A = 5


class Walk:
    """State: a number. Action a leads to 5·s + a + 1 (mod 4,096); priors, values and rewards are looked up in a fixed table."""

    actions = A

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.logits = rng.integers(-64, 65, (4096, A)).astype(np.float32) / 32
        self.values = rng.integers(-64, 65, 4096).astype(np.float32) / 64
        self.rewards = rng.integers(-64, 65, (4096, A)).astype(np.float32) / 128
        self.seen: list[np.ndarray] = []

    def evaluate(self, states: Any) -> tuple[Any, Any]:
        self.seen.append(states[:, 0].astype(int).copy())
        return self.logits[self.seen[-1]], self.values[self.seen[-1]]

    def step(self, states: Any, actions: Any) -> Step:
        before = states[:, 0].astype(int)
        after = (5 * before + actions + 1) % 4096
        n = len(after)
        return Step(after[:, None].astype(np.float32), self.rewards[before, actions], np.full(n, 0.5, np.float32), np.zeros(n, np.bool_))


class Chancy(Walk):
    """The same with two outcomes, s' and s' + 7, decided by the uniforms."""

    def __init__(self) -> None:
        super().__init__()
        self.uniforms: list[np.ndarray] = []

    def outcomes(self, states: Any, actions: Any, uniforms: Any) -> Outcomes:
        self.uniforms.append(uniforms.copy())
        before = states[:, 0].astype(int)
        after = (5 * before[:, None] + actions[:, None] + 1 + 7 * (uniforms > 0.5)) % 4096
        shape = after.shape
        return Outcomes(
            after[:, :, None].astype(np.float32),
            np.full(shape, 1 / shape[1]),
            self.rewards[before, actions],
            np.full(shape, 0.5),
            np.zeros(shape, np.bool_),
        )


class Bandit:
    """One decision: action a earns `rewards[a]`, and that is the end. `guess` is what the evaluator says of it."""

    def __init__(self, rewards: list[float], logits: list[float] | None = None, guess: float = 0.0) -> None:
        self.guess = guess
        self.actions = len(rewards)
        self.rewards = np.array(rewards, np.float32)
        self.logits = np.zeros(len(rewards), np.float32) if logits is None else np.array(logits, np.float32)

    def evaluate(self, states: Any) -> tuple[Any, Any]:
        return np.tile(self.logits, (len(states), 1)), np.full(len(states), self.guess, np.float32)

    def step(self, states: Any, actions: Any) -> Step:
        n = len(actions)
        return Step(states.copy(), self.rewards[actions], np.ones(n, np.float32), np.ones(n, np.bool_))


def states(*numbers: int) -> Any:
    return np.array(numbers, np.float32)[:, None]


RULES = [Rules("puct"), Rules("gumbel"), Rules("gumbel", gumbel_scale=1.0), Rules("puct", dirichlet_fraction=0.25, temperature=1.0)]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("world", [Walk, Chancy])
def test_a_root_is_planned_alike_in_any_batch(rules, world):
    names = tuple(f"episode {i}" for i in range(16))
    starts = states(*range(100, 116))
    many = plan(Roots(starts, names=names), world(), Budget(60, outcomes=(3, 2)), seed=3, rules=rules)
    for row in (0, 7, 15):
        one = plan(Roots(starts[[row]], names=names[row : row + 1]), world(), Budget(60, outcomes=(3, 2)), seed=3, rules=rules)
        for part in ("action", "policy_target", "q", "value", "visits"):
            np.testing.assert_array_equal(getattr(one, part)[0], getattr(many, part)[row])
        assert one.lines[0] == many.lines[row]


@pytest.mark.parametrize("rules", RULES)
def test_the_same_seed_gives_the_same_plan_and_another_seed_another_where_there_is_chance(rules):
    def run(seed: int) -> Any:
        return plan(Roots(states(1, 2, 3)), Chancy(), Budget(50, outcomes=(4,)), seed=seed, rules=rules)

    first, again, other = run(1), run(1), run(2)
    np.testing.assert_array_equal(first.visits, again.visits)
    np.testing.assert_array_equal(first.q, again.q)
    assert (first.value != other.value).any()


def test_without_noise_and_chance_the_seed_does_not_matter():
    plans = [plan(Roots(states(1, 2)), Walk(), Budget(40), seed=seed) for seed in (0, 1)]
    np.testing.assert_array_equal(plans[0].q, plans[1].q)


@pytest.mark.parametrize("rules", RULES)
def test_an_illegal_action_is_never_tried_and_never_played(rules):
    legal = np.array([[True, False, True, False, False], [False, False, False, True, False]])
    result = plan(Roots(states(1, 2), legal=legal), Walk(), Budget(30), seed=0, rules=rules)
    assert not result.visits[~legal].any()
    assert (result.q[~legal] == -np.inf).all()
    assert (result.policy_target[~legal] == 0).all()
    assert result.action[1] == 3
    assert result.visits.sum(axis=1).tolist() == [30, 30]
    np.testing.assert_allclose(result.policy_target.sum(axis=1), 1)


def test_a_terminal_state_is_worth_its_reward_and_nothing_more():
    """Only the roots are evaluated; the value is the running mean of the rewards and the first guess, 0."""
    model = Bandit([0.25, -1.0, 1.0])
    result = plan(Roots(states(0)), model, Budget(20), seed=0, rules=Rules("puct"))
    assert result.stats.evaluated_states == 1
    np.testing.assert_allclose(result.q[0], [0.25, -1.0, 1.0])
    assert result.value[0] == pytest.approx((result.visits[0] @ model.rewards) / 21)
    assert result.action[0] == 2
    assert result.stats.depth == 1


def test_the_first_puct_visits_are_those_worked_out_by_hand():
    """Two even actions, guess 0, rewards 1 and 0. Simulation 1: tie, lowest action: Q0 = 1, V = ½. Simulation 2: lo, hi = ½, 1, so
    action 0 scores 1 + .5·√2·1.25/2 > .5·√2·1.25 = .88: action 0 again. It stays ahead until 1 + u/(n+1) < u, u = .625·√(n+1):
    at n = 4 u = 1.40, score 1.28: the fifth simulation tries action 1."""
    model = Bandit([1.0, 0.0])
    visits = [plan(Roots(states(0)), model, Budget(n), seed=0, rules=Rules("puct")).visits[0].tolist() for n in (1, 2, 4, 5)]
    assert visits == [[1, 0], [2, 0], [4, 0], [4, 1]]


def test_first_play_reduction_lets_an_unvisited_action_start_near_its_parent():
    """Three losing actions, P = .67, .24, .09. After action 0: Q0 = −1, V = −½, so action 0 scores 0 + 1.25·√2·.67/2 = .59 and action 1
    0 + 1.25·√2·.24 = .43; with a reduction of 0 it starts at (−½ + 1)/½ = 1 and comes first, as does action 2 thereafter."""
    model = Bandit([-1.0, -1.0, -1.0], [1.0, 0.0, -1.0])
    plain = plan(Roots(states(0)), model, Budget(3), seed=0, rules=Rules("puct"))
    fresh = plan(Roots(states(0)), model, Budget(3), seed=0, rules=Rules("puct", first_play_reduction=0.0))
    assert plain.visits[0].tolist() == [2, 1, 0]
    assert fresh.visits[0].tolist() == [1, 1, 1]


def test_sequential_halving_spends_its_visits_as_in_the_paper():
    """8 actions, 24 simulations, 3 rounds of 8: one pass over 8, two over 4, four over 2."""
    assert considered_visits(8, 24) == (0,) * 8 + (1,) * 4 + (2,) * 4 + (3, 3, 4, 4, 5, 5, 6, 6)
    assert considered_visits(1, 3) == (0, 1, 2)
    model = Bandit([0.0] * 8, [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    result = plan(Roots(states(0)), model, Budget(24), seed=0, rules=Rules("gumbel"))
    assert result.visits[0].tolist() == [7, 7, 3, 3, 1, 1, 1, 1]


def test_a_gumbel_root_considers_only_as_many_actions_as_it_may():
    result = plan(Roots(states(0)), Bandit([0.0] * 6, [0, 1, 2, 3, 4, 5]), Budget(30), seed=0, rules=Rules("gumbel", considered=3))
    assert (result.visits[0] > 0).tolist() == [False, False, False, True, True, True]


def test_the_gumbel_target_is_the_softmax_of_logits_and_scaled_values():
    logits, rewards = np.array([0.5, 0.0, -0.5]), np.array([0.0, 0.5, 1.0])
    result = plan(Roots(states(0)), Bandit(list(rewards), list(logits)), Budget(12), seed=0, rules=Rules("gumbel"))
    raised = logits + 0.1 * (50 + result.visits.max()) * rewards  # the rewards span 0 to 1 already
    np.testing.assert_allclose(result.policy_target[0], np.exp(raised) / np.exp(raised).sum(), rtol=1e-5)


def test_an_action_never_visited_has_the_value_that_completes_it():
    """[v + ΣN·(Σ P·Q over visited / Σ P of visited)]/(1 + ΣN) with v = 0, two visits, even priors, Q = 1 and ½."""
    result = plan(Roots(states(0)), Bandit([1.0, 0.5, 9.0], [0.0, 0.0, -1.0]), Budget(2), seed=0, rules=Rules("gumbel", considered=2))
    assert result.visits[0].tolist() == [1, 1, 0]
    assert result.q[0, 2] == pytest.approx((0 + 2 * 0.75) / 3)


def test_an_illegal_action_widens_the_range_of_values_as_in_mctx():
    """Both legal actions tried, Q = 0 and 1, the guess 10: the mixed value (10 + 2·½)/3 = 11/3 belongs to the illegal action and sets the
    top of the range, so that σ of the better one is .1·51·(1/(11/3))."""
    legal = np.array([[True, True, False]])
    result = plan(Roots(states(0), legal=legal), Bandit([0.0, 1.0, 0.0], guess=10.0), Budget(2), seed=0)
    assert result.visits[0].tolist() == [1, 1, 0]
    raised = np.exp(0.1 * 51 * 3 / 11)
    np.testing.assert_allclose(result.policy_target[0], [1 / (1 + raised), raised / (1 + raised), 0], rtol=1e-5)


def test_ties_between_actions_go_to_the_lowest():
    for rules, fourth in ((Rules("puct"), [2, 1, 1]), (Rules("gumbel"), [2, 1, 1])):
        result = plan(Roots(states(0)), Bandit([0.0] * 3), Budget(4), seed=0, rules=rules)
        assert result.visits[0].tolist() == fourth
        assert result.action[0] == 0


def test_the_first_pick_of_a_noisy_gumbel_root_is_distributed_as_its_prior():
    """argmax of logits + Gumbel noise is a draw from their softmax; negated noise gives .64, .31, .06."""
    count, logits = 20_000, np.log([0.6, 0.3, 0.1])
    result = plan(
        Roots(np.repeat(states(1), count, axis=0)), Bandit([0.0] * 3, list(logits)), Budget(1), seed=0, rules=Rules(gumbel_scale=1.0)
    )
    np.testing.assert_allclose(result.visits.sum(axis=0) / count, [0.6, 0.3, 0.1], atol=4 * 0.5 / count**0.5)


def test_of_equal_scores_after_a_first_visit_the_lowest_action_wins_whatever_was_tried_before():
    """The prior weighs nothing but opens with action 2, as the likeliest; all scores are 0 thereafter. Then 0 against 2, the one opened
    before: 0, the lowest; and then 0 every time, against 1, which is still to be opened."""
    model = Bandit([0.0] * 3, [0.0, 0.0, 1.0])
    result = plan(Roots(states(0)), model, Budget(8), seed=0, rules=Rules("puct", pb_c_init=0.0, pb_c_base=1e30, first_play_reduction=0.0))
    assert result.visits[0].tolist() == [7, 0, 1]


def test_the_weight_of_the_prior_grows_with_visits_by_the_second_constant():
    """√n·(c1 + ln((n + c2 + 1)/c2)) with c2 = 1: a base this small turns the search to the prior, one this large leaves it to c1."""
    np.testing.assert_allclose(
        puct_weights(Rules("puct", pb_c_init=1.25, pb_c_base=1.0), 4), [n**0.5 * (1.25 + np.log(n + 2)) for n in range(5)], rtol=1e-6
    )
    model = Bandit([1.0, 0.0])
    visits = [
        plan(Roots(states(0)), model, Budget(4), seed=0, rules=Rules("puct", pb_c_base=base)).visits[0].tolist() for base in (1.0, 1e9)
    ]
    assert visits[1] == [4, 0]
    assert visits[0][1] >= 1


def test_dirichlet_noise_moves_the_prior_only_where_rules_ask_for_it():
    quiet = plan(Roots(states(1)), Walk(), Budget(40), seed=0, rules=Rules("puct"))
    noisy = plan(Roots(states(1)), Walk(), Budget(40), seed=0, rules=Rules("puct", dirichlet_fraction=0.5))
    gumbel = plan(Roots(states(1)), Walk(), Budget(40), seed=0, rules=Rules("gumbel", dirichlet_fraction=0.5))
    assert (quiet.visits != noisy.visits).any()
    np.testing.assert_array_equal(gumbel.visits, plan(Roots(states(1)), Walk(), Budget(40), seed=0, rules=Rules("gumbel")).visits)


def test_all_noise_gives_priors_that_sum_to_one_over_the_legal_actions():
    legal = np.array([[True, True, False, True, False]])
    roots, names = Roots(np.repeat(states(1), 300, axis=0), legal=np.repeat(legal, 300, axis=0)), range(3)
    result = plan(roots, Walk(), Budget(1), seed=0, rules=Rules("puct", dirichlet_fraction=1.0, dirichlet_alpha=1.0))
    tried = np.bincount(result.action, minlength=A)
    assert [int(tried[a]) for a in (2, 4)] == [0, 0]
    assert all(tried[a] > 60 for a in (0, 1, 3)), names  # even chances: 100 each, standard deviation 8


def test_temperature_plays_actions_by_their_visits():
    roots, model = Roots(np.repeat(states(1), 2000, axis=0)), Bandit([0.0, 0.0, 0.0], [1.0, 0.5, 0.0])
    shares = {}
    for temperature in (1.0, 0.5):
        result = plan(roots, model, Budget(24), seed=0, rules=Rules("puct", temperature=temperature))
        powers = result.visits[0].astype(float) ** (1 / temperature)
        shares[temperature] = np.bincount(result.action, minlength=3) / 2000, powers / powers.sum()
        np.testing.assert_allclose(*shares[temperature], atol=4 * 0.5 / 2000**0.5)
        np.testing.assert_allclose(result.policy_target[0], result.visits[0] / 24)  # the target is not sharpened
    assert shares[0.5][0].max() > shares[1.0][0].max() + 0.05


def test_at_a_very_high_temperature_all_that_was_visited_is_equally_likely_and_nothing_else_is_played():
    roots, legal = Roots(np.repeat(states(1), 400, axis=0), legal=np.tile([False, True, False, True], (400, 1))), [1, 3]
    model = Bandit([0.0] * 4, [9.0, 2.0, 9.0, 0.0])
    for temperature in (1e300, 1e-300):
        result = plan(roots, model, Budget(20), seed=0, rules=Rules("puct", temperature=temperature))
        played = np.bincount(result.action, minlength=4)
        assert played[legal].sum() == 400
        assert (result.visits[0, legal] > 0).all()
        assert (played[3] > 150) == (temperature > 1)  # even chances: 200, standard deviation 10


def test_at_temperature_zero_the_most_visited_action_is_played_and_of_equals_the_better():
    result = plan(Roots(states(*range(200))), Walk(), Budget(2), seed=0, rules=Rules("puct"))
    ties = 0
    for visits, q, action in zip(result.visits, result.q, result.action, strict=True):
        best = np.flatnonzero(visits == visits.max())
        ties += len(best) > 1
        assert action == best[np.argmax(q[best])]
    assert ties > 10


def test_uniforms_are_stratified_in_random_order_and_shared_by_sibling_actions():
    model = Chancy()
    plan(Roots(states(1)), model, Budget(400, outcomes=(4,)), seed=0, rules=Rules("puct"))
    rows = [tuple(row) for batch in model.uniforms for row in batch]
    for row in set(rows):
        assert 0 < min(row) < max(row) < 1
        assert sorted(int(4 * u) for u in row) == [0, 1, 2, 3]  # one per stratum
    first_strata = np.bincount([int(4 * row[0]) for row in set(rows)], minlength=4)
    assert len(set(rows)) < len(rows)  # siblings, and edges asked again
    assert first_strata.min() > len(set(rows)) / 8  # no tail comes first everywhere


def test_outcomes_are_visited_in_proportion_to_their_weights():
    class Weighted(Chancy):
        def outcomes(self, states: Any, actions: Any, uniforms: Any) -> Outcomes:
            fan = super().outcomes(states, actions, np.linspace(0.1, 0.9, 3)[None, :].repeat(len(states), axis=0))
            following = 1000 + np.arange(3)[None, :, None].repeat(len(states), axis=0).astype(np.float32)
            return Outcomes(following, np.array([[0.6, 0.3, 0.1]]).repeat(len(states), axis=0), fan.rewards, fan.discounts, fan.terminal)

    result = plan(Roots(states(1)), Weighted(), Budget(200, outcomes=(3,), max_depth=1), seed=0, rules=Rules("puct"))
    nodes = result.trees.arrays.nodes[0, : int(result.trees.used[0])]
    for action, visits in enumerate(result.visits[0]):
        for outcome, weight in enumerate((0.6, 0.3, 0.1)):
            seen = nodes[(nodes[:, 1] == 0) & (nodes[:, 3] == action) & (nodes[:, 4] == outcome), 0].sum()
            assert abs(seen - weight * visits) < 1


def test_a_depth_limit_is_kept_and_all_simulations_are_spent():
    result = plan(Roots(states(1, 2)), Walk(), Budget(300, max_depth=2), seed=0, rules=Rules("puct"))
    assert result.stats.depth == 2
    assert result.visits.sum(axis=1).tolist() == [300, 300]
    assert result.stats.evaluated_states == result.trees.used.sum() <= 2 * (1 + A + A * A)


def test_states_are_asked_for_once_each_and_together():
    model = Walk()
    result = plan(Roots(states(1, 2, 3)), model, Budget(20), seed=0, rules=Rules("puct"))
    assert [len(batch) for batch in model.seen] == [3] * 21
    assert result.stats.evaluated_states == 63


def test_each_kernel_is_compiled_once():
    """Another type of argument would compile it again, for seconds, in the middle of a decision."""
    asked = (kernels.descend, kernels.grow, kernels.trace)
    plan(Roots(states(1, 2)), Walk(), Budget(5), seed=0)
    usual = [len(kernel.signatures) for kernel in asked]  # a world that simulates itself calls them from compiled code, by one more each
    model = Walk()
    model.values = model.values.astype(np.float64)
    model.logits = np.asfortranarray(model.logits)
    model.logits.flags.writeable = False
    for rules in RULES:
        plan(Roots(states(1, 2)), model, Budget(5), seed=0, rules=rules)
        plan(Roots([[1.0]]), Chancy(), Budget(5), seed=0, rules=rules)
    assert [len(kernel.signatures) for kernel in asked] == usual
    assert max(usual) <= 2


def test_the_line_follows_what_was_visited_most_and_can_be_read():
    result = plan(Roots(states(1)), Walk(), Budget(100), seed=0, rules=Rules("puct"))
    line = result.lines[0]
    assert line[0].action == result.action[0]
    assert line[0].visits == result.visits[0, line[0].action]
    assert line[0].value == pytest.approx(result.q[0, line[0].action])
    assert [step.visits for step in line] == sorted((step.visits for step in line), reverse=True)
    assert readable(line[:1], "abcde").startswith(f"1. {'abcde'[line[0].action]}: worth ")
    spoken = readable([LineStep(1, 2, 40, 0.25, 0.5), LineStep(0, 0, None, 0.5, -0.125)], ["sell", "buy"])
    assert spoken == "1. buy: worth +0.5, prior 25.0%, 40 visits; suppose outcome 2\n2. sell: worth -0.125, prior 50.0%"


def test_a_model_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="object is no model to plan with"):
        plan(Roots(states(1)), object(), Budget(5), seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("bits", "least", "most"), [(0, EDGE, 0.6), (2**64 - 1, 0.4, 1 - EDGE)])
def test_no_uniform_of_a_tree_is_nearer_to_the_ends_than_those_of_a_scenario_tree(monkeypatch, bits, least, most):
    """The key whose shift is the least or the largest there is: SplitMix64 run backwards."""
    z, whole = bits, 2**64
    for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9)):
        z = (z ^ (z >> shift) ^ (z >> 2 * shift)) * pow(factor, -1, whole) % whole
    key = ((z ^ (z >> 30) ^ (z >> 60)) - 0x9E3779B97F4A7C15) % whole
    monkeypatch.setattr(noise, "root_keys", lambda seed, roots, count: np.full(count, key, np.uint64))
    model = Chancy()
    plan(Roots(states(1)), model, Budget(1, outcomes=(2,)), seed=0, rules=Rules("puct"))
    uniforms = model.uniforms[0]
    assert uniforms.min() >= least
    assert uniforms.max() <= most
    assert least == uniforms.min() or most == uniforms.max()
