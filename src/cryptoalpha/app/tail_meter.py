"""Turns a running `TailWatch` into metrics: how often each method's value at risk was exceeded, instrument by instrument, and whether that
is more than chance.

Live only. The journal holds no days of the market and nothing of those before a run, so `status --metrics` does not show these figures; a
`trade` that is started again takes its old steps once more and has them all.
"""

from __future__ import annotations

from cryptoalpha.app.run_metrics import too_many
from cryptoalpha.monitoring.metrics import Metrics
from cryptoalpha.risk.market_memory import MarketMemory
from cryptoalpha.risk.tail.watch import TailWatch

TRUSTED = {"filtered": "filtered", "historical": "historical", "normal": "ewma"}
"""Method of the watch that judges what the gate computes with `risk.tail.method`: one asset of its normal law at present volatility."""


class TailMeter:
    """Call `look` once a bar, after the gate has seen it; forecasts are at the gate's own level.

    Args:
        memory: the gate's.
        metrics: written once a day.
    """

    def __init__(self, memory: MarketMemory, metrics: Metrics) -> None:
        self.watch = TailWatch(memory, level=memory.config.level)
        self._metrics, self._trusted = metrics, TRUSTED[memory.config.method]

    def look(self) -> None:
        """Count what the last midnight decided; on any other bar nothing."""
        outcomes = self.watch.look()
        if not outcomes:
            return
        metrics = self._metrics
        for name, methods in outcomes.items():
            for method, exceeded in methods.items():
                metrics.add("cryptoalpha_instrument_forecasts_total", 1.0, name, method)
                metrics.add("cryptoalpha_instrument_exceedances_total", float(exceeded), name, method)
        for name, verdicts in self.watch.verdicts().items():
            for one in verdicts:
                for test, found in (("kupiec", one.kupiec), ("christoffersen", one.independence), ("coverage", one.coverage)):
                    metrics.set("cryptoalpha_instrument_test_p_ratio", found.p_value, name, one.method, test)
                if one.method == self._trusted:
                    p = too_many(one.hits, one.observations, self.watch.level)
                    metrics.set("cryptoalpha_instrument_exceedance_p_ratio", p, name)
