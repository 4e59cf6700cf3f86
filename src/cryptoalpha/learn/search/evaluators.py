"""Networks as the planner asks them: NumPy in, NumPy out, one thread.

Three kinds behind one call, `[n, D]` float32 → logits `[n, A]` and values `[n]` (or `[n, K]` for a scenario tree): ONNX Runtime (what
acts), a torch module (what is being trained), and any callable. Each checks the width of what enters and the shapes of what leaves and
names what is wrong. Whether numbers are finite is the planner's business: it knows which root they belong to.

One thread: planning scales by processes, and two threads in a leaf of a megaflop wait for each other longer than they compute. ONNX
Runtime's worker threads neither exist nor spin.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError, DataMissingError, ModelError
from cryptoalpha.learn.search.contract import Floats

if TYPE_CHECKING:
    import torch

Answers = tuple[NDArray[np.float32], NDArray[np.float32]]

BOUND_UP_TO = 16
"""Batches up to this size keep their input and output memory between calls, which pays where a call is short; larger ones gain nothing."""


class OnnxEvaluator:
    """An ONNX graph with input `states` and outputs `logits` and `values`, on one CPU thread.

    Args:
        source: the graph's bytes, or the path of its file.
        digest: SHA-256 that the bytes must have; None reads `NAME.sha256` beside a file, where there is one.

    Shapes:
        states `[n, D]` → logits `[n, A]`, values `[n]` or `[n, K]`; both belong to the caller.

    Raises:
        DataMissingError: if the file does not exist.
        ModelError: if the bytes are not the ones meant, no such graph, or (on a call) of another width.
    """

    def __init__(self, source: bytes | Path, *, digest: str | None = None) -> None:
        data, self.name, digest = _read(source, digest)
        self.digest = hashlib.sha256(data).hexdigest()
        if digest is not None and digest != self.digest:
            raise ModelError(
                f"{self.name} has SHA-256 {self.digest[:16]}…, expected {digest[:16]}…", hint="write the graph again from the net"
            )
        self._session = _session(data, self.name)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shapes = {node.name: tuple(node.shape) for node in (*inputs, *outputs)}
        if [node.name for node in inputs] != ["states"] or sorted(node.name for node in outputs) != ["logits", "values"]:
            raise ModelError(f"{self.name} has {_named(shapes)}; expected states [n, D] → logits [n, A], values [n] or [n, K]")
        if len(shapes["states"]) != 2 or len(shapes["logits"]) != 2 or len(shapes["values"]) not in (1, 2):
            raise ModelError(f"{self.name} has {_named(shapes)}; expected states [n, D] → logits [n, A], values [n] or [n, K]")
        self.state_width = int(shapes["states"][1])
        self.actions = int(shapes["logits"][1])
        self.value_outputs = int(shapes["values"][1]) if len(shapes["values"]) == 2 else None
        self._bound: dict[int, _Binding] = {}

    def __call__(self, states: Floats) -> Answers:
        entered = _entering(states, self.state_width, self.name)
        rows = len(entered)
        if 0 < rows <= BOUND_UP_TO:
            binding = self._bound.get(rows)
            if binding is None:
                binding = self._bound[rows] = _Binding(self._session, rows, self.state_width, self.actions, self.value_outputs)
            return binding(entered)
        logits, values = self._session.run(["logits", "values"], {"states": entered})
        return logits, values

    def __reduce__(self) -> tuple[Any, ...]:
        raise ConfigError("an ONNX session cannot be sent to another process", hint="send the graph's bytes or its path")


class _Binding:
    """Input and outputs of one batch size at fixed addresses."""

    def __init__(self, session: Any, rows: int, width: int, actions: int, value_outputs: int | None) -> None:
        self._run = session.run_with_iobinding
        self._states = np.zeros((rows, width), np.float32)
        self._logits = np.zeros((rows, actions), np.float32)
        self._values = np.zeros(rows if value_outputs is None else (rows, value_outputs), np.float32)
        self._binding = session.io_binding()
        self._binding.bind_input("states", "cpu", 0, np.float32, self._states.shape, self._states.ctypes.data)
        for name, array in (("logits", self._logits), ("values", self._values)):
            self._binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    def __call__(self, states: NDArray[np.float32]) -> Answers:
        self._states[...] = states
        self._run(self._binding)
        return self._logits.copy(), self._values.copy()


class TorchEvaluator:
    """A torch module that maps states `[n, D]` to logits `[n, A]` and values `[n]` or `[n, K]`, asked in inference mode on one thread.

    It reads the module's present weights on every call, so a net that is being trained can be searched with between two steps. The
    module's training mode (dropout) is put back after each call.

    Raises:
        ModelError: on a call, if a width or a shape is wrong.
    """

    def __init__(self, module: torch.nn.Module, *, state_width: int, actions: int, value_outputs: int | None = None) -> None:
        self.module = module
        self.state_width, self.actions, self.value_outputs = state_width, actions, value_outputs
        self.name = type(module).__name__

    def __call__(self, states: Floats) -> Answers:
        import torch

        entered = _entering(states, self.state_width, self.name)
        threads, training = torch.get_num_threads(), self.module.training
        if threads != 1:
            torch.set_num_threads(1)
        if training:
            self.module.eval()
        try:
            with torch.inference_mode():
                answer = self.module(torch.from_numpy(entered))
            return _leaving(answer, len(entered), self.actions, self.value_outputs, self.name)
        finally:
            if training:
                self.module.train()
            if threads != 1:
                torch.set_num_threads(threads)


class CallableEvaluator:
    """Any function of states `[n, D]`, such as a random play-out or a formula, with its answer's shapes checked.

    Raises:
        ModelError: on a call, if a width or a shape is wrong.
    """

    def __init__(
        self, function: Callable[[NDArray[np.float32]], Any], *, state_width: int, actions: int, value_outputs: int | None = None
    ) -> None:
        self.function = function
        self.state_width, self.actions, self.value_outputs = state_width, actions, value_outputs
        self.name = getattr(function, "__name__", type(function).__name__)

    def __call__(self, states: Floats) -> Answers:
        entered = _entering(states, self.state_width, self.name)
        return _leaving(self.function(entered), len(entered), self.actions, self.value_outputs, self.name)


def _read(source: bytes | Path, digest: str | None) -> tuple[bytes, str, str | None]:
    """Bytes of the graph, what to call it, and the digest it must have."""
    if isinstance(source, bytes):
        return source, "the ONNX graph", digest
    try:
        data = source.read_bytes()
    except FileNotFoundError:
        raise DataMissingError(
            f"there is no ONNX graph at {source}", hint="write it from the net with nets.onnx_writer.write_onnx"
        ) from None
    kept = source.with_name(source.name + ".sha256")
    if digest is None and kept.exists():
        digest = kept.read_text(encoding="utf-8").split(maxsplit=1)[0]
    return data, str(source), digest


def _session(data: bytes, name: str) -> Any:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except (native.InvalidProtobuf, native.InvalidGraph, native.Fail, native.NotImplemented, native.InvalidArgument) as error:
        raise ModelError(f"{name} cannot be read as an ONNX graph: {error}") from error


def _entering(states: Floats, width: int, name: str) -> NDArray[np.float32]:
    if states.ndim != 2 or states.shape[1] != width:
        raise ModelError(f"{name} takes states of shape [n, {width}], got {list(states.shape)}")
    return np.ascontiguousarray(states, dtype=np.float32)


def _leaving(answer: Any, rows: int, actions: int, value_outputs: int | None, name: str) -> Answers:
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise ModelError(f"{name} must answer two arrays, logits and values, got {_described(answer)}")
    logits, values = (np.ascontiguousarray(part, dtype=np.float32) for part in answer)
    shape = (rows,) if value_outputs is None else (rows, value_outputs)
    if logits.shape != (rows, actions) or values.shape != shape:
        raise ModelError(
            f"{name} answered logits {list(logits.shape)} and values {list(values.shape)}, expected {[rows, actions]} and {list(shape)}"
        )
    return logits, values


def _named(shapes: dict[str, tuple[Any, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())


def _described(answer: object) -> str:
    return f"{len(answer)} of them" if isinstance(answer, tuple | list) else f"a {type(answer).__name__}"
