"""Does an alarm come as rarely as stated where nothing happens, and how soon where something does?

    cryptoalpha bench drift --json --repeats 5

For each world (`drift_world`) and detector 8 × `repeats` references are drawn, each with its own threshold and ten fresh series:
`arl_measured_over_stated_DETECTOR_WORLD` is the mean run length over all of them. Single references scatter about it, since nobody knows a
mean better than its reference does; notes say by how much. The e-detector promises at least the stated length, the others that length.

`delay_DETECTOR_SHIFT` counts observations (standard normal, the threshold of two thousand) from a shift of so many standard deviations; for
the e-detector from a hit rate of .53 with a run length of 8,760; for returns days from a Sharpe ratio of 2, run length two years. The
sketch's rules stand beside it: the share of looks at which they fire though nothing changed.

`alarms_per_run_length_WATCH` counts all alarms of a monitor at its default settings, first and later ones, over years of daily values in
which nothing changes (`drift_alarms`), half of them independent, half GARCH with Student-t surprises; 1 is as stated, less is cautious.

`features_believed_WORLD` is the share of looks at eight daily features that believe in a change of any though nothing changes, at most .1
as stated; `features_found_WORLD_1sd` that of looks that tell the one whose level moved by its standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np

from cryptoalpha.app.bench.drift_alarms import CHAMPION, WATCHES, alarms_per_run_length, believed_shares
from cryptoalpha.app.bench.drift_sketch import accuracy_rule_share, ks_shares, psi_shares, sharpe_rule_share
from cryptoalpha.app.bench.drift_world import DETECTORS, FRESH, REFERENCE, RUN_LENGTH, SLOW, WORLDS, mean_delay, run_length_ratios
from cryptoalpha.core.seeds import stream
from cryptoalpha.monitoring.drift.calibrate import mean_run_length, records
from cryptoalpha.monitoring.drift.cusum import Cusum, cusum_threshold

Figures = dict[str, float | None]

SHIFTS = (0.25, 0.5, 1.0)
HIT_RATES = (0.50, 0.47)
TWO_YEARS = 730.0


def bench_drift(*, repeats: int, advance: Callable[[int], None]) -> tuple[Figures, tuple[str, ...]]:
    """Measure with 8 × `repeats` references; returns figures by key and notes."""
    figures: Figures = {}
    notes = [
        f"run lengths: {8 * repeats} references of {REFERENCE:,} values, {FRESH} fresh series each, {RUN_LENGTH:,} observations stated; "
        "standard errors and the middle 80 % of single references follow"
    ]
    for name in (*DETECTORS, "e_detector"):
        for world in WORLDS:
            ratio, each = run_length_ratios(world, name, trials=8 * repeats)
            figures[f"arl_measured_over_stated_{name}_{world}"] = ratio
            low, high = np.quantile(each, [0.1, 0.9])
            notes.append(f"{name} on {world}: {ratio:.2f} ± {np.std(each) / sqrt(each.size):.2f}, single references {low:.2f}–{high:.2f}")
            advance(1)
    for name in DETECTORS:
        for shift in SHIFTS:
            figures[f"delay_{name}_{shift:g}sd"] = mean_delay(name, shift, runs=40 * repeats)
        advance(1)
    for rate in HIT_RATES:
        figures[f"delay_e_detector_0.53_to_{rate:.2f}"] = mean_delay("e_detector", 0.53 - rate, runs=40 * repeats)
    figures.update(_returns(runs=200 * repeats))
    advance(1)
    more, said = _in_use(lives=8 * repeats)
    figures.update(more)
    notes += said
    advance(1)
    figures.update(_rules_without_a_null(runs=40 * repeats))
    advance(1)
    notes.append(
        "rules without a null: share of looks at which they fire though nothing changed; psi_chi2 and ks_whitened are ours, at 1 % and 5 %"
    )
    return figures, tuple(notes)


def _in_use(*, lives: int) -> tuple[Figures, list[str]]:
    """Alarms per run length of each watch, and notes by world."""
    figures: Figures = {}
    notes = []
    for watch in WATCHES:
        days = 1_825 if watch in CHAMPION else 1_000
        each = {world: alarms_per_run_length(watch, world, lives=lives, days=days) for world in ("iid", "garch_t")}
        figures[f"alarms_per_run_length_{watch}"] = float(np.mean(list(each.values())))
        spread = ", ".join(f"{world} {one.mean():.2f} ± {one.std() / sqrt(one.size):.2f}" for world, one in each.items())
        notes.append(f"alarms of {watch} per run length, {lives} lives of {days:,} days each: {spread}")
    for world in dict.fromkeys((*WORLDS, *SLOW)):
        figures[f"features_believed_{world}"], _ = believed_shares(world, runs=2 * lives)
        _, figures[f"features_found_{world}_1sd"] = believed_shares(world, runs=2 * lives, shift=1.0)
    return figures, notes


def _returns(*, runs: int) -> Figures:
    """Run length over the stated two years, and days from a Sharpe ratio of 2 to the alarm, by the CUSUM with its closed form."""
    daily = 2.0 / sqrt(365.0)
    figures: Figures = {}
    for after, slack in ((2.0, daily / 2.0), (0.0, daily / 2.0), (-2.0, daily)):
        threshold = cusum_threshold(slack, TWO_YEARS)
        detector = Cusum(slack=slack, threshold=threshold, side="down")
        mean = (after - 2.0) / sqrt(365.0)
        series = (stream(seed, "bench", "drift", "returns").normal(mean, 1.0, 8 * 730) for seed in range(runs))
        found, _ = mean_run_length([records(detector.statistics(one)) for one in series], threshold)
        key = "arl_measured_over_stated_cusum_returns" if after == 2.0 else f"delay_cusum_returns_sharpe_2_to_{after:g}_days"
        figures[key] = found / TWO_YEARS if after == 2.0 else found
    return figures


def _rules_without_a_null(*, runs: int) -> Figures:
    figures: Figures = {f"sketch_sharpe_rule_fires_{days}d": sharpe_rule_share(days, runs=50 * runs) for days in (7, 30, 90, 365)}
    figures.update({f"sketch_accuracy_rule_fires_{count}": accuracy_rule_share(count, runs=50 * runs) for count in (4, 12, 60)})
    figures["psi_above_0.1_fires_100"], figures["psi_chi2_fires_100"] = psi_shares(100, runs=5 * runs)
    figures["ks_on_ar98_fires"], figures["ks_whitened_ar98_fires"] = ks_shares(runs=runs)
    return figures
