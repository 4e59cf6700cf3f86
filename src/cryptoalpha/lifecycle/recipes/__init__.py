"""How each model is born: its data, its folds, its baselines, its judges and the artefact that remains."""
