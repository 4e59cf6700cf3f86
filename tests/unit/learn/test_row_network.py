"""A network asked row by row, compiled, is the graph that was written."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.search import row_network
from cryptoalpha.learn.search.evaluators import OnnxEvaluator
from cryptoalpha.learn.search.row_network import RowNetwork
from cryptoalpha.nets.config import PolicyValueConfig
from cryptoalpha.nets.onnx_writer import write_onnx
from cryptoalpha.nets.policy_value import PolicyValueNet

WIDTH, ACTIONS = 9, 5


def graph_of(*hidden: int, seed: int = 3, scale: float = 1.0, value_outputs: int | None = None) -> bytes:
    sizes = PolicyValueConfig(state_width=WIDTH, hidden=hidden, value_hidden=7, policy_hidden=11)
    net = PolicyValueNet(sizes, ACTIONS, seed=seed, value_outputs=value_outputs)
    net.scale_values(0.3 * scale, scale)
    return write_onnx(net).data


def states(rows: int) -> np.ndarray:
    drawn = stream(1, "rows").standard_normal((rows, WIDTH)).astype(np.float32)
    drawn[::3, 2:6] = 0.0
    return drawn


@pytest.mark.parametrize("hidden", [(16,), (33, 8), (64, 64, 32), (8, 40, 16, 24)])
@pytest.mark.parametrize("scale", [1.0, 3e-5])
def test_it_answers_what_the_graph_answers(hidden, scale):
    graph = graph_of(*hidden, scale=scale)
    rows, network = states(50), RowNetwork(graph)
    for ours, theirs in zip(network(rows), OnnxEvaluator(graph)(rows), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())
        assert np.ptp(ours) > 0.0
    assert network.digest == OnnxEvaluator(graph).digest


def test_a_row_has_the_same_bits_whatever_is_asked_beside_it():
    network, rows = RowNetwork(graph_of(64, 32)), states(20)
    whole = network(rows)
    for i in range(20):
        alone = network(rows[i : i + 1])
        assert np.array_equal(alone[0][0], whole[0][i])
        assert alone[1][0] == whole[1][i]
    again = pickle.loads(pickle.dumps(network))(rows)
    assert np.array_equal(again[0], whole[0])


def test_nan_is_answered_with_nan():
    row = states(1)
    row[0, 0] = np.nan
    logits, values = RowNetwork(graph_of(16))(row)
    assert np.isnan(logits).all()
    assert np.isnan(values).all()


def test_another_graph_width_or_digest_is_refused():
    with pytest.raises(ModelError, match="no trunk with two heads"):
        RowNetwork(graph_of(16, value_outputs=3))
    with pytest.raises(ModelError, match="SHA-256"):
        RowNetwork(graph_of(16), digest="0" * 64)
    with pytest.raises(ModelError, match="takes states of shape"):
        RowNetwork(graph_of(16))(np.zeros((1, WIDTH + 1), np.float32))


def test_what_differs_from_the_graph_is_not_opened(monkeypatch):
    whole = row_network._layers

    def one_weight_off(*args):
        layers = whole(*args)
        layers.weights[3] += 0.01
        return layers

    monkeypatch.setattr(row_network, "_layers", one_weight_off)
    with pytest.raises(ModelError, match="differ from ONNX Runtime"):
        RowNetwork(graph_of(16))
