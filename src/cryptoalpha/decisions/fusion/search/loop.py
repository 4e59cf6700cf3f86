"""All simulations of a bar's search in one compiled call, where the network that guides it is compiled too, or there is none.

It is the loop of `learn.search.batched_mcts` for a single tree, step by step with the same functions: down the tree (`descend`), the world
(`advance`), the network (`show`, `finish`), a new node (`grow`). What a search finds has the same bits either way, which a test insists on.
Of the scenarios drawn for an edge only the one that is entered is computed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryptoalpha.decisions.fusion.experience import STATE_WIDTH
from cryptoalpha.decisions.fusion.search.kernels import advance, show
from cryptoalpha.learn.search.chance import EDGE
from cryptoalpha.learn.search.kernels import AT, FALL, FAN, FINE, ROW, descend, grow
from cryptoalpha.learn.search.kernels_chance import pick_outcome
from cryptoalpha.learn.search.row_network import Layers, Room, RowNetwork, accumulate, finish, linear, room_for

COMPILED_WITH = "4453cca27fac"
"""Digest of the files of all that is compiled in here; see learn.search.kernels_select."""

Array32 = NDArray[np.float32]


class Guide(NamedTuple):
    """The network in one bar's search. Shapes: base `[100]` (`state.summary`), sums `[W]` of the first layer over what `base` holds."""

    guides: bool
    base: Array32
    sums: Array32
    row: Array32
    """`[100]`: what the network is shown, less `base`."""
    net: Layers
    room: Room


NO_LAYERS = Layers(np.zeros(1, np.float32), np.zeros((5, 3), np.int64))
"""Stand where no network guides, and are never asked."""

NO_ROOM = Room(np.zeros(1, np.float32), np.zeros(1, np.float32), np.zeros(1, np.int64))


def guide(base: Array32, network: RowNetwork | None) -> Guide:
    """The network, with what its first layer finds in all states alike computed once."""
    if network is None:
        return Guide(False, base, np.zeros(1, np.float32), np.zeros(STATE_WIDTH, np.float32), NO_LAYERS, NO_ROOM)
    room = room_for(network.layers)
    sums = np.zeros_like(room.found)
    linear(network.layers, 0, base, room.active, sums)
    return Guide(True, base, sums, np.zeros(STATE_WIDTH, np.float32), network.layers, room)


@njit(cache=True, nogil=True)
def judge(bar: Any, guided: Any, state: Any, logits: Any, values: Any) -> None:
    """Logits `[A]` and value `[1]` of one state `[D]`."""
    net, room, row = guided.net, guided.room, guided.row
    show(bar, state, row)
    width = net.places[0, 2]
    for j in range(width):
        room.found[j] = guided.sums[j]
    accumulate(net.weights, net.places[0, 0], width, row, row.shape[0], room.active, room.found)
    finish(net, room, logits, values)


@njit(cache=True, nogil=True)
def judge_rows(bar: Any, guided: Any, states: Any, logits: Any, values: Any) -> None:
    """`judge` of states `[n, D]`."""
    for i in range(states.shape[0]):
        judge(bar, guided, states[i], logits[i], values[i : i + 1])


@njit(cache=True, nogil=True)
def place_in(shares: Any, uniform: float) -> int:
    """The first scenario whose cumulative share `[P]` reaches this far, the last one beyond; `searchsorted` takes seconds to compile."""
    low, high = 0, shares.shape[0] - 1
    while low < high:
        middle = (low + high) // 2
        if shares[middle] < uniform:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def simulate(t: Any, choice: Any, fanouts: Any, asked: Any, said: Any, bar: Any, shares: Any, guided: Any) -> tuple[int, int, int]:
    """Spend the simulations that are left to the one tree.

    Args:
        asked: `requests`, `moves`, `states`, `uniforms` as `descend` writes them.
        said: `Answers` for one request; its arrays are written over.
        shares: `[P]`, upper end of each scenario's share.

    Returns what is wrong with the answers (`FINE`: nothing), how many states were answered, and −1 − b if tree b lost its numbers, else 0.
    """
    requests, moves, states, uniforms = asked
    born, legal = said.states.reshape(1, 1, said.states.shape[1]), said.legal.reshape(1, 1, said.legal.shape[1])
    drawn = np.zeros((1, 1), np.int64)
    answered = 0
    while True:
        n = descend(t, choice, True, requests, moves, states, uniforms)
        if n <= 0:
            return FINE, answered, n
        fan = requests[0, FAN]
        said.weights[0, :] = np.float32(0.0)
        said.weights[0, :fan] = np.float32(1.0) / np.float32(fan)
        if requests[0, FALL] < 0:
            requests[0, FALL] = pick_outcome(t.keys[requests[0, ROW], requests[0, AT]], said.weights[0], fan, 0, t.nodes, t.fan, 0, -1)
        uniform = min(max(uniforms[0, requests[0, FALL]], EDGE), 1.0 - EDGE)
        drawn[0, 0] = place_in(shares, uniform)
        advance(bar, states, moves, drawn, born, said.rewards, legal)
        if guided.guides:
            judge(bar, guided, said.states[0], said.logits[0], said.values)
        answered += 1
        fault, _ = grow(t, True, fanouts, requests, 1, said)
        if fault != FINE:
            return fault, answered, 0
