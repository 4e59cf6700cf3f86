"""Benchmarks that are kept: one JSON file per benchmark, and a page that shows them beside their targets."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

from cryptoalpha.app.bench.run import BenchResult
from cryptoalpha.app.output import plain
from cryptoalpha.store.whole_file import write_whole

TARGETS = {
    "engine": {
        "vectorised_ratio": "≥ 50",
        "loop_ratio": "≥ 0.5, goal 1",
        "oracle_orders": "2670",
        "oracle_equity": "903475.27 ± 0.01",
        "oracle_b_equity": "903405.66 ± 0.01",
    },
    "planner": {
        "sims_per_second_b64": "≥ 60000",
        "ratio_object_tree_b1": "≥ 4",
        "ratio_object_tree_b64": "≥ 20",
        "ratio_mctx_b16": "≥ 14",
        "tree_share_of_network_a7": "≤ 0.6",
        "tree_share_of_network_a21": "≤ 0.9",
        "live_decision_800_ms": "≤ 60",
        "scenario_dp_784_ms": "≤ 8",
        "mctx_visits_equal": "1",
    },
    "evolution": {
        "extra_memory_10m_mb": "≤ 20",
        "ratio_evotorch_low_rank": "≥ 50",
        "ratio_evotorch_full": "≥ 0.7",
        "workers_identical": "1",
    },
    "networks": {
        "pair_forward_ratio_n64": "≥ 1.3",
        "pair_forward_ratio_n128": "≥ 1.3",
        "pair_forward_ratio_n256": "≥ 2",
        "pair_train_time_ratio_n256": "≥ 1",
        "pair_train_memory_ratio_n256": "≥ 5",
        "forecaster_replay_bars_per_second": "≥ 60",
        "forecaster_live_bar_ms": "≤ 50",
        "genome_replay_bars_per_second": "≥ 100",
        "genome_live_bar_ms": "≤ 50",
    },
    "risk": {
        "rolling_sharpe_ratio_bottleneck": "≥ 0.9",
        "rolling_sharpe_ratio_pandas": "≥ 3",
        "risk_parity_1000_ms": "≤ 10",
        "risk_parity_1000_error": "≤ 1e-10",
        "var_es_ratio_skfolio": "≥ 1",
        "gate_50_assets_ms": "≤ 10",
    },
    "skill": {
        "edge10_share_forecaster": "≥ 0.5, goal 0.8",
        "edge10_over_best_ridge": "≥ 1",
        "edge05_share_forecaster": "≥ 0.5, goal 0.8",
        "edge05_over_best_ridge": "≥ 1",
        "noise_ic_low": "≤ 0",
        "noise_ic_high": "≥ 0",
    },
    "execution": {
        "decision_to_wire_p99_ms": "≤ 20",
        "chaos_schedules": "≥ 300",
        "chaos_violations": "0",
    },
    "decisions": {
        "full_loop_bars_per_second": "≥ 25, goal 50",
        "live_decision_p99_ms": "≤ 200, goal 100",
        "fusion_ic_over_equal": "≥ 1.5",
        "fusion_ic_over_oracle": "≥ 0.5",
        "ou_share_of_optimum": "≥ 0.90",
        "cournot_distance": "≤ 0.025",
    },
    "streams": {
        "memory_messages_per_second": "≥ 20,000",
        "kafka_messages_per_second": "≥ 5,000",
        "end_to_end_p99_ms": "≤ 250",
        "lost": "0",
        "doubled": "0",
    },
    "serving": {
        "p99_ms": "≤ 100",
    },
    "rollout": {
        "as good as stable at 1 %: % rolled back": "≤ 2",
        "fails 5 %: % rolled back": "≥ 95",
        "fails 40 %: % rolled back": "≥ 99",
    },
    "drift": {
        **{
            f"arl_measured_over_stated_{detector}_{world}": "≥ 1" if detector == "e_detector" else "0.8–1.2"
            for detector in ("cusum", "page_hinkley", "adwin", "psi", "ks", "e_detector")
            for world in ("iid", "ar98", "garch_t")
        },
        "arl_measured_over_stated_cusum_returns": "0.8–1.2",
        **{
            f"alarms_per_run_length_{watch}": "≤ 1.2"
            for watch in ("predictions", "information_coefficient", "returns", "outcomes", "features")
        },
    },
}


def keep_result(folder: Path, result: BenchResult, *, on: date) -> Path:
    """Write `folder/results/NAME.json` and the page `folder/RESULTS.md` of all that are there; returns the page."""
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    document = plain({**result.as_dict(), "date": on.isoformat()})
    write_whole(results / f"{result.name}.json", json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    page = folder / "RESULTS.md"
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    write_whole(page, _page(found))
    return page


def kept_result(folder: Path, name: str, commit: str) -> dict[str, object] | None:
    """The kept document of this benchmark, if it was measured on this commit."""
    path = folder / "results" / f"{name}.json"
    if commit == "unknown" or not path.is_file():
        return None
    document: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    environment = document["environment"]
    assert isinstance(environment, dict)
    return document if environment["commit"] == commit else None


def _page(documents: list[dict[str, object]]) -> str:
    lines = ["# Benchmark results", "", "Written by `make bench`; ratios are measured in one run, larger is better.", ""]
    for document in documents:
        lines += _section(document)
    return "\n".join(lines)


def _section(document: dict[str, object]) -> list[str]:
    name, environment, figures = str(document["bench"]), document["environment"], document["figures"]
    assert isinstance(environment, dict)
    assert isinstance(figures, dict)
    machine = ", ".join(f"{key} {value}" for key, value in environment.items())
    notes = document["notes"]
    assert isinstance(notes, list)
    targets = TARGETS.get(name, {})
    rows = [f"| {key} | {_shown(value)} | {targets.get(key, '')} |" for key, value in figures.items()]
    return [f"## {name}", "", f"{document['date']}; {machine}", "", "| figure | value | target |", "|---|---|---|", *rows, "",
            *(f"- {note}" for note in notes), ""]  # fmt: skip


def _shown(value: object) -> str:
    return "not installed" if value is None else f"{value:,.2f}" if isinstance(value, float) else str(value)
