"""Every measure in one place: `from cryptoalpha.monitoring.measures import sharpe_ratio`.

One definition each, used by fitness, limits, gates and reports alike. Conventions: simple returns per period as fractions, an explicit
`periods_per_year` (365 daily, 8760 hourly), ddof 1, losses positive, undefined is NaN (`explain_undefined` says why), NaN input is refused.
"""

from __future__ import annotations

from cryptoalpha.monitoring.accuracy import (
    DirectionalAccuracy,
    InformationCoefficient,
    directional_accuracy,
    information_coefficient,
    newey_west_t,
    wilson_interval,
)
from cryptoalpha.monitoring.attribution import CostEntries, CostLine, CostTable, calendar_labels
from cryptoalpha.monitoring.calibration import (
    ReliabilityCurve,
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    reliability_curve,
)
from cryptoalpha.monitoring.daily import SAMPLING, DailyReturns, MonthReturn, daily_returns, monthly_returns
from cryptoalpha.monitoring.drawdown import Drawdown, calmar_ratio, drawdown_curve, max_drawdown
from cryptoalpha.monitoring.exposure import drifted_weights, gross_exposure, net_exposure, turnover, turnover_by_asset
from cryptoalpha.monitoring.overfitting import BacktestOverfitting, probability_of_backtest_overfitting
from cryptoalpha.monitoring.period_tables import PeriodRow, period_table, regime_table, year_table
from cryptoalpha.monitoring.ratios import (
    annual_volatility,
    cagr,
    omega_ratio,
    profit_factor,
    sharpe_ratio,
    sortino_ratio,
    win_rate,
)
from cryptoalpha.monitoring.rolling import (
    rolling_drawdown,
    rolling_sharpe,
    rolling_sortino,
    rolling_volatility,
    rolling_win_rate,
)
from cryptoalpha.monitoring.signal_quality import SignalQuality, SourceRecord, rolling_signal_quality, signal_quality
from cryptoalpha.monitoring.significance import (
    deflated_sharpe_ratio,
    expected_max_sharpe,
    min_track_record_length,
    probabilistic_sharpe_ratio,
)
from cryptoalpha.monitoring.streaming import StreamingMetrics
from cryptoalpha.monitoring.undefined import explain_rolling, explain_undefined

SHARPE_DEFINITION = f"mean(r - rf) / sd(r, ddof 1) × √365; rf 0; r = daily returns of {SAMPLING}"
"""Printed beside every Sharpe ratio: another sampling gives another number for the same trades."""

__all__ = [
    "SAMPLING",
    "SHARPE_DEFINITION",
    "BacktestOverfitting",
    "CostEntries",
    "CostLine",
    "CostTable",
    "DailyReturns",
    "DirectionalAccuracy",
    "Drawdown",
    "InformationCoefficient",
    "MonthReturn",
    "PeriodRow",
    "ReliabilityCurve",
    "SignalQuality",
    "SourceRecord",
    "StreamingMetrics",
    "annual_volatility",
    "brier_score",
    "cagr",
    "calendar_labels",
    "calmar_ratio",
    "classwise_calibration_error",
    "daily_returns",
    "deflated_sharpe_ratio",
    "directional_accuracy",
    "drawdown_curve",
    "drifted_weights",
    "expected_calibration_error",
    "expected_max_sharpe",
    "explain_rolling",
    "explain_undefined",
    "gross_exposure",
    "information_coefficient",
    "max_drawdown",
    "min_track_record_length",
    "monthly_returns",
    "net_exposure",
    "newey_west_t",
    "omega_ratio",
    "period_table",
    "probabilistic_sharpe_ratio",
    "probability_of_backtest_overfitting",
    "profit_factor",
    "regime_table",
    "reliability_curve",
    "rolling_drawdown",
    "rolling_sharpe",
    "rolling_signal_quality",
    "rolling_sortino",
    "rolling_volatility",
    "rolling_win_rate",
    "sharpe_ratio",
    "signal_quality",
    "sortino_ratio",
    "turnover",
    "turnover_by_asset",
    "wilson_interval",
    "win_rate",
    "year_table",
]
