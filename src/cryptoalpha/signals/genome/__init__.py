"""The market genome as a source of opinions: named tokens of the bars, windows of them, what they are taught with, trained models."""
