import pickle

import numpy as np
import onnx
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from onnx import helper

from cryptoalpha.core.errors import ConfigError, DataMissingError, ModelError
from cryptoalpha.learn.search.evaluators import BOUND_UP_TO, CallableEvaluator, OnnxEvaluator, TorchEvaluator
from cryptoalpha.nets.config import PolicyValueConfig
from cryptoalpha.nets.onnx_writer import write_onnx
from cryptoalpha.nets.policy_value import PolicyValueNet

WIDTH, ACTIONS = 6, 4
SMALL = PolicyValueConfig(state_width=WIDTH, hidden=(16, 8), value_hidden=4, policy_hidden=4)


def net(seed: int = 1, outputs: int | None = None) -> PolicyValueNet:
    return PolicyValueNet(SMALL, ACTIONS, value_outputs=outputs, seed=seed)


def states(rows: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(rows)).standard_normal((rows, WIDTH)).astype(np.float32)


def graph_of(nodes, inputs, outputs) -> bytes:
    number = onnx.TensorProto.FLOAT
    named = [[helper.make_tensor_value_info(name, number, shape) for name, shape in part] for part in (inputs, outputs)]
    document = helper.make_model(
        helper.make_graph([helper.make_node(*node) for node in nodes], "g", *named),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    return document.SerializeToString()


@pytest.mark.parametrize("outputs", [None, 1, 3])
@pytest.mark.parametrize("rows", [1, 2, BOUND_UP_TO, BOUND_UP_TO + 1, 64])
def test_every_kind_gives_the_same_answer_at_every_batch_size(rows, outputs):
    module = net(outputs=outputs)
    fixed = {"state_width": WIDTH, "actions": ACTIONS, "value_outputs": outputs}
    kinds = [
        OnnxEvaluator(write_onnx(module).data),
        TorchEvaluator(module, **fixed),
        CallableEvaluator(lambda batch: tuple(part.detach().numpy() for part in module(torch.from_numpy(batch))), **fixed),
    ]
    wanted = [part.detach().numpy() for part in module(torch.from_numpy(states(rows)))]
    for kind in kinds:
        assert (kind.state_width, kind.actions, kind.value_outputs) == (WIDTH, ACTIONS, outputs)
        for found, expected in zip(kind(states(rows)), wanted, strict=True):
            assert found.dtype == np.float32
            assert found.shape == expected.shape
            assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, BOUND_UP_TO + 1])
def test_an_answer_belongs_to_the_caller(rows):
    """Bound memory is used again; an answer that was handed out must not change under its owner."""
    evaluate = OnnxEvaluator(write_onnx(net()).data)
    first = evaluate(states(rows))
    kept = [part.copy() for part in first]
    evaluate(states(rows) + 1)
    for part, before in zip(first, kept, strict=True):
        assert_array_equal(part, before)


def test_states_of_another_type_or_layout_are_read_as_what_they_are():
    evaluate = OnnxEvaluator(write_onnx(net()).data)
    rows = states(5)
    for given_rows in (rows.astype(np.float64), np.asfortranarray(rows), np.repeat(rows, 2, axis=0)[::2]):
        assert_array_equal(evaluate(given_rows)[0], evaluate(rows)[0])


def test_no_rows_give_no_answers():
    logits, values = OnnxEvaluator(write_onnx(net()).data)(np.zeros((0, WIDTH), np.float32))
    assert (logits.shape, values.shape) == ((0, ACTIONS), (0,))


def test_a_file_is_read_and_its_digest_kept_beside_it_is_believed(tmp_path):
    path = tmp_path / "agent.onnx"
    graph = write_onnx(net())
    graph.save(path)
    assert OnnxEvaluator(path).digest == graph.digest
    path.write_bytes(write_onnx(net(seed=2)).data)
    with pytest.raises(ModelError, match=r"agent\.onnx has SHA-256"):
        OnnxEvaluator(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataMissingError, match=r"no ONNX graph at .*agent\.onnx"):
        OnnxEvaluator(tmp_path / "agent.onnx")


