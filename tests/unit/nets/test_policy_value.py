import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.nets import onnx_writer
from cryptoalpha.nets.config import PolicyValueConfig
from cryptoalpha.nets.onnx_writer import write_onnx
from cryptoalpha.nets.policy_value import PolicyValueNet

SMALL = PolicyValueConfig(state_width=5, hidden=(8, 6), value_hidden=4, policy_hidden=3)
widths = st.integers(1, 40)


def states(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_the_default_widths_are_the_users():
    net = PolicyValueNet(PolicyValueConfig(), 21)
    shapes = [tuple(layer.weight.shape) for layer in net.modules() if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(512, 100), (512, 512), (256, 512), (128, 256), (21, 128), (64, 256), (1, 64)]
    # 2 flops per weight: 2 · (51,200 + 262,144 + 131,072 + 32,768 + 2,688 + 16,384 + 64) = .993 MFLOP a leaf
    assert 2 * sum(rows * columns for rows, columns in shapes) == 992_640


def test_one_value_per_state_or_one_per_position():
    rows = states(7, 5)
    logits, values = PolicyValueNet(SMALL, 3)(rows)
    assert (logits.shape, values.shape) == ((7, 3), (7,))
    assert PolicyValueNet(SMALL, 3, value_outputs=4)(rows)[1].shape == (7, 4)
    assert PolicyValueNet(SMALL, 3, value_outputs=1)(rows)[1].shape == (7, 1)


def test_the_answer_is_the_formula_worked_out_by_hand():
    net = PolicyValueNet(PolicyValueConfig(state_width=1, hidden=(2,), value_hidden=1, policy_hidden=1), 2)
    weights = {
        "trunk.0": ([[1.0], [-1.0]], [0.0, 1.0]),
        "policy.0": ([[1.0, 2.0]], [0.5]),
        "policy.2": ([[2.0], [-1.0]], [0.0, 0.25]),
        "value.0": ([[-1.0, 1.0]], [3.0]),
        "value.2": ([[4.0]], [-1.0]),
    }
    net.load_state_dict(
        {
            f"{name}.{kind}": torch.tensor(part)
            for name, parts in weights.items()
            for kind, part in zip(("weight", "bias"), parts, strict=True)
        },
        strict=False,
    )
    net.scale_values(10.0, 0.5)
    logits, values = net(torch.tensor([[0.5], [3.0]]))
    # x = .5: trunk (.5, .5); policy .5 + 1 + .5 = 2 → (4, −1.75); value −.5 + .5 + 3 = 3 → 11 → 10 + .5 · 11
    # x = 3: trunk (3, 0); policy 3.5 → (7, −3.25); value 0 → −1 → 10 − .5
    assert_allclose(logits.detach().numpy(), [[4.0, -1.75], [7.0, -3.25]])
    assert_allclose(values.detach().numpy(), [15.5, 9.5])


def test_a_seed_names_the_weights_and_leaves_other_randomness_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    net, same, other = PolicyValueNet(SMALL, 3, seed=1), PolicyValueNet(SMALL, 3, seed=1), PolicyValueNet(SMALL, 3, seed=2)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(net.trunk[0].weight, same.trunk[0].weight)
    assert not torch.equal(net.trunk[0].weight, other.trunk[0].weight)


def test_the_value_scale_is_kept_with_the_weights():
    net, restored = PolicyValueNet(SMALL, 3, value_outputs=2, seed=1), PolicyValueNet(SMALL, 3, value_outputs=2, seed=2)
    net.scale_values(torch.tensor([1.0, -2.0]), 3e-4)
    restored.load_state_dict(net.state_dict())
    rows = states(4, 5)
    assert torch.equal(restored(rows)[1], net(rows)[1])


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_a_value_scale_that_cannot_be_is_refused(mean, scale):
    with pytest.raises(ModelError, match="finite and positive"):
        PolicyValueNet(SMALL, 3).scale_values(mean, scale)


@pytest.mark.parametrize(("actions", "outputs"), [(0, None), (3, 0)])
def test_a_net_without_actions_or_values_is_refused(actions, outputs):
    with pytest.raises(ConfigError, match="at least one"):
        PolicyValueNet(SMALL, actions, value_outputs=outputs)


@given(
    width=widths,
    hidden=st.lists(widths, min_size=1, max_size=3).map(tuple),
    heads=st.tuples(widths, widths),
    actions=widths,
    outputs=st.none() | st.integers(1, 9),
    rows=st.integers(1, 33),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_onnx_runtime_answers_what_torch_answers(width, hidden, heads, actions, outputs, rows, seed):
    config = PolicyValueConfig(state_width=width, hidden=hidden, value_hidden=heads[0], policy_hidden=heads[1])
    net = PolicyValueNet(config, actions, value_outputs=outputs, seed=seed)
    net.scale_values(0.5, 2.0)
    session = onnxruntime.InferenceSession(write_onnx(net).data, providers=["CPUExecutionProvider"])
    entered = states(rows, width, seed)
    found = session.run(["logits", "values"], {"states": entered.numpy()})
    for ours, theirs in zip(found, net(entered), strict=True):
        assert ours.shape == tuple(theirs.shape)
        assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_the_graph_is_what_was_promised_and_its_digest_names_the_weights(tmp_path):
    graph = write_onnx(PolicyValueNet(SMALL, 3, seed=1))
    document = onnx.load_model_from_string(graph.data)
    assert (document.opset_import[0].version, document.ir_version) == (17, 9)
    assert document.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert sorted({node.op_type for node in document.graph.node}) == ["Gemm", "Relu", "Squeeze"]
    assert write_onnx(PolicyValueNet(SMALL, 3, seed=1)) == graph
    assert write_onnx(PolicyValueNet(SMALL, 3, seed=2)).digest != graph.digest
    graph.save(tmp_path / "nets" / "agent.onnx")
    assert (tmp_path / "nets" / "agent.onnx").read_bytes() == graph.data
    assert (tmp_path / "nets" / "agent.onnx.sha256").read_text() == f"{graph.digest}  agent.onnx\n"
    assert sorted(path.name for path in (tmp_path / "nets").iterdir()) == ["agent.onnx", "agent.onnx.sha256"]


def test_saving_over_an_older_graph_replaces_it(tmp_path):
    newer = write_onnx(PolicyValueNet(SMALL, 3, seed=2))
    write_onnx(PolicyValueNet(SMALL, 3, seed=1)).save(tmp_path / "agent.onnx")
    newer.save(tmp_path / "agent.onnx")
    assert (tmp_path / "agent.onnx").read_bytes() == newer.data


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(number):
    net = PolicyValueNet(SMALL, 3)
    with torch.no_grad():
        net.policy[2].bias[1] = number
    with pytest.raises(ModelError, match=r"policy\.2\.bias"):
        write_onnx(net)


def test_a_layer_that_the_writer_does_not_know_is_refused():
    net = PolicyValueNet(SMALL, 3)
    net.trunk[1] = torch.nn.Tanh()
    with pytest.raises(ModelError, match=r"trunk\.1 is a Tanh"):
        write_onnx(net)


def test_a_graph_that_answers_something_else_is_not_returned(monkeypatch):
    """The check itself must be able to fail: here the graph is written from another net's weights."""
    other = onnx_writer._serialised(PolicyValueNet(SMALL, 3, seed=2))
    monkeypatch.setattr(onnx_writer, "_serialised", lambda net: other)
    with pytest.raises(ModelError, match=r"ONNX and torch differ by .* in logits"):
        write_onnx(PolicyValueNet(SMALL, 3, seed=1))


def test_a_linear_layer_without_bias_is_written_as_one_with_zeros():
    net = PolicyValueNet(SMALL, 3)
    net.trunk[0] = torch.nn.Linear(5, 8, bias=False)
    weights = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load_model_from_string(write_onnx(net).data).graph.initializer
    }
    assert_array_equal(weights["trunk.0.bias"], np.zeros(8, np.float32))
