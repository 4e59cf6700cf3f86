"""Tones from a trained head, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import ConfigError, DataMissingError, ModelError, StoreError
from cryptoalpha.nets.text.head import SentimentHead
from cryptoalpha.signals.book import build_model
from cryptoalpha.signals.config import SignalsConfig, TextConfig
from cryptoalpha.signals.text import EncoderId, SentimentModel, open_encoder, open_tone, require_encoder
from cryptoalpha.signals.text.lexicon import tone_of
from cryptoalpha.signals.text.lexicon_encoder import LexiconEncoder
from cryptoalpha.signals.text.tone import HeadTone, lexicon_tone

TEXTS = ["Bitcoin surges", "Bitcoin plunges after hack", "", "Ether flat"] * 3
IDENTITY = EncoderId.of(LexiconEncoder())


def head(hidden: int = 8, seed: int = 0) -> SentimentHead:
    made = SentimentHead(384, hidden=hidden, seed=seed)
    made.fit_scaler(torch.from_numpy(LexiconEncoder().encode(TEXTS)))
    return made.eval()


def model(hidden: int = 8, seed: int = 0, encoder: EncoderId = IDENTITY) -> SentimentModel:
    return SentimentModel(encoder, {name: part.numpy().copy() for name, part in head(hidden, seed).state_dict().items()}, {"seed": seed})


@pytest.mark.parametrize("hidden", [0, 8])
def test_without_torch_the_head_answers_what_it_answers_with_torch(hidden):
    vectors = LexiconEncoder().encode(TEXTS)
    with torch.no_grad():
        expected = head(hidden).double()(torch.from_numpy(vectors).double()).softmax(dim=-1).numpy()
    np.testing.assert_allclose(model(hidden).shares(vectors), expected, atol=1e-12)
    np.testing.assert_allclose(model(hidden).polarity(vectors), expected @ [-1.0, -0.5, 0.0, 0.5, 1.0], atol=1e-12)


def test_a_tone_has_the_same_bits_in_any_company():
    vectors = LexiconEncoder().encode(TEXTS)
    together = model().polarity(vectors)
    assert [float(model().polarity(vectors[row : row + 1])[0]) for row in range(len(TEXTS))] == together.tolist()
    assert model().polarity(vectors[:0]).shape == (0,)


def test_a_head_is_kept_bit_for_bit_with_its_lineage(tmp_path):
    model().save(tmp_path / "head")
    kept = SentimentModel.load(tmp_path / "head", encoder=LexiconEncoder())
    assert kept.digest == model().digest != model(seed=1).digest
    assert kept.lineage == {"seed": 0}
    assert kept.encoder == IDENTITY


@pytest.mark.parametrize(
    "other",
    [EncoderId("minilm", IDENTITY.revision, 384), EncoderId("lexicon", "another", 384), EncoderId("lexicon", IDENTITY.revision, 768)],
)
def test_another_encoder_is_refused_even_of_equal_width(tmp_path, other):
    model().save(tmp_path / "head")
    with pytest.raises(ModelError, match="was trained on vectors of the text encoder lexicon"):
        SentimentModel.load(tmp_path / "head", encoder=other)
    with pytest.raises(ModelError):
        require_encoder(other, LexiconEncoder(), where="a model")


def test_vectors_of_another_width_are_refused():
    with pytest.raises(ConfigError):
        model().shares(np.zeros((1, 383), np.float32))


def test_a_damaged_or_incomplete_head_is_refused(tmp_path):
    path = tmp_path / "head"
    model().save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="damaged"):
        SentimentModel.load(path)
    arrays = dict(model().arrays)
    with pytest.raises(ModelError, match="expected"):
        SentimentModel(IDENTITY, {**arrays, "mean": arrays["mean"][:-1]})
    with pytest.raises(ModelError, match="not finite"):
        SentimentModel(IDENTITY, {**arrays, "mean": arrays["mean"] * np.nan})


def test_the_default_tone_is_the_lexicons_to_the_bit():
    assert open_tone() is lexicon_tone
    assert open_tone(TextConfig(encoder="minilm")) is lexicon_tone  # no head: nothing has to be installed
    assert lexicon_tone(TEXTS).tolist() == [tone_of(text) for text in TEXTS]


def test_a_configured_head_speaks_instead_of_the_lexicon(tmp_path):
    model().save(tmp_path / "head")
    tone = open_tone(TextConfig(sentiment_model=str(tmp_path / "head")))
    assert isinstance(tone, HeadTone)
    assert tone(TEXTS).tolist() == model().polarity(LexiconEncoder().encode(TEXTS)).tolist()
    assert tone(TEXTS).tolist() != lexicon_tone(TEXTS).tolist()


def test_a_head_of_another_encoder_is_refused_at_the_first_text(tmp_path):
    model(encoder=EncoderId("minilm", "1", 384)).save(tmp_path / "head")
    tone = open_tone(TextConfig(sentiment_model=str(tmp_path / "head")))
    with pytest.raises(ModelError, match="is configured"):
        tone(["x"])


def test_a_head_that_is_not_there_is_said_when_the_book_is_built(tmp_path):
    with pytest.raises(DataMissingError):
        open_tone(TextConfig(sentiment_model=str(tmp_path / "nothing")))


def test_the_book_gives_news_tone_what_the_configuration_names(tmp_path):
    model().save(tmp_path / "head")
    named = SignalsConfig(text=TextConfig(sentiment_model=str(tmp_path / "head")))
    assert isinstance(build_model("news_tone", named)._tones, HeadTone)
    assert build_model("news_tone", SignalsConfig())._tones is lexicon_tone


@pytest.mark.parametrize("encoder", ["", "bert", "hf:", "lexicon2"])
def test_an_unknown_encoder_is_named(encoder):
    with pytest.raises(ConfigError, match="no text encoder"):
        open_encoder(TextConfig(encoder=encoder))


def test_a_pinned_revision_must_be_the_one_there_is():
    assert open_encoder(TextConfig(revision=IDENTITY.revision)).revision == IDENTITY.revision
    with pytest.raises(ConfigError, match="asks for old"):
        open_encoder(TextConfig(revision="old"))
