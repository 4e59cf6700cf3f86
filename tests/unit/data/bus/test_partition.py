"""Keys go where Kafka's own clients send them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.data.bus.partition import murmur2, partition_of


@pytest.mark.parametrize(("key", "partition"), [("BTC/USDT", 0), ("ETH/USDT", 3), ("SOL/USDT", 2)])
def test_the_keys_of_four_partitions(key, partition):
    assert partition_of(key, 4) == partition


@pytest.mark.parametrize(
    ("data", "value"),
    # Apache Kafka, UtilsTest.testMurmur2; there as signed numbers
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_vectors_of_kafkas_own_test(data, value):
    assert murmur2(data) == value % 2**32


@settings(max_examples=200)
@given(st.binary(max_size=41))
def test_the_hash_is_that_of_a_client_in_use(data):
    reference = pytest.importorskip("aiokafka.partitioner").murmur2
    assert murmur2(data) == reference(data)