def test_bytes_that_are_no_graph_or_another_graph_are_refused():
    with pytest.raises(ModelError, match="cannot be read as an ONNX graph"):
        OnnxEvaluator(b"not a graph")
    with pytest.raises(ModelError, match=r"SHA-256 .* expected 0000"):
        OnnxEvaluator(write_onnx(net()).data, digest="0" * 64)


@pytest.mark.parametrize(
    ("nodes", "inputs", "outputs"),
    [
        ([("Relu", ["states"], ["logits"])], [("states", ["n", 3])], [("logits", ["n", 3])]),
        ([("Relu", ["x"], ["logits"]), ("Abs", ["x"], ["values"])], [("x", ["n", 3])], [("logits", ["n", 3]), ("values", ["n", 3])]),
        ([("Relu", ["states"], ["logits"]), ("Abs", ["states"], ["values"])], [("states", ["n"])], [("logits", ["n"]), ("values", ["n"])]),
        (
            [("Relu", ["states"], ["logits"]), ("Abs", ["states"], ["values"]), ("Neg", ["states"], ["more"])],
            [("states", ["n", 3])],
            [("logits", ["n", 3]), ("values", ["n", 3]), ("more", ["n", 3])],
        ),
    ],
    ids=["no values", "another input", "no width", "three outputs"],
)
def test_a_graph_with_other_inputs_or_outputs_is_refused(nodes, inputs, outputs):
    with pytest.raises(ModelError, match=r"expected states \[n, D\]"):
        OnnxEvaluator(graph_of(nodes, inputs, outputs))


@pytest.mark.parametrize("shape", [(2, WIDTH + 1), (WIDTH,), (2, 1, WIDTH)])
def test_states_of_the_wrong_width_are_refused_by_every_kind(shape):
    module = net()
    fixed = {"state_width": WIDTH, "actions": ACTIONS}
    kinds = (OnnxEvaluator(write_onnx(module).data), TorchEvaluator(module, **fixed), CallableEvaluator(module, **fixed))
    for evaluate in kinds:
        with pytest.raises(ModelError, match=r"takes states of shape \[n, 6\]"):
            evaluate(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda rows: np.zeros((len(rows), ACTIONS)), "two arrays, logits and values, got a ndarray"),
        (lambda rows: (np.zeros((len(rows), ACTIONS)),), "two arrays, logits and values, got 1 of them"),
        (lambda rows: (np.zeros((len(rows), ACTIONS + 1)), np.zeros(len(rows))), r"logits \[3, 5\] and values \[3\], expected \[3, 4\]"),
        (lambda rows: (np.zeros((len(rows), ACTIONS)), np.zeros((len(rows), 1))), r"values \[3, 1\], expected \[3, 4\] and \[3\]"),
        (lambda rows: (np.zeros((1, ACTIONS)), np.zeros(1)), r"logits \[1, 4\]"),
    ],
)
def test_an_answer_of_the_wrong_shape_is_named(answer, message):
    with pytest.raises(ModelError, match=message):
        CallableEvaluator(answer, state_width=WIDTH, actions=ACTIONS)(states(3))


def test_a_torch_module_is_asked_on_one_thread_without_dropout_and_left_as_it_was():
    seen: list[int] = []

    class Watched(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = torch.nn.Dropout(0.5)

        def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(torch.get_num_threads())
            return self.drop(rows), rows[:, 0]

    module = Watched()
    module.train()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        logits, _ = TorchEvaluator(module, state_width=WIDTH, actions=WIDTH)(states(3))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1]
    assert module.training
    assert_array_equal(logits, states(3))


def test_a_net_that_learns_is_read_anew_on_every_call():
    module = net()
    evaluate = TorchEvaluator(module, state_width=WIDTH, actions=ACTIONS)
    before = evaluate(states(2))[1]
    with torch.no_grad():
        module.value[2].bias += 1.0
    assert_allclose(evaluate(states(2))[1], before + 1.0, rtol=1e-6)


def test_a_session_is_not_sent_to_another_process():
    with pytest.raises(ConfigError, match="another process"):
        pickle.dumps(OnnxEvaluator(write_onnx(net()).data))
