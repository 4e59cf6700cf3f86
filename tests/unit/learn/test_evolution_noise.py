"""The noise of an evolution strategy: the published generator, standard normal, independent, and the same however it is cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.evolution.noise import BLOCK, members, noise_key, normals, threefry
from cryptoalpha.learn.evolution.ranks import centred_ranks

KEY = noise_key(7, "layer.weight", "full")
WHOLE = normals(KEY, members(3, 25, range(4, 6)), 0, 20_000)


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_words_that_its_authors_published(key, counter, expected):
    words = threefry(*(np.uint32(word) for word in (*key, *counter)))
    assert tuple(int(word) for word in words) == expected  # Random123, kat_vectors: threefry 2x32, 20 rounds


def slow_words(key: tuple[int, int], counter: tuple[int, int]) -> tuple[int, int]:
    """Threefry-2x32-20 as the paper writes it, in Python integers."""
    mask, ks = 0xFFFFFFFF, (key[0], key[1], 0x1BD11BDA ^ key[0] ^ key[1])
    x, y = (counter[0] + ks[0]) & mask, (counter[1] + ks[1]) & mask
    for i in range(20):
        turn = (13, 15, 26, 6, 17, 29, 16, 24)[i % 8]
        x = (x + y) & mask
        y = ((y << turn | y >> (32 - turn)) & mask) ^ x
        if i % 4 == 3:
            n = i // 4 + 1
            x, y = (x + ks[n % 3]) & mask, (y + ks[(n + 1) % 3] + n) & mask
    return x, y


def test_elements_are_box_muller_of_those_words_in_the_order_of_the_specification():
    member = int(members(3, 25, range(4, 5))[0])
    assert member == 79
    for element in (0, 1, 127, 128, 255, 256, 300, 19_999):
        block, lane = divmod(element, BLOCK)
        place = block * 128 + lane % 128
        a, b = slow_words((int(KEY[0]), int(KEY[1])), (place, member))
        radius = math.sqrt(-2.0 * math.log((a + 0.5) / 2.0**32))
        rest = (b & 0x3FFFFFFF) if not b & 0x20000000 else (b & 0x3FFFFFFF) - 2**30  # thirty bits with a sign
        angle = (b >> 30) * math.pi / 2 + rest * math.pi / 2 / 2.0**30
        expected = radius * (math.cos(angle) if lane < 128 else math.sin(angle))
        assert WHOLE[0, element] == pytest.approx(expected, abs=3e-6)


def test_noise_is_standard_normal():
    z = np.sort(normals(KEY, members(0, 1), 0, 1 << 20)[0].astype(np.float64))
    n = len(z)
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1.0) < 4 * math.sqrt(2.0 / n)
    assert abs((z**3).mean()) < 4 * math.sqrt(15.0 / n)
    assert abs((z**4).mean() - 3.0) < 4 * math.sqrt(96.0 / n)
    assert 4.5 < abs(z).max() < 6.8
    # Kolmogorov–Smirnov beside Φ in closed form; P(sup > 1.95/√n) = 0.001
    phi = np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in z[:: 1 << 6]])
    place = np.arange(0, n, 1 << 6)
    assert max(np.abs(phi - place / n).max(), np.abs(phi - (place + 1) / n).max()) < 1.95 / math.sqrt(n)


def test_the_tail_is_as_heavy_as_a_normal_tail():
    z = np.abs(normals(KEY, members(1, 8), 0, 1 << 18))
    for limit in (2.0, 3.0, 4.0):
        expected = math.erfc(limit / math.sqrt(2.0)) * z.size
        assert abs((z > limit).sum() - expected) < 4 * math.sqrt(expected)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.astype(np.float64), b.astype(np.float64))[0, 1])


def test_noise_of_other_pairs_generations_tensors_parts_seeds_and_neighbours_is_independent():
    n = 1 << 17
    one = normals(KEY, members(5, 10, range(2, 3)), 0, n)[0]
    others = {
        "pair": normals(KEY, members(5, 10, range(3, 4)), 0, n)[0],
        "generation": normals(KEY, members(6, 10, range(2, 3)), 0, n)[0],
        "tensor": normals(noise_key(7, "layer.bias", "full"), members(5, 10, range(2, 3)), 0, n)[0],
        "part": normals(noise_key(7, "layer.weight", "left"), members(5, 10, range(2, 3)), 0, n)[0],
        "seed": normals(noise_key(8, "layer.weight", "full"), members(5, 10, range(2, 3)), 0, n)[0],
        "neighbour": np.roll(one, 1),
        "cosine and sine": np.roll(one.reshape(-1, 2, 128), 1, axis=1).reshape(-1),
        "next block": np.roll(one, BLOCK),
    }
    for name, other in others.items():
        limit = 4 / math.sqrt(n if name != "cosine and sine" else n / 2)
        assert abs(correlation(one, other)) < limit, name
        assert abs(correlation(one**2, other**2)) < limit, name


@settings(max_examples=50, deadline=None)
@given(start=st.integers(0, 19_000), count=st.integers(1, 1_000))
def test_however_a_piece_is_cut_its_elements_are_the_same(start, count):
    assert_array_equal(normals(KEY, members(3, 25, range(4, 6)), start, count), WHOLE[:, start : start + count])


def test_a_generation_that_cannot_be_told_apart_is_refused():
    assert members(2**31 - 1, 2).tolist() == [2**32 - 2, 2**32 - 1]
    with pytest.raises(ConfigError, match="generation 2147483648 with 2 pairs"):
        members(2**31, 2)


def test_centred_ranks_by_hand():
    assert_array_equal(centred_ranks(np.array([[3.0, -1.0], [10.0, 0.0]])), np.array([[1 / 6, -0.5], [0.5, -1 / 6]]))
    assert_array_equal(centred_ranks(np.array([1.0, 2.0, 2.0, 5.0])), np.array([-0.5, 0.0, 0.0, 0.5]))  # 1½ of 3, less ½
    assert_array_equal(centred_ranks(np.array([4.0, 4.0, 4.0])), np.zeros(3))
    assert_array_equal(centred_ranks(np.array([-np.inf, 7.0, np.inf])), np.array([-0.5, 0.0, 0.5]))
    assert_array_equal(centred_ranks(np.array([4.0])), np.zeros(1))


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.integers(-3, 3), min_size=2, max_size=30))
def test_ranks_sum_to_zero_and_ignore_the_scale(values):
    fitness = np.array(values, np.float64)
    ranks = centred_ranks(fitness)
    assert ranks.sum() == pytest.approx(0.0, abs=1e-12)
    assert_array_equal(ranks, centred_ranks(np.exp(fitness) * 1e6))
    slow = [(np.sum(fitness < v) + (np.sum(fitness == v) - 1) / 2) / (len(values) - 1) - 0.5 for v in fitness]
    np.testing.assert_allclose(ranks, slow, atol=1e-12)
