"""Writes the search's network as an ONNX graph, straight from its weights.

No tracing: a trunk of linear layers and ReLUs with two heads is a handful of Gemm and Relu nodes, and writing them by hand takes
milliseconds where an exporter takes seconds. The scale of the values (μ + s·net) is folded into the last layer, so it costs nothing at run
time. What is written is checked: every weight is finite, and ONNX Runtime answers what torch answers, or nothing is returned.

Graph: input `states` `[n, D]`, outputs `logits` `[n, A]` and `values` `[n]` or `[n, K]`, batch axis `n` free, opset 17, IR 9. The same
weights give the same bytes, hence the same digest: it names the net in a journal and proves that a file is the one that was trained.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.seeds import stream
from cryptoalpha.nets.policy_value import PolicyValueNet
from cryptoalpha.store.whole_file import write_whole

OPSET, IR_VERSION = 17, 9
TOLERANCE = 1e-5
"""Largest difference to torch, relative to the larger of 1 and the size of the answer."""

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class OnnxGraph:
    """A graph and the SHA-256 of its bytes."""

    data: bytes
    digest: str

    def save(self, path: Path) -> None:
        """Write the graph, and its digest beside it as `NAME.sha256`; readers see the old file or the new one, never half of one."""
        write_whole(path, self.data)
        write_whole(path.with_name(path.name + ".sha256"), f"{self.digest}  {path.name}\n")


def write_onnx(net: PolicyValueNet) -> OnnxGraph:
    """The net as an ONNX graph, checked against torch.

    Raises:
        ModelError: if a weight is not finite, or ONNX Runtime and torch differ by more than `TOLERANCE` on 64 random states.
    """
    for name, weights in net.state_dict().items():
        if not bool(torch.isfinite(weights).all()):
            raise ModelError(f"weights {name!r} are not finite: the net is not written", hint="go back to the last checkpoint")
    data = _serialised(net)
    _demand_equal(net, data)
    return OnnxGraph(data, hashlib.sha256(data).hexdigest())


def _serialised(net: PolicyValueNet) -> bytes:
    graph = _Graph()
    features = graph.layers("states", net.trunk, "trunk")
    graph.layers(features, net.policy, "policy", output="logits")
    scale = net.value_scale.detach().double().numpy(), net.value_mean.detach().double().numpy()
    one = net.value_outputs is None
    graph.layers(features, net.value, "value", output="column" if one else "values", scale=scale)
    if one:
        graph.weights.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
        graph.nodes.append(helper.make_node("Squeeze", ["column", "axis"], ["values"], name="values"))
    number = onnx.TensorProto.FLOAT
    document = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "policy_value",
            [helper.make_tensor_value_info("states", number, ["n", net.state_width])],
            [
                helper.make_tensor_value_info("logits", number, ["n", net.actions]),
                helper.make_tensor_value_info("values", number, ["n"] if one else ["n", net.value_outputs]),
            ],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="cryptoalpha",
    )
    onnx.checker.check_model(document, full_check=True)
    return bytes(document.SerializeToString(deterministic=True))


class _Graph:
    """Nodes and weights while they are being gathered."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def layers(
        self,
        entered: str,
        layers: nn.Sequential,
        prefix: str,
        *,
        output: str | None = None,
        scale: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    ) -> str:
        """Append these layers; the last one answers as `output`, and (`scale`, mean) is folded into it. Returns the name of the answer."""
        last = len(layers) - 1
        for position, layer in enumerate(layers):
            name = output if output is not None and position == last else f"{prefix}.{position}"
            if isinstance(layer, nn.ReLU):
                self.nodes.append(helper.make_node("Relu", [entered], [name], name=name))
            elif isinstance(layer, nn.Linear):
                self._linear(entered, name, f"{prefix}.{position}", layer, scale if position == last else None)
            else:
                raise ModelError(f"layer {prefix}.{position} is a {type(layer).__name__}; this writer knows Linear and ReLU")
            entered = name
        return entered

    def _linear(self, entered: str, name: str, path: str, layer: nn.Linear, scale: tuple[NDArray[np.float64], ...] | None) -> None:
        matrix = layer.weight.detach().double().numpy()  # [outputs, inputs]
        bias = layer.bias.detach().double().numpy() if layer.bias is not None else np.zeros(layer.out_features)
        if scale is not None:
            matrix, bias = scale[0][:, None] * matrix, scale[0] * bias + scale[1]
        self.weights.append(numpy_helper.from_array(matrix.T.astype(np.float32), f"{path}.weight"))
        self.weights.append(numpy_helper.from_array(bias.astype(np.float32), f"{path}.bias"))
        self.nodes.append(helper.make_node("Gemm", [entered, f"{path}.weight", f"{path}.bias"], [name], name=name))


def _demand_equal(net: PolicyValueNet, data: bytes) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    states = stream(0, "onnx_writer", net.state_width).standard_normal((64, net.state_width)).astype(np.float32)
    found: list[Weights] = session.run(["logits", "values"], {"states": states})
    with torch.inference_mode():
        wanted = [answer.numpy() for answer in net(torch.from_numpy(states))]
    for name, ours, theirs in zip(("logits", "values"), found, wanted, strict=True):
        if ours.shape != theirs.shape:
            raise ModelError(f"ONNX answers {name} of shape {ours.shape}, torch {theirs.shape}")
        difference = float(np.max(np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs)), initial=0.0))
        if not difference <= TOLERANCE:
            raise ModelError(f"ONNX and torch differ by {difference:.1e} in {name}, allowed is {TOLERANCE:.0e}: the net is not written")
