"""The market genome as a source of opinions: one token set per closed bar, levels that hold or break, trained models."""
