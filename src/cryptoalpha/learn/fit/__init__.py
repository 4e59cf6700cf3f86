"""Gradient training that can be killed anywhere: one process or many, resumed to the bit.

    with World.join(settings.learn.distributed) as world:              # one process alone needs no world
        report = fit(model, loss, TensorSamples(x, y), config=settings.learn.fit, seed=0, validate=on_the_folds_own_samples,
                     checkpoint=path, world=world)

`loop` is the training loop, `gradient_step` one step of it, `order` says who is in which batch, `checkpoint` is the run on disk, `world`
the processes that train together, and `launch` starts them.
"""

from cryptoalpha.learn.fit.loop import fit
from cryptoalpha.learn.fit.report import FitInterrupted, FitProgress, FitReport, Progress
from cryptoalpha.learn.fit.samples import Samples, TensorSamples
from cryptoalpha.learn.fit.world import World

__all__ = ["FitInterrupted", "FitProgress", "FitReport", "Progress", "Samples", "TensorSamples", "World", "fit"]
