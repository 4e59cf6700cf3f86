"""How often an A/B test of two equal versions claims a difference if somebody looks all the time: measured, not only proved."""

from __future__ import annotations

from cryptoalpha.core.seeds import stream
from cryptoalpha.lifecycle.rollout.ab import LEAST_FOR_ASYMPTOTIC, Kind, compare_binary, compare_values

LOOKS = sorted({round(10 * 1.12**power) for power in range(49)})
"""48 looks between 10 and 2,300 values per arm."""


def wrong_at_some_look(kind: Kind, run: int, *, seed: int, alpha: float = 0.05) -> tuple[bool, bool]:
    """Whether the always-valid and the fixed interval exclude the truth (no difference) at any look.

    Outcomes: hits of 10 % (binary), Beta(2, 5) (bounded), Student's t with 5 degrees of freedom (unbounded). The fixed interval is
    looked at from 100 values on only, so that it is not blamed for small samples.
    """
    random, size = stream(seed, "ab", kind, run), LOOKS[-1]
    if kind == "binary":
        control, treatment = (random.random((2, size)) < 0.1).astype(float)
    else:
        control, treatment = random.beta(2, 5, (2, size)) if kind == "bounded" else random.standard_t(5, (2, size))
    bounds = (0.0, 1.0) if kind == "bounded" else None
    always = fixed = False
    for n in LOOKS:
        if kind == "binary":
            hits = (int(control[:n].sum()), n), (int(treatment[:n].sum()), n)
            found = compare_binary("x", *hits, alpha=alpha, larger_is_better=True)
        else:
            values = control[:n].tolist(), treatment[:n].tolist()
            found = compare_values("x", *values, alpha=alpha, larger_is_better=True, bounds=bounds)
        always |= found.verdict != "open"
        fixed |= n >= LEAST_FOR_ASYMPTOTIC and not found.fixed[0] <= 0.0 <= found.fixed[1]
    return always, fixed
