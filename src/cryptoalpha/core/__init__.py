"""The words of the house: frozen values, time, errors, config base, seeds. No behaviour, no I/O.

Every other room may import this one; this one imports no other.
"""
