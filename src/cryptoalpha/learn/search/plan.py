"""`plan`: one door to both planners, chosen by what the model is."""

from __future__ import annotations

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.search.contract import Budget, ChanceModel, MarketModel, PlanResult, Roots, Rules, StepModel
from cryptoalpha.learn.search.tree import Trees


def plan(
    roots: Roots,
    model: MarketModel | ChanceModel | StepModel,
    budget: Budget,
    *,
    seed: int,
    rules: Rules = Rules(),  # noqa: B008 — frozen
    earlier: Trees | None = None,
) -> PlanResult:
    """Decide what to do in each root.

    A `MarketModel` (the market moves by itself, the action only chooses a position) is planned exactly on a scenario tree; a
    `ChanceModel` or a `StepModel` by tree search.

    Args:
        rules: how tree search chooses; a scenario tree has no use for them.
        earlier: trees of an earlier plan, re-rooted on what has been observed since (`reuse.reroot`); tree search only. Without
            `roots.legal`, what the model called legal in a re-rooted state stands; a mask given to an earlier plan does not.

    Raises:
        ConfigError: arguments that do not fit together, a root's state that is not finite, or trees over `budget.memory_bytes`.
        ModelError: the model answered NaN, a wrong shape or a state without a legal action; the message names the root.
    """
    if isinstance(model, MarketModel):
        from cryptoalpha.learn.search.scenario_dp import plan_scenarios

        if earlier is not None:
            raise ConfigError("a scenario tree cannot be continued: it is drawn anew from the observed state", hint="leave `earlier` out")
        return plan_scenarios(roots, model, budget, seed=seed)
    if isinstance(model, ChanceModel | StepModel):
        from cryptoalpha.learn.search.batched_mcts import plan_tree

        return plan_tree(roots, model, budget, seed=seed, rules=rules, earlier=earlier)
    raise ConfigError(
        f"{type(model).__name__} is no model to plan with",
        hint="give it `actions`, `evaluate` and either `step` or `outcomes`, or all members of MarketModel",
    )
