"""A run: workers change no bit, a kill changes no bit, and a checkpoint says what it belongs to."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial

import numpy as np
import pytest
import torch

from cryptoalpha.app.bench.evolution_finetune import replica
from cryptoalpha.core.errors import ConfigError, DataMissingError, ModelError, StoreError
from cryptoalpha.learn.config import EvolutionConfig
from cryptoalpha.learn.evolution import Evolution, evolve, load, save
from cryptoalpha.learn.workers import InProcess, LocalProcesses
from cryptoalpha.store.array_file import read_arrays, write_arrays


def run(values: dict[str, torch.Tensor], generations: int, **more: object) -> Evolution:
    strategy = Evolution(values, EvolutionConfig(population=6, learning_rate=0.02, sigma=0.1), seed=4)
    evolve(strategy, lambda generation: -float((values["w"] - generation).square().sum()), generations=generations, **more)  # type: ignore[arg-type]
    return strategy


def values() -> dict[str, torch.Tensor]:
    return {"w": torch.linspace(-1, 1, 600).reshape(20, 30), "b": torch.zeros(7)}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_two_or_three_worker_processes_end_with_the_bits_of_none(count):
    alone = replica()
    goal = {"calls": 0}

    def accept() -> float:
        goal["calls"] += 1
        return 0.0 if goal["calls"] != 3 else -1.0  # the second generation is undone, everywhere

    history = evolve(alone.strategy, alone.fitness, generations=4, accept=accept)
    assert [made.accepted for made in history.history] == [True, False, True, True]
    assert history.undone == 1
    goal["calls"] = 0
    here = replica()
    with LocalProcesses(count, replica) as workers:
        assert evolve(here.strategy, here.fitness, generations=4, accept=accept, workers=workers) == history
    assert here.strategy.fingerprint() == alone.strategy.fingerprint()


def test_workers_that_join_a_begun_run_get_its_weights_once(tmp_path):
    path = tmp_path / "run"
    alone = replica()
    evolve(alone.strategy, alone.fitness, generations=2, checkpoint=path)
    evolve(alone.strategy, alone.fitness, generations=4)
    here = replica()
    with InProcess(replica) as workers:
        evolve(here.strategy, here.fitness, generations=4, checkpoint=path, workers=workers)
    assert here.strategy.fingerprint() == alone.strategy.fingerprint()


def test_workers_of_another_run_are_refused():
    here = replica()
    with pytest.raises(ModelError, match="differs from the one here"):
        evolve(here.strategy, here.fitness, generations=2, workers=InProcess(partial(_with_seed, 6)))
    with pytest.raises(ModelError, match=r"a worker's tensors have \[8192\] elements"):
        evolve(here.strategy, here.fitness, generations=2, workers=InProcess(partial(_with_seed, 5, ["0.weight"])))


def _with_seed(seed: int, only: list[str] | None = None) -> object:
    made = replica()
    net = {name: value.clone() for name, value in ((tensor.name, tensor.live) for tensor in made.strategy.tensors)}
    return type(made)(Evolution(net, made.strategy.config, seed=seed, only=only), made.fitness)


KILLED = """
    import os, sys, torch
    from pathlib import Path
    from cryptoalpha.learn.config import EvolutionConfig
    from cryptoalpha.learn.evolution import Evolution, evolve

    w = {"w": torch.linspace(-1, 1, 600).reshape(20, 30), "b": torch.zeros(7)}
    strategy = Evolution(w, EvolutionConfig(population=6, learning_rate=0.02, sigma=0.1), seed=4)
    evolve(
        strategy, lambda generation: -float((w["w"] - generation).square().sum()), generations=1_000_000,
        checkpoint=Path(sys.argv[1]), checkpoint_every=3, progress=lambda made: print(made.number, flush=True),
    )
