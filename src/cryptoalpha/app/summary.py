"""A backtest in plain words, tables and JSON, and as the content of a report. One place turns results into what is read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np

from cryptoalpha import __version__
from cryptoalpha.app.audit import AuditReport
from cryptoalpha.app.backtest import BacktestResult, decisive_settings
from cryptoalpha.app.decision_summary import decision_lines, run_deciders
from cryptoalpha.app.output import Table
from cryptoalpha.app.report.content import (
    Check,
    CostSplit,
    Liveness,
    RefusalCount,
    ReportContent,
    RunCard,
    Trade,
)
from cryptoalpha.app.report.metrics import decider_metrics, risk_metrics
from cryptoalpha.app.report.weight_history import WeightHistory
from cryptoalpha.app.risk_summary import risk_record
from cryptoalpha.app.runs import digest_of
from cryptoalpha.core.time import DAY, interval_name, iso
from cryptoalpha.core.values import format_event_id
from cryptoalpha.monitoring.comparison import Assessment
from cryptoalpha.monitoring.exposure import gross_exposure, net_exposure
from cryptoalpha.signals.chain_features import CHAIN_FEATURES
from cryptoalpha.signals.features import live_count
from cryptoalpha.signals.price_features import PRICE_FEATURES

SHOWN_TRADES = 200


def code_version() -> str:
    """The commit of the checkout the package runs from; `unknown` where it is not a checkout."""
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5, check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"


def cost_split(result: BacktestResult) -> CostSplit:
    """Where the profit went."""
    fills, initial = result.recorder.fills, result.settings.execution.initial_cash
    return CostSplit(
        net=result.recorder.equity[-1] - initial,
        fees=float(sum(fill.fee for fill in fills)),
        spread=float(sum(fill.spread_cost for fill in fills)),
        impact=float(sum(fill.impact_cost for fill in fills)),
        funding_received=float(sum(payment.amount for payment in result.recorder.funding)),
    )


def as_dict(result: BacktestResult) -> dict[str, object]:
    """The result for programs."""
    costs = cost_split(result)
    gross, net = gross_exposure(result.weights), net_exposure(result.weights)
    card = run_card(result, command="")
    return {
        "run": result.run,
        "data": {"origin": card.data_origin, "hash": card.data_hash, "simulated": card.is_simulated},
        "period": {"since": iso(result.period.since), "until": iso(result.period.until), "bars": len(result.panel)},
        "instruments": list(result.instruments),
        "interval": interval_name(result.panel.interval),
        "seed": result.settings.engine.seed,
        "version": card.version,
        "commit": card.git_sha,
        "config_hash": card.config_hash,
        "journal_hash": result.digest,
        "verdict": result.comparison.verdict,
        "trials": result.trials,
        "strategy": result.comparison.strategy,
        "baselines": list(result.comparison.baselines),
        "differences": list(result.comparison.differences),
        "costs": {"gross": costs.gross, "fees": costs.fees, "spread": costs.spread, "impact": costs.impact,
                  "funding_received": costs.funding_received, "net": costs.net, "currency": card.quote},
        "source_skill": list(result.source_skill),
        "turnover_per_year": result.turnover,
        "deciders": decider_metrics(run_deciders(result)),
        "exposure": {"mean_gross": float(gross.mean()), "max_gross": float(gross.max()), "mean_net": float(net.mean())},
        "orders": result.recorder.orders,
        "fills": len(result.recorder.fills),
        "refusals": dict(result.recorder.refusals),
        "last_refusals": {rule: format_event_id(event) for rule, event in sorted(result.recorder.refusal_events.items())},
        "cuts": dict(result.recorder.binding),
        **risk_metrics(risk_record(result.recorder, result.settings.monitoring.drift), result.tails, result.stress),
        "by_year": list(result.years),
        "by_regime": list(result.regimes),
        "by_instrument": list(result.by_instrument),
        "seconds": result.seconds,
        "notes": list(result.dataset.notes),
    }  # fmt: skip


def tables(result: BacktestResult) -> list[str | Table]:
    """The result for people."""
    costs, card = cost_split(result), run_card(result, command="")
    head = "No figure here says anything about a real market. " if result.dataset.simulated else ""
    rows = [_row(one) for one in (result.comparison.strategy, *result.comparison.baselines)]
    columns = ("net of costs", "Sharpe", "95 % interval", "CAGR", "max drawdown", "volatility", "turnover/yr", "costs")
    gross = gross_exposure(result.weights)
    return [
        f"{card.data_origin}; judged on {result.period}, {len(result.panel):,} bars. {head}".rstrip(),
        Table(columns, rows),
        result.comparison.verdict,
        f"{len(result.recorder.fills):,} fills; gross {costs.gross:+,.0f} − fees {costs.fees:,.0f} − spread {costs.spread:,.0f} "
        f"− impact {costs.impact:,.0f} + funding {costs.funding_received:+,.0f} = net {costs.net:+,.0f} {card.quote}; "
        f"mean exposure {gross.mean():.0%}",
        *decision_lines(result),
        *_silent_sources(result),
        f"run {result.run}, journal {result.digest[:16]}",
    ]


def _silent_sources(result: BacktestResult) -> list[str]:
    """A source that never spoke took no part in what is printed above; a model's folds may begin later than the period."""
    silent = [tape.source for tape in result.tape.sources if not np.isfinite(tape.value).any()]
    regimes = result.tape.regime
    if regimes is not None and not np.isfinite(regimes.belief).any():
        silent.append("regime")
    return [f"no opinion in the whole period: {', '.join(silent)}"] if silent else []


