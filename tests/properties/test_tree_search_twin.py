"""The tree search beside a plain one, written once more from the rules: dicts, one node at a time, every action looked at in order.

The worlds are hashes: random priors and values, illegal actions, terminal states, discounts of any sign, and with chance outcomes that
depend on the uniforms. The plain search repeats float32 where the rules say float32, so visits, values and lines must be the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.search.contract import Budget, Outcomes, Roots, Rules, Step
from cryptoalpha.learn.search.plan import plan

F = np.float32
WORD = (1 << 64) - 1


def mixed(key: int, place: int) -> int:
    """SplitMix64's number `place` after `key`, in whole numbers of Python."""
    z = (key + 0x9E3779B97F4A7C15 * (place + 1)) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def unit(code: int, *what: int) -> float:
    """A multiple of 2^-20 in [0, 1)."""
    for number in what:
        code = mixed(code, number)
    return (code >> 44) / 2**20


@dataclass(frozen=True)
class Hashed:
    """A world of integers below 2^24, which float32 holds exactly."""

    actions: int
    illegal: float
    ending: float
    discount: float
    flat: bool
    """All priors and values equal: every choice is a tie."""

    def code(self, before: int, action: int, luck: int) -> int:
        return mixed(mixed(before, action), luck) >> 40

    def guess(self, code: int) -> tuple[list[float], float]:
        if self.flat:
            return [0.0] * self.actions, 0.0
        return [4 * unit(code, 1, a) - 2 for a in range(self.actions)], 2 * unit(code, 2) - 1

    def legal(self, code: int) -> list[bool]:
        sure = int(unit(code, 3) * self.actions)
        return [a == sure or unit(code, 4, a) >= self.illegal for a in range(self.actions)]

    def ends(self, code: int) -> bool:
        return unit(code, 5) < self.ending

    def earned(self, code: int, action: int) -> float:
        return unit(code, 6, action) - 0.5

    def gamma(self, code: int) -> float:
        return self.discount * (1.0 if self.flat else 0.5 + unit(code, 7) / 2)

    def after(self, code: int, action: int, uniforms: list[float]) -> tuple[list[int], list[float]]:
        """Outcomes and their weights: a pure function of the uniforms."""
        raw = [F(1.0) if self.flat else F(0.25 + unit(code, 8, action, int(u * 1000))) for u in uniforms]
        total = sum(float(w) for w in raw)
        return [self.code(code, action, int(u * 2**30)) for u in uniforms], [float(F(float(w) / total)) for w in raw]


class Asked:
    """The hashed world in arrays. `lookup` remembers which states were given to the evaluator."""

    def __init__(self, world: Hashed) -> None:
        self.world = world
        self.actions = world.actions
        self.lookup: list[int] = []

    def evaluate(self, states: Any) -> tuple[Any, Any]:
        codes = [int(state[0]) for state in states]
        self.lookup += codes
        guesses = [self.world.guess(code) for code in codes]
        return np.array([logits for logits, _ in guesses], F), np.array([value for _, value in guesses], F)


class Steps(Asked):
    def step(self, states: Any, actions: Any) -> Step:
        w = self.world
        before = [(int(s[0]), int(a)) for s, a in zip(states, actions, strict=True)]
        codes = [w.code(s, a, 0) for s, a in before]
        return Step(
            np.array(codes, F)[:, None],
            np.array([w.earned(*pair) for pair in before]),
            np.array([w.gamma(code) for code in codes]),
            np.array([w.ends(code) for code in codes]),
            np.array([w.legal(code) for code in codes]),
        )


class Chances(Asked):
    def outcomes(self, states: Any, actions: Any, uniforms: Any) -> Outcomes:
        w = self.world
        before = [(int(s[0]), int(a)) for s, a in zip(states, actions, strict=True)]
        fans = [w.after(*pair, list(u)) for pair, u in zip(before, uniforms, strict=True)]
        return Outcomes(
            np.array([codes for codes, _ in fans], F)[:, :, None],
            np.array([weights for _, weights in fans]),
            np.array([w.earned(*pair) for pair in before]),
            np.array([[w.gamma(code) for code in codes] for codes, _ in fans]),
            np.array([[w.ends(code) for code in codes] for codes, _ in fans]),
            np.array([[w.legal(code) for code in codes] for codes, _ in fans]),
        )


def uniforms_of(key: int, m: int) -> list[float]:
    shift = ((mixed(key, 0) >> 11) + 0.5) / 2**53
    out = [min(max((j + shift) / m, 2**-24), 1 - 2**-24) for j in range(m)]
    for j in range(m - 1, 0, -1):
        other = mixed(key, 1 + j) % (j + 1)
        out[j], out[other] = out[other], out[j]
    return out


