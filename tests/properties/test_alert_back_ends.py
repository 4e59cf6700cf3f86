"""The alert board agrees with its own rule file: the expressions are read back from the YAML and evaluated over the exposition text, with
every state worked out anew from the whole history, slowly and without any of the board's code."""

from __future__ import annotations

import re

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from cryptoalpha.core.time import SECOND
from cryptoalpha.monitoring.alert_rule_file import prometheus_rule_file
from cryptoalpha.monitoring.alerts import AlertBoard, AlertRule
from cryptoalpha.monitoring.conditions import Condition
from cryptoalpha.monitoring.metrics import METRICS, Metrics
from cryptoalpha.monitoring.metrics_exposition import exposition

EXPRESSION = re.compile(
    r"(?P<metric>\w+)(?P<where>\{.*?\})? (?P<op>>=|<=|==|>|<) (?P<match>ignoring \((?P<left>[\w, ]+)\) group_left \(\) \()?"
    r"(?P<number>[\d.e+-]+)( \* (?P<times>\w+)(?P<same>\{.*?\})?)?\)?"
)
RULES = [
    AlertRule("plain", "page", Condition("cryptoalpha_drawdown_ratio", ">=", 0.5), "a", "b", 20.0),
    AlertRule("labelled", "page", Condition("cryptoalpha_limit_used", ">", 0.5, "cryptoalpha_limit_allowed"), "a", "b", 10.0),
    AlertRule("joined", "page", Condition("cryptoalpha_bar_age_seconds", "<", 2.0, "cryptoalpha_bar_interval_seconds"), "a", "b"),
    AlertRule(
        "chosen", "page", Condition("cryptoalpha_limit_used", "==", 1.0, "cryptoalpha_limit_allowed", (("limit", "x"),)), "a", "b", 30.0
    ),
]
VALUES = st.sampled_from([None, float("nan"), 0.0, 0.25, 0.5, 1.0, 2.0])
LOOKS = st.lists(
    st.tuples(
        st.integers(1, 15),
        st.fixed_dictionaries(
            {
                ("cryptoalpha_drawdown_ratio",): VALUES,
                ("cryptoalpha_limit_used", "x"): VALUES,
                ("cryptoalpha_limit_used", "y"): VALUES,
                ("cryptoalpha_limit_allowed", "x"): VALUES,
                ("cryptoalpha_limit_allowed", "y"): VALUES,
                ("cryptoalpha_bar_age_seconds", "x"): VALUES,
                ("cryptoalpha_bar_age_seconds", "y"): VALUES,
                ("cryptoalpha_bar_interval_seconds",): VALUES,
            }
        ),
    ),
    min_size=1,
    max_size=12,
)


def holding(expression: str, text: str) -> set[tuple[str, ...]]:
    """Label values for which a PromQL expression gives something, by its text alone."""
    parts = EXPRESSION.fullmatch(expression)
    assert parts is not None, expression
    samples = [(s.name, dict(s.labels), s.value) for family in text_string_to_metric_families(text) for s in family.samples]
    where = dict(re.findall(r'(\w+)="([^"]*)"', parts["where"] or ""))
    ignored = set((parts["left"] or "").replace(" ", "").split(",")) - {""}
    found = set()
    for name, labels, value in samples:
        if name != parts["metric"] or not where.items() <= labels.items():
            continue
        bounds = [float(parts["number"])]
        if parts["times"]:
            key = {k: v for k, v in labels.items() if k not in ignored}
            bounds = [float(parts["number"]) * v for n, other, v in samples if n == parts["times"] and other == key]
        compare = {">": value.__gt__, ">=": value.__ge__, "<": value.__lt__, "<=": value.__le__, "==": value.__eq__}[parts["op"]]
        if any(compare(bound) for bound in bounds):
            found.add(tuple(labels[each] for each in METRICS[name].labels))
    return found


@settings(max_examples=50, deadline=None)
@given(looks=LOOKS)
def test_the_board_and_its_rule_file_say_the_same(looks):
    rules = yaml.safe_load(prometheus_rule_file(RULES))["groups"][0]["rules"]
    board, at = AlertBoard(RULES), 0
    history: dict[tuple[str, tuple[str, ...]], list[tuple[int, bool]]] = {}
    for seconds, values in looks:
        at += seconds * SECOND
        metrics = Metrics()
        for (name, *labels), value in values.items():
            if value is not None:
                metrics.set(name, value, *labels)
        changes = {(change.rule.name, change.labels, change.state) for change in board.judge(at, metrics)}
        text = exposition(metrics)
        expected = set()
        for rule in rules:
            true = holding(rule["expr"], text)
            hold = int(rule.get("for", "0s").removesuffix("s")) * SECOND
            for labels in true | {labels for name, labels in history if name == rule["alert"]}:
                past = history.setdefault((rule["alert"], labels), [])
                before = firing(past, hold)
                past.append((at, labels in true))
                after = firing(past, hold)
                if before != after:
                    expected.add((rule["alert"], labels, "firing" if after else "resolved"))
                standing = board.standing.get((rule["alert"], labels))
                assert (standing is not None) == (labels in true)
                assert (standing is not None and standing.is_firing) == after
        assert changes == expected


def firing(past: list[tuple[int, bool]], hold: int) -> bool:
    """Whether the condition held at the last look and at all looks for at least `hold` before it."""
    since = None
    for at, true in past:
        since = (at if since is None else since) if true else None
    return since is not None and past[-1][0] - since >= hold
