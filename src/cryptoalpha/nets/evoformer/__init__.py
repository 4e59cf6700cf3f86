"""The Evoformer of AlphaFold 2 for markets: sequences and pairs that inform each other, and a time axis that cannot see ahead."""
