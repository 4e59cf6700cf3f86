"""Writes a torch module as an ONNX graph by torch's exporter, and proves that ONNX Runtime answers what torch does.

For the networks that are more than layers in a row (Evoformer, forecaster, genome); the search's perceptron is written by hand
(`onnx_writer`). Shapes are fixed: the networks always compute whole blocks of one shape. The exporter takes about ten seconds and more, so
this belongs where a model is finished, not where it is used. In an exported graph attention is plain softmax attention and nothing is cut
into blocks; the numbers agree to rounding, and what must not look ahead still does not, exactly.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.nets.onnx_writer import OnnxGraph

OPSET = 20
TOLERANCE = 1e-5
"""Largest difference to torch, relative to the larger of 1 and the size of the answer."""


def export_onnx(module: nn.Module, inputs: Sequence[Tensor], *, names: Sequence[str], answers: Sequence[str]) -> OnnxGraph:
    """The module in evaluation mode as a graph at the shapes of `inputs`, checked against torch on these inputs.

    Args:
        inputs: what `forward` takes, in order; tensors only.
        names: names of the inputs in the graph; one that `forward` does not use is not in the graph.
        answers: names of the tensors that `forward` returns (in a tuple, a named tuple, or alone), in order.

    Raises:
        ConfigError: if the exporter is not installed, or names and tensors differ in number.
        ModelError: if a weight is not finite, or ONNX Runtime and torch differ by more than `TOLERANCE`.
    """
    if len(names) != len(inputs):
        raise ConfigError(f"{len(inputs)} inputs have {len(names)} names")
    for name, weights in module.state_dict().items():
        if weights.is_floating_point() and not bool(torch.isfinite(weights).all()):
            raise ModelError(f"weights {name!r} are not finite: the net is not written", hint="go back to the last checkpoint")
    training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            wanted = tensors_of(module(*inputs))
        if len(answers) != len(wanted):
            raise ConfigError(f"{len(wanted)} answers have {len(answers)} names")
        data = _exported(module, inputs, names, answers)
    finally:
        module.train(training)
    for name, ours, theirs in zip(answers, run_onnx(data, inputs, names), wanted, strict=True):
        scale = np.maximum(1.0, np.abs(theirs.numpy()))
        difference = float(np.max(np.abs(ours - theirs.numpy()) / scale, initial=0.0))
        if not difference <= TOLERANCE:
            raise ModelError(f"ONNX and torch differ by {difference:.1e} in {name}, allowed is {TOLERANCE:.0e}: the net is not written")
    return OnnxGraph(data, hashlib.sha256(data).hexdigest())


def export_network(net: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[OnnxGraph, tuple[str, ...], tuple[str, ...]]:
    """A network that takes one named tuple of tensors and answers with another: forecaster and genome.

    Args:
        inputs: a named tuple such as `ForecastInputs`, in the shapes that will be asked.

    Returns:
        the graph, and the names of its inputs and answers: the fields of both tuples, in order, with `answer_` before
        those of the second (both of the genome's have `tokens`).

    Raises:
        ConfigError: if either is no named tuple; and what `export_onnx` raises.
    """
    with torch.inference_mode():
        answered = net(inputs)
    names, answers = getattr(inputs, "_fields", ()), getattr(answered, "_fields", ())
    if not names or not answers:
        raise ConfigError(f"{type(net).__name__} does not lead from a named tuple to a named tuple", hint="use export_onnx")
    said = tuple(f"answer_{name}" for name in answers)
    return export_onnx(_ByField(net, type(inputs)), tuple(inputs), names=names, answers=said), names, said


class _ByField(nn.Module):
    """A network's inputs one by one, because a graph knows no tuples."""

    def __init__(self, net: nn.Module, kind: type[tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.net, self.kind = net, kind
        self.training = net.training  # a new module trains, and would take the net along when its mode is put back

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.net(self.kind(*parts)))


def run_onnx(data: bytes, inputs: Sequence[Tensor], names: Sequence[str]) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Answers of a graph by ONNX Runtime on one core, in their order."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    used = {entry.name for entry in session.get_inputs()}
    fed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True) if name in used}
    return list(session.run(None, fed))


def tensors_of(found: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    """What a module returned, as a list."""
    return [found] if isinstance(found, Tensor) else list(found)


def _exported(module: nn.Module, inputs: Sequence[Tensor], names: Sequence[str], answers: Sequence[str]) -> bytes:
    try:
        import onnxscript  # noqa: F401  # torch's exporter wants it, and asks for it late and unclearly
    except ImportError as missing:
        raise ConfigError("ONNX export needs onnxscript, which is not installed", hint="pip install onnxscript") from missing
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(inputs),
            input_names=list(names),
            output_names=list(answers),
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    for function in program.model.graph:
        function.metadata_props.clear()  # where each line of Python stands: of no use, and different from machine to machine
    program.model.metadata_props.clear()
    return bytes(program.model_proto.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's own warnings and progress, about its own insides, kept away."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
