"""The promotion gate: every question in turn, and a report that says which one refused.

    report = promotion_gate(version, registry.champion(version.line), checks, config, now=clock.now)
    registry.report(version.id, report.as_dict())
    report.require()

The order is that of `values.GATES`. With `stop_at_first` what comes after a refusal of a required gate is not asked. The holdout is
looked at only if every other required gate has passed, whatever `stop_at_first` says: a look cannot be taken back.
"""

from __future__ import annotations

from collections.abc import Callable
from math import nan

from cryptoalpha.core.errors import CryptoAlphaError
from cryptoalpha.lifecycle.gates.config import GateConfig
from cryptoalpha.lifecycle.gates.evidence import Checks
from cryptoalpha.lifecycle.gates.hearing import Hearing
from cryptoalpha.lifecycle.gates.judges import JUDGES
from cryptoalpha.lifecycle.gates.values import GATES, Contender, GateName, GateReport, GateResult

Tell = Callable[[int, int, str], None]
"""`tell(done, total, what)`."""


def promotion_gate(
    candidate: Contender,
    champion: Contender | None,
    checks: Checks,
    config: GateConfig,
    *,
    now: Callable[[], int],
    seed: int = 0,
    tell: Tell | None = None,
) -> GateReport:
    """Judge a candidate.

    Args:
        champion: whom it wants to replace; None if nobody holds the line.
        checks: bring the evidence.
        now: UTC ns.
        seed: of the bootstraps.
        tell: told before each gate.

    Returns:
        A report with every gate in it, whether asked or not.
    """
    hearing = Hearing(candidate, champion, checks, config, seed)
    results: list[GateResult] = []
    for place, name in enumerate(GATES):
        required = name in config.required
        refused = [result.name for result in results if result.required and result.passed is not True]
        if refused and (config.stop_at_first or name == "holdout"):
            said = "left untouched" if name == "holdout" else "not asked"
            results.append(_unjudged(name, f"{said}: {refused[0]} had refused", required=required))
            continue
        if name == "holdout" and not required:
            results.append(_unjudged(name, "left untouched: it is not required", required=False))
            continue
        if tell is not None:
            tell(place, len(GATES), name)
        results.append(_asked(hearing, name, required=required))
    return GateReport(candidate.id, candidate.line, None if champion is None else champion.id, now(), hearing.data, tuple(results))


def _asked(hearing: Hearing, name: GateName, *, required: bool) -> GateResult:
    try:
        found = JUDGES[name](hearing)
    except CryptoAlphaError as error:
        return _unjudged(name, f"{type(error).__name__}: {error}", required=required)
    return GateResult(name, found.passed, found.statistic, found.relation, found.bound, found.words, required)


def _unjudged(name: GateName, words: str, *, required: bool) -> GateResult:
    return GateResult(name, None, nan, "=", nan, words, required)
