"""Write search_trees.json: root visits that mctx 0.0.71 finds in a world of hashed integers. Needs the peers (pyproject, group `peers`).

    python tests/golden/make_search_trees.py

A state is one 32-bit integer in two numbers of 16 bits; priors, values and rewards are hashes of it, multiples of 2^-24, so that NumPy and
JAX compute the same bits and no matrix is multiplied. mctx breaks PUCT ties with noise of 1e-7: of the candidates, only roots whose visits
are the same under four noise seeds are kept, so that a tree hangs on no near-tie. The test that reads the file runs without JAX.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

SIMULATIONS = 800
PATH = Path(__file__).with_name("search_trees.json")
CASES = [
    {"policy": policy, "actions": actions, "batch": batch, "discount": discount, "masked": masked}
    for policy in ("puct", "gumbel")
    for actions in (7, 21)
    for batch in (1, 16)
    for discount, masked in ((0.96875, False), (-1.0, False), (0.96875, True))
]


def mixed(x: Any, xp: Any) -> Any:
    """A bijection of 32 bits that looks random (Wellons' lowbias32)."""
    x = (x ^ (x >> xp.uint32(16))) * xp.uint32(0x7FEB352D)
    x = (x ^ (x >> xp.uint32(15))) * xp.uint32(0x846CA68B)
    return x ^ (x >> xp.uint32(16))


def unit(x: Any, xp: Any) -> Any:
    """A multiple of 2^-24 in [0, 1)."""
    return (mixed(x, xp) >> xp.uint32(8)).astype(xp.float32) * xp.float32(2**-24)


def pack(codes: Any, xp: Any) -> Any:
    """Integers `[n]` as states `[n, 2]`."""
    return xp.stack([(codes >> xp.uint32(16)).astype(xp.float32), (codes & xp.uint32(0xFFFF)).astype(xp.float32)], -1)


def unpack(states: Any, xp: Any) -> Any:
    """States `[n, 2]` as integers `[n]`."""
    return states[..., 0].astype(xp.uint32) * xp.uint32(65536) + states[..., 1].astype(xp.uint32)


def following(codes: Any, actions: Any, xp: Any) -> Any:
    """Where an action leads."""
    return mixed(codes * xp.uint32(747796405) + (actions.astype(xp.uint32) + xp.uint32(1)) * xp.uint32(2891336453), xp)


def guess(codes: Any, actions: int, xp: Any) -> tuple[Any, Any]:
    """Logits in [−2, 2) `[n, A]` and values in [−1, 1) `[n]`."""
    numbers = (xp.arange(actions).astype(xp.uint32) + xp.uint32(1)) * xp.uint32(0x9E3779B9)
    return unit(codes[..., None] + numbers, xp) * 4 - 2, unit(codes ^ xp.uint32(0x5BF03635), xp) * 2 - 1


def reward(codes: Any, xp: Any) -> Any:
    """What arriving in a state earns, in [−½, ½)."""
    return unit(codes ^ xp.uint32(0x27D4EB2F), xp) - xp.float32(0.5)


def candidates(actions: int, batch: int, masked: bool) -> tuple[Any, Any]:
    """Roots `[3·batch + 5]` and their legal actions."""
    rng = np.random.default_rng([actions, batch, masked])
    roots = rng.integers(0, 2**32, 3 * batch + 5, dtype=np.uint32)
    legal = rng.random((len(roots), actions)) < (0.6 if masked else 2.0)
    legal[np.arange(len(roots)), rng.integers(0, actions, len(roots))] = True
    return roots, legal


def mctx_policy(policy: str, actions: int) -> Any:
    """Jitted search: (roots, noise key, discount, illegal actions) → visits, actions, policy target, value."""
    import jax
    import jax.numpy as jnp
    import mctx

    def step(discount: Any, key: Any, action: Any, state: Any) -> tuple[Any, Any]:
        codes = following(unpack(state, jnp), action, jnp)
        logits, values = guess(codes, actions, jnp)
        earned = reward(codes, jnp)
        discounts = jnp.full_like(earned, discount)
        return mctx.RecurrentFnOutput(reward=earned, discount=discounts, prior_logits=logits, value=values), pack(codes, jnp)

    @jax.jit
    def search(codes: Any, key: Any, discount: Any, illegal: Any) -> tuple[Any, ...]:
        logits, values = guess(codes, actions, jnp)
        root = mctx.RootFnOutput(prior_logits=logits, value=values, embedding=pack(codes, jnp))
        if policy == "puct":
            out = mctx.muzero_policy(discount, key, root, step, SIMULATIONS, illegal, dirichlet_fraction=0.0)
        else:
            out = mctx.gumbel_muzero_policy(discount, key, root, step, SIMULATIONS, illegal, gumbel_scale=0.0)
        summary = out.search_tree.summary()
        return summary.visit_counts.astype(jnp.int32), out.action, out.action_weights, summary.value

    def run(codes: Any, discount: float, illegal: Any, seed: int) -> list[Any]:
        return [np.asarray(part) for part in search(codes, jax.random.PRNGKey(seed), discount, illegal)]

    return run


def solve(case: dict[str, Any], run: Any) -> dict[str, Any]:
    """The case with its roots and mctx's answers."""
    roots, legal = candidates(case["actions"], case["batch"], case["masked"])
    visits = [run(roots, case["discount"], ~legal, seed)[0] for seed in range(4)]
    stable = np.flatnonzero(np.all([found == visits[0] for found in visits], axis=(0, 2)))
    rows = stable[: case["batch"]]
    found, actions, _, values = run(roots[rows], case["discount"], ~legal[rows], 4)
    if not np.array_equal(found, visits[0][rows]):
        raise SystemExit("visits hang on the size of the batch")
    answers = {"visits": found.tolist(), "values": values.tolist()} | ({"best": actions.tolist()} if case["policy"] == "gumbel" else {})
    print({**case, "near-ties": f"{len(roots) - len(stable)} of {len(roots)}"}, flush=True)
    return {**case, "roots": roots[rows].tolist(), "legal": ["".join(map(str, row)) for row in legal[rows].astype(int).tolist()], **answers}


def main() -> None:
    runs = {(policy, actions): mctx_policy(policy, actions) for policy in ("puct", "gumbel") for actions in (7, 21)}
    cases = [solve(case, runs[case["policy"], case["actions"]]) for case in CASES]
    PATH.write_text("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
