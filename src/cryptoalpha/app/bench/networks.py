"""Speed and memory of the networks: the pair half of the Evoformer beside a plain one, and the networks of the loop in their shapes.

    cryptoalpha bench networks --json --repeats 5

One thread, CPU seconds, median after a warm-up. The plain pair stack (`plain_evoformer`) has the same weights and the same mask, equal
answers are demanded before anything is timed, and the two are timed one right after the other; a ratio is the median of the turns' ratios.
Training is measured in processes of their own, memory and time: `python -m cryptoalpha.app.bench.networks_memory`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

from cryptoalpha.app.bench.networks_models import Step, designs, forecaster_block, genome_window
from cryptoalpha.app.bench.networks_workload import cpu_seconds, pair_work
from cryptoalpha.core.errors import ModelError
from cryptoalpha.nets.text.loading import load_minilm
from cryptoalpha.signals.config import TextConfig
from cryptoalpha.signals.text import TextEncoder, open_encoder

Figures = dict[str, float | None]
TOLERANCE = 1e-4
"""Difference allowed between both pair stacks in float32, of numbers around 1; positions that nothing may look at aside."""
HEADLINES = (
    "Bitcoin rallies above {0} as spot buyers return", "Exchange halts withdrawals after losing {0} million to an exploit",
    "Regulator sues issuer of stablecoin over {0} unregistered sales", "Ether slides {0} percent while traders await the upgrade",
)  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    positions: tuple[int, ...] = (64, 128, 256)
    training: int = 256
    texts: int = 4000
    minilm_texts: int = 256


def bench_networks(*, repeats: int, advance: Callable[[int], None], sizes: Sizes = Sizes()) -> tuple[Figures, tuple[str, ...]]:
    """Measure; returns figures by key and notes. About four minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return _bench(repeats, advance, sizes)
    finally:
        torch.set_num_threads(threads)


def _bench(repeats: int, advance: Callable[[int], None], sizes: Sizes) -> tuple[Figures, tuple[str, ...]]:
    figures: Figures = {}
    notes: list[str] = []
    for positions in sizes.positions:
        figures[f"pair_forward_ratio_n{positions}"] = _forward(positions, repeats, notes)
        advance(1)
    for part in (_training, _loop, _texts):
        found, said = part(repeats, sizes)
        figures |= found
        notes += said
        advance(1)
    notes.append(_designs(repeats))
    notes.append("genome `seed`, one forward and backward at window 1000: python -m cryptoalpha.app.bench.networks_memory genome 1000")
    return figures, tuple(notes)


def _forward(positions: int, repeats: int, notes: list[str]) -> float:
    """How many times as long the plain stack takes; with a mask of missing positions, and in the notes with one that differs by row."""
    ratios = []
    for ragged in (False, True):
        work = pair_work(positions, ragged=ragged)
        with torch.inference_mode():
            difference = float((work.ours(work.z, work.mask) - work.plain(work.z, work.mask))[work.mask].abs().max())
            if not difference <= TOLERANCE:
                raise ModelError(f"the pair stacks differ by {difference:.1e} at N = {positions}: nothing is timed")
            turns = [
                (cpu_seconds(lambda: work.ours(work.z, work.mask)), cpu_seconds(lambda: work.plain(work.z, work.mask)))  # noqa: B023
                for _ in range(repeats)
            ]
        ratios.append(statistics.median(plain / ours for ours, plain in turns))
        ours, plain = (1e3 * statistics.median(times) for times in zip(*turns, strict=True))
        kind = "a mask that differs by row" if ragged else "a mask of missing positions"
        notes.append(f"pair stack, N = {positions}, {kind}: {ours:.1f} ms, plain {plain:.1f} ms, ratio {ratios[-1]:.2f}")
    return ratios[0]


def _training(repeats: int, sizes: Sizes) -> tuple[Figures, list[str]]:
    turns = [(_apart("ours", sizes.training), _apart("plain", sizes.training)) for _ in range(min(repeats, 3))]
    key = f"pair_train_{{}}_ratio_n{sizes.training}"
    known = [(ours, plain) for ours, plain in turns if ours is not None and plain is not None]
    if not known:
        return {key.format("time"): None, key.format("memory"): None}, ["memory is measured on Linux only, and training with it"]
    shown = "; ".join(f"{ours[0]:.0f} MB, {ours[1]:.2f} s, plain {plain[0]:.0f} MB, {plain[1]:.2f} s" for ours, plain in known)
    return {
        key.format("time"): statistics.median(plain[1] / ours[1] for ours, plain in known),
        key.format("memory"): statistics.median(plain[0] / ours[0] for ours, plain in known),
    }, [f"training step of the pair stack, N = {sizes.training}, peak above the state at rest, fresh processes: {shown}"]


def _apart(kind: str, positions: int) -> tuple[float, float] | None:
    """Megabytes and CPU seconds of a step in a fresh process."""
    command = [sys.executable, "-m", "cryptoalpha.app.bench.networks_memory", kind, str(positions)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return (float(found[-2]), float(found[-1])) if found else None


def _loop(repeats: int, _: Sizes) -> tuple[Figures, list[str]]:
    figures: Figures = {}
    notes = []
    for name, (block, live, bars) in (("forecaster", forecaster_block()), ("genome", genome_window())):
        seconds = _median(block, 3 * repeats)
        figures[f"{name}_replay_bars_per_second"] = bars / seconds
        figures[f"{name}_live_bar_ms"] = 1e3 * _median(live, 3 * repeats)
        notes.append(f"{name} `small`: a block answers {bars} bars and takes {1e3 * seconds:.1f} ms; features are not in this time")
    return figures, notes


def _texts(repeats: int, sizes: Sizes) -> tuple[Figures, list[str]]:
    figures: Figures = {
        "texts_per_second_lexicon": _reading(open_encoder(TextConfig()), sizes.texts, repeats),
        "texts_per_second_minilm": None,
    }
    try:
        minilm = load_minilm()
    except ModelError as missing:
        return figures, [f"minilm is not installed: {missing.hint}"]
    figures["texts_per_second_minilm"] = _reading(minilm, sizes.minilm_texts, repeats)
    return figures, [f"headlines of about ten words: {sizes.texts} with the lexicon, {sizes.minilm_texts} with minilm, no cache"]


def _reading(encoder: TextEncoder, count: int, repeats: int) -> float:
    texts = [HEADLINES[number % len(HEADLINES)].format(number) for number in range(count)]
    return count / _median(lambda: encoder.encode(texts), repeats)


def _designs(repeats: int) -> str:
    said = []
    for name, (forward, training, answered) in designs().items():
        live, step = 1e3 * _median(forward, repeats), 1e3 * _median(training, repeats)
        said.append(f"{name}: forward {live:.1f} ms, training {step / answered:.1f} ms per supervised bar ({answered} per step)")
    return "the forecaster's two designs, trunk alone: " + "; ".join(said)


def _median(step: Step, repeats: int) -> float:
    step()
    return statistics.median(cpu_seconds(step) for _ in range(repeats))
