"""The forecaster as a source of opinions: its inputs and labels, its fixed blocks of bars, its trained models."""
