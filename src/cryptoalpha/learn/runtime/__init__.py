"""Where agents and workers live: threads or processes of this machine, or actors of a Ray cluster, chosen by config alone.

    async with open_executor(settings.learn.runtime) as executor:
        await executor.spawn("texts", build_agent)                  # functions of importable modules
        signals = await executor.call("texts", observe, batch, call_id=batch_id)

`contract` is what all of them promise, `host` what runs where an actor lives, `seated` the restarts and repeats, `local` and `ray_seats`
the places, `ray_workers` the Ray side of `learn.workers`, `ray_train` gradient training by many processes. Only `ray_cluster` imports ray.
"""

from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.learn.runtime.contract import ActorHealth, Executor, Resources
from cryptoalpha.learn.runtime.opening import open_executor, open_workers

__all__ = ["ActorHealth", "Executor", "Resources", "RuntimeConfig", "open_executor", "open_workers"]
