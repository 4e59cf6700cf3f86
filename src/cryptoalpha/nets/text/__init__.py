"""Encoders that turn texts into vectors, and the head that reads a sentiment from them.

`bert` is the encoder, `loading` finds its weights, `labels` says which side a class is on (it needs no torch), `head` learns from labels.
"""
