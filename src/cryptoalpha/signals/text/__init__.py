"""What texts say: tiers of encoders behind one protocol, their cache, the one lexicon."""