class Plain:
    """One tree, in dicts."""

    def __init__(self, world: Hashed, chance: bool, budget: Budget, rules: Rules, name: str | int) -> None:
        self.world, self.chance, self.budget, self.rules = world, chance, budget, rules
        self.key = int(stream(0, "search", "chance", name).integers(2**64, dtype=np.uint64)) if chance else 0

    def born(self, code: int, depth: int, key: int, ends: bool) -> dict[str, Any]:
        node = {"code": code, "depth": depth, "key": key, "ends": ends, "visits": 1, "edges": {}, "raw": F(0)}
        if not ends:
            logits, value = self.world.guess(code)
            legal = self.legal if depth == 0 else self.world.legal(code)
            allowed = [a for a in range(self.world.actions) if legal[a]]
            top = max(F(logits[a]) for a in allowed)
            weights = {a: np.exp(F(logits[a]) - top) for a in allowed}
            total = F(0)
            for a in allowed:
                total += weights[a]
            node["prior"] = {a: weights[a] / total for a in allowed}
            node["logit"] = {a: F(logits[a]) for a in allowed}
            node["raw"] = F(value)
        node["mean"] = node["raw"]
        return node

    def search(self, code: int, legal: list[bool]) -> dict[str, Any]:
        self.legal = legal
        root = self.born(code, 0, self.key, False)
        for number in range(self.budget.simulations):
            self.simulate(root, number)
        return root

    def simulate(self, root: dict[str, Any], number: int) -> None:
        node, path = root, []
        while True:
            action = self.choose(node, number)
            fresh = action not in node["edges"]
            if fresh:
                node["edges"][action] = self.open(node, action)
            edge = node["edges"][action]
            outcome = self.draw(node, edge)
            new = outcome not in edge["children"]
            if new:
                follow = edge["codes"][outcome]
                key = mixed(mixed(node["key"], (1 << 40) + action), outcome) if self.chance else 0
                edge["children"][outcome] = self.born(follow, node["depth"] + 1, key, self.world.ends(follow))
            child = edge["children"][outcome]
            path.append((node, edge, child))
            limit = self.budget.max_depth
            if new or child["ends"] or (limit is not None and child["depth"] >= limit):
                break
            node = child
        if not new:
            child["visits"] += 1
        g = child["raw"]
        for parent, edge, reached in reversed(path):
            reward, discount = F(edge["reward"]), F(self.world.gamma(reached["code"]))
            g = reward + discount * g
            parent["mean"] = (parent["mean"] * F(parent["visits"]) + g) / (F(parent["visits"]) + F(1))
            parent["visits"] += 1
            if self.chance:
                edge["q"] = (edge["q"] * F(edge["n"]) + g) / (F(edge["n"]) + F(1))
            else:
                edge["q"] = reward + discount * reached["mean"]
            edge["n"] += 1

    def open(self, node: dict[str, Any], action: int) -> dict[str, Any]:
        edge: dict[str, Any] = {"n": 0, "q": F(0), "children": {}, "reward": self.world.earned(node["code"], action)}
        if self.chance:
            fans = self.budget.outcomes
            m = fans[min(node["depth"], len(fans) - 1)]
            edge["codes"], edge["weights"] = self.world.after(node["code"], action, uniforms_of(node["key"], m))
        else:
            edge["codes"], edge["weights"] = [self.world.code(node["code"], action, 0)], [1.0]
        return edge

    def draw(self, node: dict[str, Any], edge: dict[str, Any]) -> int:
        def behind(j: int) -> tuple[float, int]:
            seen = edge["children"][j]["visits"] if j in edge["children"] else 0
            return F(edge["weights"][j]) * F(edge["n"] + 1) - F(seen), mixed(node["key"], (1 << 20) + j)

        return max(range(len(edge["weights"])), key=behind)

    def choose(self, node: dict[str, Any], number: int) -> int:
        if self.rules.root == "puct":
            return self.puct(node)
        return self.halving(node, number) if node["depth"] == 0 else self.inner(node)

    def puct(self, node: dict[str, Any]) -> int:
        edges, mean, reduction = node["edges"], node["mean"], self.rules.first_play_reduction
        low, high = min([mean, *(e["q"] for e in edges.values())]), max([mean, *(e["q"] for e in edges.values())])
        span = max(high - low, F(1e-8))
        n, base = F(node["visits"]), F(self.rules.pb_c_base)
        weight = np.sqrt(n) * (F(self.rules.pb_c_init) + np.log((n + base + F(1)) / base))

        def score(a: int) -> float:
            if a in edges:
                return (edges[a]["q"] - low) / span + weight * node["prior"][a] / (F(edges[a]["n"]) + F(1))
            fresh = F(0) if reduction is None else max(F(0), (mean - low) / span - F(reduction))
            return fresh + weight * node["prior"][a]

        return max(node["prior"], key=lambda a: (score(a), -a))

    def scaled(self, node: dict[str, Any]) -> dict[int, Any]:
        """σ(Q̂) of every legal action, in float64."""
        edges = node["edges"]
        total, mass = sum(e["n"] for e in edges.values()), sum(float(node["prior"][a]) for a in edges)
        weighted = sum(float(node["prior"][a]) * float(e["q"]) for a, e in edges.items()) / mass if edges else 0.0
        mixed_value = (float(node["raw"]) + total * weighted) / (total + 1)
        completed = {a: float(edges[a]["q"]) if a in edges else mixed_value for a in node["prior"]}
        everything = [*completed.values(), *([mixed_value] if len(edges) < self.world.actions else [])]
        low, span = min(everything), max(max(everything) - min(everything), 1e-8)
        most = max((e["n"] for e in edges.values()), default=0)
        return {a: 0.1 * (50 + most) * (q - low) / span for a, q in completed.items()}

    def inner(self, node: dict[str, Any]) -> int:
        sigma = self.scaled(node)
        raised = {a: float(node["logit"][a]) + sigma[a] for a in sigma}
        top = max(raised.values())
        whole = sum(np.exp(x - top) for x in raised.values())
        visits = {a: node["edges"][a]["n"] if a in node["edges"] else 0 for a in sigma}
        share = {a: np.exp(raised[a] - top) / whole - visits[a] / (1 + sum(visits.values())) for a in sigma}
        return max(share, key=lambda a: (round(share[a], 6), -a))

    def halving(self, node: dict[str, Any], number: int) -> int:
        legal, n = len(node["prior"]), self.budget.simulations
        m = min(self.rules.considered, legal)
        plan_of_visits: list[int] = []
        done, k = 0, m
        if m <= 1:
            plan_of_visits = list(range(n))
        while len(plan_of_visits) < n:
            for _ in range(max(1, int(n / (np.ceil(np.log2(m)) * k)))):
                plan_of_visits += [done] * k
                done += 1
            k = max(2, k // 2)
        visits = {a: node["edges"][a]["n"] if a in node["edges"] else 0 for a in node["prior"]}
        sigma = self.scaled(node)
        able = [a for a in visits if visits[a] == plan_of_visits[number]]
        return max(able, key=lambda a: (round(float(node["logit"][a]) + sigma[a], 5), -a))


worlds = st.builds(
    Hashed,
    actions=st.integers(1, 6),
    illegal=st.sampled_from([0.0, 0.4]),
    ending=st.sampled_from([0.0, 0.15, 0.5]),
    discount=st.sampled_from([1.0, 0.9, -1.0, 0.0]),
    flat=st.just(False),
)


def compare(world: Hashed, chance: bool, budget: Budget, rules: Rules, codes: list[int]) -> None:
    model = Chances(world) if chance else Steps(world)
    legal = [world.legal(code) for code in codes]
    result = plan(Roots(np.array(codes, F)[:, None], legal=np.array(legal)), model, budget, seed=0, rules=rules)
    plain = [Plain(world, chance, budget, rules, row).search(code, legal[row]) for row, code in enumerate(codes)]
    exactly = {"rtol": 1e-4, "atol": 1e-5}
    for row, root in enumerate(plain):
        expected = [root["edges"][a]["n"] if a in root["edges"] else 0 for a in range(world.actions)]
        assert result.visits[row].tolist() == expected
        assert result.value[row] == pytest.approx(float(root["mean"]), abs=1e-5)
        for a, edge in root["edges"].items():
            np.testing.assert_allclose(result.q[row, a], edge["q"], **exactly)
        assert not result.lines[row] or result.lines[row][0].action == result.action[row]
    assert not any(world.ends(code) for code in model.lookup[len(codes) :])  # a terminal state is never evaluated


@settings(max_examples=25, deadline=None)
@given(world=worlds, first=st.integers(0, 2**20), simulations=st.integers(1, 60), reduction=st.sampled_from([None, 0.0, 0.3]))
def test_puct_visits_equal_the_plain_search(world, first, simulations, reduction):
    compare(world, False, Budget(simulations), Rules("puct", first_play_reduction=reduction), [first, first + 1, first + 2])


@settings(max_examples=25, deadline=None)
@given(world=worlds, first=st.integers(0, 2**20), simulations=st.integers(1, 60), considered=st.sampled_from([1, 3, 16]))
def test_gumbel_visits_equal_the_plain_search(world, first, simulations, considered):
    compare(world, False, Budget(simulations), Rules("gumbel", considered=considered), [first, first + 1, first + 2])


@settings(max_examples=25, deadline=None)
@given(
    world=worlds,
    first=st.integers(0, 2**20),
    simulations=st.integers(1, 60),
    outcomes=st.sampled_from([(1,), (3,), (4, 2), (2, 5, 3)]),
    root=st.sampled_from(["puct", "gumbel"]),
)
def test_visits_with_chance_equal_the_plain_search(world, first, simulations, outcomes, root):
    compare(world, True, Budget(simulations, outcomes=outcomes), Rules(root), [first, first + 1])


@settings(max_examples=15, deadline=None)
@given(world=worlds, first=st.integers(0, 2**20), depth=st.integers(1, 4), chance=st.booleans())
def test_a_depth_limit_holds(world, first, depth, chance):
    compare(world, chance, Budget(40, outcomes=(3, 2), max_depth=depth), Rules("puct"), [first])


@pytest.mark.parametrize("root", ["puct", "gumbel"])
@pytest.mark.parametrize("chance", [False, True])
def test_ties_are_resolved_alike_where_everything_is_equal(root, chance):
    world = Hashed(actions=5, illegal=0.3, ending=0.2, discount=0.5, flat=True)
    compare(world, chance, Budget(50, outcomes=(4, 3)), Rules(root), [7, 8, 9])
