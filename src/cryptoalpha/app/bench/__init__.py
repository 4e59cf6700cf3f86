"""`cryptoalpha bench NAME`: speed as ratios against named baselines, measured in one run."""