def _row(one: Assessment) -> tuple[str, ...]:
    interval = "–" if np.isnan(one.sharpe.low) else f"{one.sharpe.low:+.2f} … {one.sharpe.high:+.2f}"
    return (
        one.name,
        _number(one.sharpe.estimate, "{:.2f}"),
        interval,
        _number(one.cagr.estimate, "{:.1%}"),
        _number(one.max_drawdown.estimate, "{:.1%}"),
        _number(one.volatility, "{:.1%}"),
        _number(one.turnover, "{:.1f}"),
        _number(one.costs, "{:.1%}"),
    )


def _number(value: float, form: str) -> str:
    text = "–" if np.isnan(value) else form.format(value)
    return text if any(digit in text for digit in "123456789") else text.lstrip("-")  # -0.0% is 0.0%


def run_card(result: BacktestResult, *, command: str) -> RunCard:
    """Where the numbers come from."""
    costs = result.settings.execution.costs
    return RunCard(
        name=f"{result.comparison.strategy.name}, {len(result.instruments)} instruments",
        run_id=result.run,
        data_origin=result.dataset.origin,
        is_simulated=result.dataset.simulated,
        data_hash=result.dataset.fingerprint[:16],
        since=int(result.panel.open_time[0]),
        until=int(result.panel.open_time[-1]) + result.panel.interval,
        interval=interval_name(result.panel.interval),
        instruments=result.instruments,
        quote=result.settings.execution.quote,
        initial_equity=result.settings.execution.initial_cash,
        seed=result.settings.engine.seed,
        version=__version__,
        git_sha=code_version(),
        config_hash=digest_of(decisive_settings(result.settings)),
        cost_model=(
            ("taker fee", f"{costs.taker_fee:.2%} of notional"),
            ("half spread", f"{costs.half_spread:.2%} of price"),
            ("impact", f"{costs.impact:g} × daily volatility × √(quantity / daily volume)"),
            ("fills", "at the open after the decision, at most "
             + (f"{costs.max_participation:.0%} of a bar's volume" if costs.max_participation else "any share of volume")),
        ),
        journal_digest=result.digest,
        command=command,
    )  # fmt: skip


def report_content(result: BacktestResult, *, command: str, audited: AuditReport | None = None) -> ReportContent:
    """Everything the HTML report shows."""
    recorder = result.recorder
    return ReportContent(
        card=run_card(result, command=command),
        comparison=result.comparison,
        strategy=result.strategy,
        baselines=result.baselines,
        costs=cost_split(result),
        trades=_trades(result),
        trades_total=len(recorder.fills),
        source_weights=_source_weights(result),
        position_weights=_position_weights(result),
        source_skill=result.source_skill,
        checks=_checks(result, audited),
        refusals=tuple(
            RefusalCount(rule, count, recorder.refusal_examples[rule], format_event_id(recorder.refusal_events[rule]))
            for rule, count in sorted(recorder.refusals.items())
        ),
        bar_gate_summary="; ".join(result.dataset.notes),
        liveness=_liveness(result),
        risk=risk_record(recorder, result.settings.monitoring.drift),
        tail=result.tails,
        stress=result.stress,
        years=result.years,
        regimes=result.regimes,
        instruments=result.by_instrument,
        deciders=run_deciders(result),
    )


def _trades(result: BacktestResult) -> tuple[Trade, ...]:
    recorder = result.recorder
    newest = list(zip(recorder.fill_events, recorder.fills, strict=True))[-SHOWN_TRADES:]
    return tuple(
        Trade(
            fill_id=format_event_id(event),
            time=fill.happened_at,
            instrument=fill.instrument,
            side=fill.side,
            quantity=float(fill.quantity),
            price=float(fill.price),
            fee=float(fill.fee),
            spread_cost=float(fill.spread_cost),
            impact_cost=float(fill.impact_cost),
        )
        for event, fill in newest
    )


def _source_weights(result: BacktestResult) -> WeightHistory | None:
    history = result.recorder.source_weights
    if not any(weights for _, weights in history):
        return None
    names = tuple(sorted({name for _, weights in history for name in weights}))
    values = np.array([[weights.get(name, 0.0) for name in names] for _, weights in history])
    return WeightHistory(names, np.array([at for at, _ in history], dtype=np.int64), values)


def _position_weights(result: BacktestResult) -> WeightHistory:
    rows = np.flatnonzero(result.panel.known_at % DAY == 0)
    rows = rows if rows.size else np.arange(len(result.panel))
    return WeightHistory(result.instruments, result.panel.known_at[rows], result.weights[rows])


def _checks(result: BacktestResult, audited: AuditReport | None) -> tuple[Check, ...]:
    complete = Check("every bar was processed", True, f"{len(result.recorder.times):,} of {len(result.panel):,}")
    if audited is None:
        return complete, Check(
            "look-ahead audit", None, "not run for this report: `cryptoalpha audit` on the same data, or backtest --audit"
        )
    compared = f"{sum(audited.compared.values()):,} values at {len(audited.cuts)} cuts, future removed and poisoned"
    found = "; ".join(str(leak) for leak in audited.leaks[:3])
    return complete, Check("look-ahead audit", audited.is_clean, compared if audited.is_clean else found)


def _liveness(result: BacktestResult) -> tuple[Liveness, ...]:
    tape = result.tape
    if tape.price is None or tape.chain is None:
        return ()
    names = [spec.name for spec in (*PRICE_FEATURES, *CHAIN_FEATURES)]
    edges = (int(result.panel.open_time[0]), int(result.panel.open_time[-1]) + result.panel.interval)
    counts = live_count(result.panel, tape.price, tape.chain, names, edges=edges)
    return tuple(
        Liveness(family, count.instrument, live, total)
        for count in counts
        for family, live, total in (("price", count.price, 50), ("on-chain", count.chain, 30))
    )
