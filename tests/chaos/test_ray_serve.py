"""A real Ray Serve divides requests by the weights it was given, in a network of its own; see `test_ray`."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from test_ray import PROCESSES, Place, needed

pytestmark = [pytest.mark.ray, pytest.mark.slow]
REQUESTS = 400


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("ray"))
    yield made
    shutil.rmtree(made.temporary, ignore_errors=True)


@pytest.fixture(scope="module")
def found(place) -> dict:
    needed("ray", "ray.serve")
    began = time.monotonic()
    done = place.run(f"PYTHONPATH={PROCESSES} exec {sys.executable} {PROCESSES / 'split_on_ray.py'}")
    assert done.returncode == 0, done.stderr[-6000:]
    results = json.loads(done.stdout.splitlines()[-1])
    results["whole script, s"] = round(time.monotonic() - began, 1)
    return results


def test_two_routers_divide_by_the_weights_key_by_key_and_no_request_is_lost_to_a_failing_canary(found):
    """The hash says which keys the canary is asked for; of 400 keys a share within four standard deviations of its weight."""
    before = 0
    for weight, each in found["shares"].items():
        share = float(weight)
        assert abs(each["meant"] - REQUESTS * share) <= 4.0 * (REQUESTS * share * (1.0 - share)) ** 0.5
        assert each["meant"] >= before  # a higher weight only adds keys
        before = each["meant"]
        assert (each["canary asked"], each["stable asked"]) == (each["meant"], REQUESTS - each["meant"])
        assert each["canary failed"] == ({"error": each["due"]} if each["due"] else {})
        assert each["rescued"] == each["due"]
        assert each["canary answered"] == each["meant"] - each["due"]
        assert each["lost"] == 0
    assert found["shares"]["1.0"]["due"] == 40


def test_another_hand_is_noticed_shadow_answers_nothing_and_the_winner_stays(found):
    assert found["conflict"]
    assert found["shadow"] == [100, 90, 10]
    assert (found["after"], found["finished"]) == (["old"], ["old", ""])
    assert found["promoted"] == ["new"]
    assert found["own canary"]


def test_nothing_is_left_behind_and_the_shares_are_printed(found, place, capsys):
    assert place.left() == []
    shares = {weight: each["canary asked"] / REQUESTS for weight, each in found["shares"].items()}
    with capsys.disabled():
        print(f"\nRay Serve, share of 400 requests that the canary was asked: {json.dumps(shares)}")
        print(f"start {found['start, s']} s, whole script {found['whole script, s']} s")