"""


def test_a_killed_run_resumes_bit_for_bit(tmp_path):
    path = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(KILLED), str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if int(line) >= 7:
                break
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    resumed = values()
    probe = Evolution(resumed, EvolutionConfig(population=6, learning_rate=0.02, sigma=0.1), seed=4)
    notes = load(probe, path)
    assert probe.generation >= 6
    assert probe.generation % 3 == 0
    assert len(notes["history"]) == probe.generation
    total = probe.generation + 5
    whole, again = values(), values()
    strategy = run(again, total, checkpoint=path)
    assert strategy.fingerprint() == run(whole, total).fingerprint()
    assert torch.equal(again["w"], whole["w"])


def test_history_floor_and_best_goal_are_resumed(tmp_path):
    path = tmp_path / "run"

    def outcome(stops: list[int]) -> tuple[object, str]:
        for stop in stops:
            w = values()
            goals = lambda w=w: -float(w["w"].square().sum())  # noqa: E731
            strategy = Evolution(w, EvolutionConfig(population=6, learning_rate=0.02, sigma=0.1), seed=4)
            found = evolve(
                strategy, lambda generation, w=w: -float((w["w"] - generation % 2).square().sum()), generations=stop, accept=goals,
                checkpoint=path,
            )  # fmt: skip
        return found, strategy.fingerprint()

    whole = outcome([9])
    path.unlink()
    assert outcome([2, 5, 9]) == whole
    assert 0 < whole[0].undone < 9
    assert whole[0].best_goal >= whole[0].start_goal


def test_a_checkpoint_of_another_run_is_refused_and_says_why(tmp_path):
    path = tmp_path / "run"
    save(run(values(), 2), path, {"note": 1})
    config = {"population": 6, "learning_rate": 0.02, "sigma": 0.1}
    for strategy, words in [
        (Evolution(values(), EvolutionConfig(**{**config, "sigma": 0.2}), seed=4), "learn.evolution.sigma 0.1, this run has 0.2"),
        (Evolution(values(), EvolutionConfig(**config), seed=5), "has seed 4, this run 5"),
        (Evolution({"w": torch.zeros(20, 30)}, EvolutionConfig(**config), seed=4), "has tensors"),
        (Evolution({n: v.double() for n, v in values().items()}, EvolutionConfig(**config), seed=4), "has tensors"),
    ]:
        before = strategy.fingerprint()
        with pytest.raises(ConfigError, match=words):
            load(strategy, path)
        assert strategy.fingerprint() == before
    with pytest.raises(DataMissingError, match="does not exist"):
        load(run(values(), 1), tmp_path / "nothing")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_checkpoint_is_refused_and_changes_nothing(tmp_path, damage):
    path = tmp_path / "run"
    save(run(values(), 2), path)
    data = bytearray(path.read_bytes())
    if damage == "foreign":
        path.write_bytes(b"something else " * 100)
    else:
        data[len(data) // 2] ^= 0x01
        path.write_bytes({"cut": bytes(data[: len(data) // 2]), "flipped": bytes(data), "empty": b""}[damage])
    strategy = run(values(), 1)
    before = strategy.fingerprint()
    with pytest.raises(StoreError, match="is damaged"):
        load(strategy, path)
    assert strategy.fingerprint() == before


def test_a_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "run"
    strategy = run(values(), 2)
    save(strategy, path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    strategy.tell(np.arange(6.0).reshape(3, 2))
    with pytest.raises(StoreError, match="No space left on device"):
        save(strategy, path)
    assert path.read_bytes() == before


def test_an_open_proposal_is_not_saved(tmp_path):
    strategy = run(values(), 1)
    strategy.propose(np.arange(6.0).reshape(3, 2))
    with pytest.raises(ConfigError, match="a proposal is open"):
        save(strategy, tmp_path / "run")


def test_progress_is_told_every_generation_and_reads_as_a_sentence(tmp_path):
    told = []
    w = values()
    strategy = Evolution(w, EvolutionConfig(population=6), seed=0)
    evolve(strategy, lambda g: 1.0 + g, generations=2, accept=iter([0.0, -1.0, 0.5]).__next__, progress=told.append)
    assert [str(made) for made in told] == [
        "generation 0: mean 1, best 1; accept split -1, undone: below 0",
        "generation 1: mean 2, best 2; accept split 0.5, kept",
    ]


def goals(*given: float) -> tuple[dict[str, torch.Tensor], Evolution, object]:
    w = values()
    return w, Evolution(w, EvolutionConfig(population=6), seed=0), iter(given).__next__


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_start_that_cannot_be_measured_is_refused(bad):
    w, strategy, accept = goals(bad, 0.0)
    with pytest.raises(ModelError, match="generation 0"):
        evolve(strategy, lambda g: float(w["b"].sum()), generations=1, accept=accept)
    assert torch.equal(w["w"], values()["w"])


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_goal_that_is_no_number_undoes_the_update_and_says_so(bad):
    w, strategy, accept = goals(0.0, bad)
    with pytest.raises(ModelError, match=r"generation 0: the goal on the accept split is .*; the update was undone"):
        evolve(strategy, lambda g: float(w["b"].sum()), generations=1, accept=accept)
    assert torch.equal(w["w"], values()["w"])
    assert not strategy.is_proposing


def test_a_goal_that_raises_undoes_the_update():
    w, strategy, _ = goals()
    seen = []

    def accept() -> float:
        seen.append(w["w"].clone())
        if len(seen) == 2:
            raise RuntimeError("the market closed")
        return 0.0

    with pytest.raises(RuntimeError, match="the market closed"):
        evolve(strategy, lambda g: float(w["b"].sum()), generations=1, accept=accept)
    assert not torch.equal(seen[0], seen[1])  # there was an update to undo
    assert all(torch.equal(w[name], value) for name, value in values().items())
    assert not strategy.is_proposing
    assert strategy.steps == 0


def test_minus_infinity_is_never_accepted():
    w, strategy, accept = goals(0.0, -math.inf, -math.inf)
    found = evolve(strategy, lambda g: float(w["b"].sum()), generations=2, accept=accept)
    assert [made.accepted for made in found.history] == [False, False]
    assert torch.equal(w["w"], values()["w"])


@pytest.mark.parametrize(
    ("part", "damage", "words"),
    [
        ("second/b", None, "has no array 'second/b'"),
        ("first/b", np.zeros(8, np.float32), r"'first/b' as float32\(8,\), expected float32\(7,\)"),
        ("first/b", np.zeros(7), "'first/b' as float64"),
        ("second/b", np.full(7, np.nan, np.float32), "in 'second/b'"),
        ("second/b", np.full(7, -1, np.float32), "in 'second/b'"),
        ("accepted/b", np.full(7, np.inf, np.float32), "in 'accepted/b'"),
    ],
)
def test_a_checkpoint_that_is_not_a_state_of_the_run_changes_nothing(tmp_path, part, damage, words):
    path = tmp_path / "run"
    save(run(values(), 2), path)
    arrays, state = read_arrays(path, kind="evolution strategy")
    arrays.pop(part) if damage is None else arrays.update({part: damage})
    write_arrays(path, arrays, state, kind="evolution strategy")
    strategy = run(values(), 1)
    before = strategy.fingerprint()
    with pytest.raises(StoreError, match=words):
        load(strategy, path)
    assert strategy.fingerprint() == before


@pytest.mark.parametrize(("generations", "every"), [(0, 1), (1, 0)])
def test_a_run_of_nothing_is_refused(generations, every):
    with pytest.raises(ConfigError, match="must be at least 1"):
        evolve(replica().strategy, lambda g: 0.0, generations=generations, checkpoint_every=every)


def test_a_checkpoint_is_three_copies_and_a_header(tmp_path):
    path = tmp_path / "run"
    save(Evolution({"w": torch.zeros(1000, 1000)}, EvolutionConfig(), seed=0), path)
    assert 0 < path.stat().st_size - 3 * 4_000_000 < 10_000
