"""Evolution strategies: learning towards goals that have no gradient, with seeds instead of copies of the weights."""

from cryptoalpha.learn.evolution.checkpoint import load, save
from cryptoalpha.learn.evolution.loop import Evolved, Generation, Replica, evolve
from cryptoalpha.learn.evolution.population import Population, Together, perturbed_linear
from cryptoalpha.learn.evolution.ranks import centred_ranks
from cryptoalpha.learn.evolution.strategy import Evolution, Fitness, Table

__all__ = [
    "Evolution",
    "Evolved",
    "Fitness",
    "Generation",
    "Population",
    "Replica",
    "Table",
    "Together",
    "centred_ranks",
    "evolve",
    "load",
    "perturbed_linear",
    "save",
]
