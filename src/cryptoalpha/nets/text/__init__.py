"""Encoders that turn texts into vectors, and the head that reads a sentiment from them."""
