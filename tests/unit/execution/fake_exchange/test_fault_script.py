"""Scripts are checked before they run, and a seed always draws the same one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.execution.fake_exchange.fault_schedule import WEIGHTS, schedule
from cryptoalpha.execution.fake_exchange.fault_script import ACTIONS, Fault, as_entries, parse, read_script


def test_an_entry_needs_its_action_only():
    (fault,) = parse([{"action": "timeout_after"}])
    assert (fault.nth, fault.times, fault.duration, fault.rule.route) == (1, 1, 30.0, "POST */order")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"action": "explode"}], "entry 0: no action 'explode'"),
        ([{"action": "hold"}, {"action": "late", "when": 3}], "unknown field `when`"),
        ([{"nth": 2}], "missing required field `action`"),
        ([{"action": "hold", "nth": 0}], "must be ≥ 1"),
        ([{"action": "hold", "seconds": -1}], "only a clock can be -1.0 seconds off"),
        ({"action": "hold"}, "Expected `array`"),
        ([{"action": "hold", "times": "two"}], "Expected `int`"),
    ],
)
def test_what_is_no_script_is_refused_with_the_place(entries, message):
    with pytest.raises(ConfigError, match=r"fault script") as caught:
        parse(entries)
    assert message in str(caught.value)


def test_a_script_is_read_from_yaml_and_from_json(tmp_path: Path):
    written = [Fault(action="drop_after", instrument="BTCUSDT", nth=3, times=0), Fault(action="skew", seconds=-3600.0)]
    in_json, in_yaml = tmp_path / "a.json", tmp_path / "a.yaml"
    in_json.write_text(json.dumps(as_entries(written)))
    in_yaml.write_text("- {action: drop_after, instrument: BTCUSDT, nth: 3, times: 0}\n- action: skew\n  seconds: -3600\n")
    assert read_script(in_json) == read_script(in_yaml) == written


@pytest.mark.parametrize("content", [b"- {action", b"\xff\xfe\x00", None])
def test_an_unreadable_script_says_which_file(tmp_path: Path, content: bytes | None):
    path = tmp_path / "faults.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"faults\.yaml"):
        read_script(path)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), faults=st.integers(0, 20), reach=st.integers(1, 30))
def test_a_seed_draws_the_same_script_again_and_writing_it_down_loses_nothing(seed, faults, reach):
    drawn = schedule(seed, faults=faults, reach=reach)
    assert drawn == schedule(seed, faults=faults, reach=reach) == parse(as_entries(drawn))
    assert len(drawn) == faults
    assert all(1 <= fault.nth <= 4 * reach and 1 <= fault.times <= 3 for fault in drawn)


def test_faults_are_drawn_as_often_as_their_weights_say():
    drawn = Counter(fault.action for seed in range(250) for fault in schedule(seed, faults=20))
    total = sum(WEIGHTS.values())
    for action, weight in WEIGHTS.items():
        expected = 5000 * weight / total
        assert abs(drawn[action] - expected) < 5 * expected**0.5 + 1, action  # five standard deviations of a count
    assert set(WEIGHTS) | {name for name in ACTIONS if name.startswith("feed_")} | {"revoked", "hold", "nan"} == set(ACTIONS)


def test_impossible_weights_are_refused():
    for weights in ({"explode": 1.0}, {"hold": -1.0, "late": 2.0}, {"hold": 0.0}):
        with pytest.raises(ConfigError, match="no schedule"):
            schedule(1, weights=weights)


def test_the_guide_lists_every_action_and_its_script_is_one():
    import yaml

    guide = (Path(__file__).resolve().parents[4] / "docs" / "fake_exchange.md").read_text(encoding="utf-8")
    for name, action in ACTIONS.items():
        assert f"| `{name}` | {action.text} |" in guide
    example = guide.split("```yaml\n")[1].split("```")[0]
    assert [fault.action for fault in parse(yaml.safe_load(example))] == ["timeout_after", "error_before", "lose", "skew", "outage"]
