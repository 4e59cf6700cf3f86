"""BERT-sized encoders behind `transformers`: a text's vector is the mean of its tokens' last hidden states.

Texts are grouped by their exact number of tokens, so there is no padding and a vector depends on nothing but its text. Whether this
machine's matrix products give a row the same bits alone and among others is asked once, when the model is loaded; where they do not,
texts are encoded one at a time, as very short ones always are. One thread, no gradients, evaluation mode. Nothing is fetched unless a
repository is named that is not kept yet.

Source: Reimers & Gurevych (2019), "Sentence-BERT" (mean pooling with the attention mask). Departure: vectors are not scaled to length 1; a
head has its own scaler.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.nets.text.labels import polarities

Vectors = npt.NDArray[np.float32]

LONGEST = 256
"""Tokens read of a text at most, where the model reads as many: what all-MiniLM-L6-v2 was tuned for. A headline has 17."""

SHORT = 8
"""Texts of fewer tokens are encoded one at a time: for so few rows matrix libraries choose kernels by their number (seen at 2 and 3)."""

_PROBES = ((SHORT, 2), (17, 3), (17, 16), (40, 5))
"""Tokens and texts with which batches are compared with single texts."""


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside, as many as before after it: sums are then made in one order, and other processes have their cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class BertEncoder:
    """A frozen encoder, and the classifier above it where the model has one.

    Args:
        model: `AutoModel` or `AutoModelForSequenceClassification` of transformers.
        tokenizer: its tokenizer.
        name, revision: how the weights are known.
        longest: tokens read of a text at most; the model's own limit if that is less.
        batch: texts encoded at once.

    Shapes:
        `n` texts → float32 `[n, width]`; polarity `[n]` in [−1, 1].

    Raises:
        ConfigError: for a batch or a length below 1.
        ModelError: if the classifier's labels say no side.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, revision: str, longest: int = LONGEST, batch: int = 64) -> None:
        if longest < 1 or batch < 1:
            raise ConfigError(f"an encoder needs a batch and a length of at least 1, got {batch} and {longest}")
        self.name, self.revision = name, revision
        self._model, self._tokenizer = model.eval().requires_grad_(False), tokenizer
        self.width = int(model.config.hidden_size)
        # RoBERTa-like models lose the positions up to their padding token
        positions = int(model.config.max_position_embeddings) - (2 if "roberta" in str(model.config.model_type) else 0)
        self._longest = min(longest, positions, int(tokenizer.model_max_length))
        self._polarity: Vectors | None = None
        if self.classifies:
            labels = {int(i): str(label) for i, label in model.config.id2label.items()}
            self._polarity = np.array(polarities(labels, name), np.float32)
        self._batch = batch if batch == 1 or self._agrees(batch) else 1

    @property
    def classifies(self) -> bool:
        """Whether there is a classifier above the encoder."""
        return hasattr(self._model, "num_labels") and hasattr(self._model, "classifier")

    @property
    def batch(self) -> int:
        """Texts encoded at once: what was asked for, or 1 on a machine where batches change bits."""
        return self._batch

    def encode(self, texts: Sequence[str]) -> Vectors:
        """The mean of the last hidden states over the tokens of each text."""
        return self._over(texts, self._vectors, self.width)

    def polarity(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Expected polarity by the model's own classes.

        Raises:
            ModelError: if it has none.
        """
        if self._polarity is None:
            raise ModelError(f"{self.name} has no sentiment classes", hint="train a head: `cryptoalpha train sentiment`")
        shares = self._over(texts, self._shares, len(self._polarity))
        return shares.astype(np.float64) @ self._polarity.astype(np.float64)

    def _over(self, texts: Sequence[str], answer: Any, width: int) -> Vectors:
        """Answer texts in groups of equally many tokens, longest first so that memory is asked for once."""
        out = np.empty((len(texts), width), np.float32)
        if not len(texts):
            return out
        ids: list[list[int]] = self._tokenizer(list(texts), truncation=True, max_length=self._longest)["input_ids"]
        groups: dict[int, list[int]] = {}
        for place, tokens in enumerate(ids):
            groups.setdefault(len(tokens), []).append(place)
        with torch.inference_mode(), one_thread():
            for length in sorted(groups, reverse=True):
                places = groups[length]
                batch = self._batch if length >= SHORT else 1
                for first in range(0, len(places), batch):
                    some = places[first : first + batch]
                    out[some] = answer(torch.tensor([ids[place] for place in some])).numpy()
        if not np.isfinite(out).all():
            raise ModelError(f"the text encoder {self.name} answered NaN", hint="its weights are damaged; get them anew")
        return out

    def _vectors(self, ids: Tensor) -> Tensor:
        base = self._model.base_model if self.classifies else self._model
        hidden: Tensor = base(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state  # [n, tokens, width]
        return hidden.mean(dim=1).float()  # every token counts: there is no padding

    def _shares(self, ids: Tensor) -> Tensor:
        logits: Tensor = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return logits.float().softmax(dim=-1)

    def _agrees(self, batch: int) -> bool:
        """Whether a text has the same bits alone and in batches, for a few shapes."""
        vocabulary = int(self._model.config.vocab_size)
        with torch.inference_mode(), one_thread():
            for length, count in _PROBES:
                length, count = min(length, self._longest), min(count, batch)
                ids = (torch.arange(count * length).reshape(count, length) * 7919 + 13) % vocabulary
                alone = torch.cat([self._vectors(row[None]) for row in ids])
                if not torch.equal(self._vectors(ids), alone):
                    return False
        return True
