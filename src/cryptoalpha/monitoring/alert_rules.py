"""The house's alert rules about trading, data, models and the process, with the thresholds of `[monitoring.alerts]`.

What `trade` exports feeds them. Those about serving and accuracy, which something acts on, are in `lifecycle.alerts.rules`.
"""

from __future__ import annotations

from cryptoalpha.monitoring.alerts import AlertRule
from cryptoalpha.monitoring.conditions import Condition
from cryptoalpha.monitoring.config import AlertsConfig

DRIFT_RETRAIN = "drift_retrain"


def alert_rules(config: AlertsConfig) -> tuple[AlertRule, ...]:
    """The house's rules with these thresholds, the most urgent first."""
    hold = config.hold_minutes * 60.0
    return (*_of_risk(config, hold), *_of_the_venue(config), *_of_data(config, hold), *_of_models(config), *_of_the_process(config, hold))


def _of_risk(config: AlertsConfig, hold: float) -> tuple[AlertRule, ...]:
    return (
        AlertRule(
            "kill_switch", "page", Condition("cryptoalpha_kill_switch", "==", 1.0),
            "the kill switch stands: nothing is entered",
            "find out why with `cryptoalpha status`, then `cryptoalpha resume --run NAME --reason TEXT`",
        ),
        AlertRule(
            "drawdown", "page", Condition("cryptoalpha_drawdown_ratio", ">=", config.drawdown, "cryptoalpha_drawdown_allowed_ratio"),
            "a large share of the allowed drawdown is used",
            "`cryptoalpha kill --run NAME --reason TEXT` stops entries now; at the limit everything is closed",
        ),
        AlertRule(
            "daily_loss", "page", Condition("cryptoalpha_risk_state", "==", 1.0, where=(("rule", "daily_loss"), ("state", "reduce_only"))),
            "today's loss allows no entries until 00:00 UTC",
            "`cryptoalpha status --run NAME` shows the loss, `cryptoalpha explain --run NAME FILL_ID` why a trade was made",
        ),
        AlertRule(
            "breaker_open", "warning", Condition("cryptoalpha_risk_state", "==", 1.0, where=(("state", "open"),)),
            "a breaker is open and blocks entries",
            "`cryptoalpha status` says which and why; it closes by itself after a quiet time",
            hold,
        ),
        AlertRule(
            "drawdown_ladder", "warning", Condition("cryptoalpha_ladder_rung", ">=", 1.0),
            "the drawdown ladder has cut the exposure",
            "`cryptoalpha status` shows drawdown and exposure; it grows again by itself, or at the limit everything is closed",
        ),
        AlertRule(
            "reduced_exposure", "notice", Condition("cryptoalpha_exposure_ratio", "<", 1.0),
            "drawdown ladder or regime leave only part of the exposure",
            "nothing, it grows again by itself",
        ),
        AlertRule(
            "tail_limit_nearly_used", "notice",
            Condition(
                "cryptoalpha_limit_used", ">=", config.limit_used, "cryptoalpha_limit_allowed", where=(("limit", "expected_shortfall"),)
            ),
            "expected shortfall is near its cap, which will cut entries",
            "nothing, unless it stays: then sizes are larger than the cap was meant for",
        ),
    )  # fmt: skip


def _of_the_venue(config: AlertsConfig) -> tuple[AlertRule, ...]:
    return (
        AlertRule(
            "order_unknown", "page", Condition("cryptoalpha_venue_unknown_seconds", ">", config.unknown_seconds),
            "the fate of an order is unknown: it may stand or be filled at the venue",
            "`cryptoalpha status --venue` says which and asks the venue; nothing more is entered on its instrument until it is known",
        ),
        AlertRule(
            "venue_halted", "page", Condition("cryptoalpha_venue_halted", "==", 1.0),
            "the live broker sends no entries",
            "`cryptoalpha status --venue` says why: books that differ, a key the venue refuses, figures that cannot be true",
        ),
    )  # fmt: skip


