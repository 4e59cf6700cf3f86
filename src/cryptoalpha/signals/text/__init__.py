"""What texts say: tiers of encoders behind one protocol, their cache, the one lexicon."""

from cryptoalpha.signals.text.encoder import EncoderId, PolarEncoder, TextEncoder, require_encoder
from cryptoalpha.signals.text.relevance import relevance
from cryptoalpha.signals.text.sentiment import SentimentModel
from cryptoalpha.signals.text.tiers import open_encoder
from cryptoalpha.signals.text.tone import Tone, open_tone

__all__ = [
    "EncoderId", "PolarEncoder", "SentimentModel", "TextEncoder", "Tone", "open_encoder", "open_tone", "relevance", "require_encoder",
]  # fmt: skip
