"""A replay buffer comes back bit for bit and goes on as if nothing had happened; a damaged file is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from cryptoalpha.core.errors import ConfigError, DataMissingError, StoreError
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.config import ReplayConfig
from cryptoalpha.learn.replay.buffer import ReplayBuffer
from cryptoalpha.learn.replay.schema import Column
from cryptoalpha.store.array_file import DTYPES, read_arrays, write_arrays

SCHEMA = {
    "x": Column((2,)),
    "value": Column(dtype="float64"),
    "value_after": Column(dtype="float64"),
    "reward": Column(),
    "discount": Column(),
    "terminated": Column(dtype="bool"),
    "truncated": Column(dtype="bool"),
    "q": Column((3,), finite=False),
}


def rows(count, random):
    return {
        "x": random.normal(size=(count, 2)),
        "value": random.normal(size=count),
        "value_after": random.normal(size=count),
        "reward": random.normal(size=count),
        "discount": np.full(count, 0.9),
        "terminated": random.random(count) < 0.1,
        "truncated": random.random(count) < 0.1,
        "q": np.array([-np.inf, np.nan, 1.0]) * np.ones((count, 1)),
    }


def live(buffer, random, steps):
    """Use a buffer as a learner would and return everything it said."""
    said = []
    for _ in range(steps):
        buffer.add(rows(3, random), lanes=[0, 1, 2], surprise=random.random(3))
        even, ranked = buffer.sample(4), buffer.sample_prioritised(4)
        buffer.rate(ranked.ids, random.random(4))
        said += [even.ids, ranked.ids, ranked.weights, *ranked.rows.values(), buffer.targets(buffer.ids)]
    return said


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1_000), before=st.integers(0, 9), capacity=st.integers(3, 20))
def test_a_restored_buffer_goes_on_bit_for_bit(tmp_path, seed, before, capacity):
    kept = ReplayBuffer(SCHEMA, ReplayConfig(capacity=capacity, surprise_share=0.5, n_steps=3), seed=seed)
    live(kept, stream(seed, "before"), before)
    kept.save(tmp_path / "replay")
    restored = ReplayBuffer.restore(tmp_path / "replay", schema=SCHEMA)
    assert (len(restored), restored.config) == (len(kept), kept.config)
    restored.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "replay").read_bytes()
    for one, other in zip(live(kept, stream(seed, "after"), 5), live(restored, stream(seed, "after"), 5), strict=True):
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()


def test_a_state_may_hold_infinities(tmp_path):
    write_arrays(tmp_path / "x", {}, {"best": float("-inf"), "worst": [float("inf")]}, kind="test")
    assert read_arrays(tmp_path / "x", kind="test").state == {"best": float("-inf"), "worst": [float("inf")]}


def test_every_type_comes_back_bit_for_bit(tmp_path):
    random = stream(0, "test")
    arrays = {text: np.frombuffer(random.bytes(48), dtype=text).reshape(2, -1) for text in DTYPES.values() if text != "|b1"}
    arrays |= {"bool": random.random((2, 3, 1)) < 0.5, "empty": np.zeros((0, 4)), "scalar": np.array(1.5), "turned": arrays["<f4"].T}
    write_arrays(tmp_path / "file", arrays, {"count": 1 << 100, "text": "ü"}, kind="test")
    kept = read_arrays(tmp_path / "file", kind="test")
    assert kept.state == {"count": 1 << 100, "text": "ü"}
    for name, array in arrays.items():
        assert (kept.arrays[name].dtype, kept.arrays[name].shape) == (array.dtype, array.shape)
        assert kept.arrays[name].tobytes() == array.tobytes()


def test_other_programs_can_read_the_file(tmp_path):
    numpy_reader = pytest.importorskip("safetensors.numpy")
    write_arrays(tmp_path / "file", {"a": np.arange(6.0).reshape(2, 3), "b": np.array([True])}, {}, kind="test")
    arrays = numpy_reader.load_file(tmp_path / "file")
    assert_array_equal(arrays["a"], [[0, 1, 2], [3, 4, 5]])
    assert_array_equal(arrays["b"], [True])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("replay") / "whole"
    buffer = ReplayBuffer(SCHEMA, ReplayConfig(capacity=5), seed=0)
    live(buffer, stream(0, "test"), 3)
    buffer.save(path)
    return path.read_bytes()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_changed_bit_anywhere_is_found(tmp_path, whole, data):
    where, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(whole)
    changed[where] ^= 1 << bit
    (tmp_path / "replay").write_bytes(changed)
    with pytest.raises(StoreError, match="replay is damaged"):
        ReplayBuffer.restore(tmp_path / "replay")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_cut_off_anywhere_is_refused(tmp_path, whole, data):
    (tmp_path / "replay").write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(StoreError, match="replay is damaged"):
        ReplayBuffer.restore(tmp_path / "replay")


def test_what_is_no_buffer_or_another_one_is_refused_by_name(tmp_path, whole):
    with pytest.raises(DataMissingError, match="does not exist"):
        ReplayBuffer.restore(tmp_path / "replay")
    write_arrays(tmp_path / "replay", {}, {}, kind="something else")
    with pytest.raises(StoreError, match="is a 'something else' file"):
        ReplayBuffer.restore(tmp_path / "replay")
    (tmp_path / "replay").write_bytes(whole)
    with pytest.raises(StoreError, match="expected"):
        ReplayBuffer.restore(tmp_path / "replay", schema={"x": Column((2,))})
    with pytest.raises(ConfigError, match="more than the 10 allowed"):
        ReplayBuffer.restore(tmp_path / "replay", memory_bytes=10)
    with pytest.raises(ConfigError, match="cannot be kept"):
        write_arrays(tmp_path / "replay", {"text": np.array(["a"])}, {}, kind="test")


def test_a_buffer_kept_under_other_settings_is_refused_with_what_differs(tmp_path):
    kept = ReplayConfig(capacity=5, n_steps=3)
    ReplayBuffer(SCHEMA, kept, seed=0).save(tmp_path / "replay")
    assert ReplayBuffer.restore(tmp_path / "replay", config=kept).config == kept
    today = ReplayConfig(capacity=6, n_steps=3, surprise_share=0.5)
    with pytest.raises(ConfigError, match=r"replay.capacity was 5, is 6; learn.replay.surprise_share was 0.0, is 0.5"):
        ReplayBuffer.restore(tmp_path / "replay", config=today)


FULL_DISK = """
import resource, sys
import numpy as np
from pathlib import Path
from cryptoalpha.core.errors import StoreError
from cryptoalpha.store.array_file import write_arrays

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_arrays(Path(sys.argv[1]), {"x": np.zeros(10_000)}, {}, kind="test")
except StoreError as error:
    print(error)
"""


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_arrays(path, {"x": np.arange(3)}, {}, kind="test")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert_array_equal(read_arrays(path, kind="test").arrays["x"], [0, 1, 2])
    assert [left.name for left in tmp_path.iterdir()] == ["file"]