def _of_data(config: AlertsConfig, hold: float) -> tuple[AlertRule, ...]:
    return (
        AlertRule(
            "run_stands_still", "page",
            Condition("cryptoalpha_idle_seconds", ">", config.stale_bars, "cryptoalpha_step_interval_seconds"),
            "the loop takes no steps, so positions are not watched",
            "is the process alive, the venue reachable, the disk full?",
        ),
        AlertRule(
            "stale_data", "warning", Condition("cryptoalpha_bar_age_seconds", ">", config.stale_bars, "cryptoalpha_bar_interval_seconds"),
            "an instrument has had no bar for too long; nothing is entered on it",
            "check the venue's status; without trades there are no bars",
        ),
        AlertRule(
            "source_down", "warning", Condition("cryptoalpha_source_up", "==", 0.0),
            "a live source is not connected",
            "`cryptoalpha status` says why; what it would have told is missing from the signals",
            hold,
        ),
        AlertRule(
            "streams_closed", "warning", Condition("cryptoalpha_stream_open", "==", 0.0),
            "the bus or the state of live streams is away, so no text is heard",
            "is the broker reachable, the disk full? It is opened again by itself",
            hold,
        ),
    )  # fmt: skip


def _of_models(config: AlertsConfig) -> tuple[AlertRule, ...]:
    return (
        AlertRule(
            "value_at_risk_exceeded", "warning", Condition("cryptoalpha_exceedance_p_ratio", "<", config.exceedance_p),
            "losses exceed value at risk more often than a right model allows",
            "do not trust the tail figures; lower `risk.tail.max_expected_shortfall` or try another `risk.tail.method`",
        ),
        AlertRule(
            "instrument_risk_exceeded", "warning", Condition("cryptoalpha_instrument_exceedance_p_ratio", "<", config.exceedance_p),
            "an instrument falls beyond its value at risk more often than a right model allows",
            "the gate takes it for safer than it is: lower `risk.max_position` or try another `risk.tail.method`",
        ),
        AlertRule(
            DRIFT_RETRAIN, "warning",
            Condition("cryptoalpha_alarm_age_seconds", "<", config.alarm_days * 86_400.0, where=(("tier", "retrain"),)),
            "what the models see or say is not as it was",
            "`cryptoalpha status` names the alarm; `cryptoalpha retrain` trains anew, judges and rolls out what is better",
        ),
        AlertRule(
            "drift_champion", "warning",
            Condition("cryptoalpha_alarm_age_seconds", "<", config.alarm_days * 86_400.0, where=(("tier", "champion"),)),
            "what the champion earns or foresees is not what it was promoted for",
            "`cryptoalpha status` names the alarm; judge a challenger against it, or go back to the version before",
        ),
    )  # fmt: skip


def _of_the_process(config: AlertsConfig, hold: float) -> tuple[AlertRule, ...]:
    return (
        AlertRule(
            "slow_steps", "warning", Condition("cryptoalpha_step_p99_seconds", ">", config.step_seconds),
            "steps take too long",
            "look for a slow disk or a busy machine; trade fewer instruments",
            hold,
        ),
        AlertRule(
            "journal_lag", "warning",
            Condition("cryptoalpha_journal_lag_seconds", ">", config.journal_lag_bars, "cryptoalpha_bar_interval_seconds"),
            "bars are written down and acted on too late",
            "look for a slow disk, a busy machine or a venue that tells its bars late",
            hold,
        ),
        AlertRule(
            "disk_nearly_full", "page", Condition("cryptoalpha_disk_used_ratio", ">=", config.disk),
            "the disk under the store is nearly full; without room for its journal a run stops",
            "make room, or move the store; `cryptoalpha status` says where it is",
        ),
        AlertRule(
            "memory_nearly_used", "page", Condition("cryptoalpha_memory_ratio", ">=", config.memory),
            "the process may be ended for want of memory",
            "give it more memory, or stop and start it: it goes on where it stopped",
            hold,
        ),
    )  # fmt: skip
