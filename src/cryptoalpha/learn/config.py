"""How things learn and plan. The defaults are the user's own numbers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, Section

Discount = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]
Fanouts = Annotated[tuple[Count, ...], Field(min_length=1)]
Port = Annotated[int, Field(ge=1, le=65_535)]

LONGEST_TEMP_DIR = 50
"""A Unix socket's path has at most 107 bytes, and Ray appends about 55 (session folder with date and process, `sockets/plasma_store`)."""


class PlannerConfig(Section):
    """[learn.planner] Planning: tree search, and scenario trees where the action only moves a position."""

    simulations: Count = 800
    """Simulations of one decision; AlphaZero's number for chess."""

    root: Literal["gumbel", "puct"] = "gumbel"
    """How the root spends its simulations: `gumbel` improves on its prior even with 16–64 of them (Danihelka et al. 2022), `puct` is
    AlphaZero's."""

    c_puct: Positive = 1.4
    """Weight of the prior against the value while searching. Values are rescaled to 0–1 inside the tree, else it would be pure exploration
    on returns of a few basis points."""

    c_base: Positive = 19_652.0
    """Visits after which the weight of the prior grows; MuZero's number."""

    considered_actions: Count = 16
    """Actions that a Gumbel root considers at most, the likeliest by its prior."""

    outcomes: Fanouts = (8, 4)
    """Outcomes of a chance node in tree search, by depth; the last number holds for all deeper nodes."""

    branching: Fanouts = (28, 28)
    """Outcomes per node and depth of a scenario tree. Their product is the number of leaves: 784 reach the optimum of a mean-reverting
    market with a good guess at the leaves, and 96 % of it with none."""

    dirichlet_fraction: Fraction = 0.25
    """Share of noise in the root's prior (0–1) during self-play with the `puct` root; none when acting."""

    dirichlet_alpha: Positive = 0.3
    """Concentration of that noise; AlphaZero's number for chess."""

    discount: Discount = 0.99
    """Worth of one bar later (above 0, below 1): a horizon of about a hundred bars."""

    memory_mib: Count = 2_048
    """Memory (MiB) that the trees of one plan may take; a plan that needs more is refused before it starts."""


class EvolutionConfig(Section):
    """[learn.evolution] Evolution strategy on goals that have no gradient, such as Sharpe after costs."""

    population: Annotated[int, Field(ge=2, multiple_of=2)] = 50
    """Members of one generation (even, ≥ 2); half of them mirror the other half."""

    sigma: Positive = 0.02
    """Standard deviation of the noise added to each weight. From a trained optimum a quarter of it does less harm."""

    rank: Annotated[int, Field(ge=0)] = 1
    """Rank of the noise on matrices (Sarkar et al. 2025); 0 draws every weight's noise on its own, which costs many times as much."""

    learning_rate: Positive = 3e-4
    """Step size of Adam on the estimated gradient."""

    weight_decay: Fraction = 0.0
    """Share of each weight, times the step size, that is lost per generation (0–1)."""

    accept_tolerance: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    """By how much the goal on the accept split may fall before a generation is undone; in the goal's own units."""


class ReplayConfig(Section):
    """[learn.replay] What was decided and what came of it, kept for learning."""

    capacity: Count = 100_000
    """Rows kept; the oldest make room."""

    n_steps: Count = 5
    """Rewards counted before the rest is read from the value of the state reached."""

    surprise_share: Fraction = 0.0
    """Share of a sample drawn by how much the search changed the network's mind (0–1); the rest is drawn evenly. KataGo uses 0.5."""

    priority_exponent: Fraction = 0.6
    """How strongly priorities count in prioritised replay (0–1); 0 is uniform (Schaul et al. 2016)."""

    importance_exponent: Fraction = 0.4
    """How far prioritised samples are weighed back to uniform (0–1); 1 removes the bias."""


class FitConfig(Section):
    """[learn.fit] Gradient training."""

    learning_rate: Positive = 1e-4
    """Step size of the optimiser, at its peak."""

    batch: Count = 32
    """Samples of one step, all processes together."""

    epochs: Count = 20
    """Passes over the training samples at most."""

    weight_decay: Fraction = 0.01
    """Decoupled weight decay of AdamW (0–1)."""

    warmup: Fraction = 0.05
    """Share of all steps over which the step size rises from 0 (0–1)."""

    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the step size falls after the warm-up."""

    gradient_clip: Positive = 1.0
    """Largest norm of the gradient."""

    patience: Count = 3
    """Checks on validation samples without a new best after which training stops and the best weights return."""

    mixed_precision: Literal["auto", "bf16", "off"] = "auto"
    """`auto` computes in bf16 on a GPU that has it and in fp32 on a CPU, where bf16 is slower."""

    checkpoint_seconds: Positive = 60.0
    """Training time between two checkpoints; a killed run repeats at most this much."""


class ActorCriticConfig(Section):
    """[learn.actor_critic] The small learner that weighs text signals and proposes actions."""

    value_widths: tuple[Count, ...] = (768, 256, 256, 1)
    """Layer widths of the value network, input to output."""

    policy_widths: tuple[Count, ...] = (768, 256, 128, 5)
    """Layer widths of the policy network, input to output; five market actions, strong sell to strong buy."""

    learning_rate: Positive = 3e-4
    """Step size of Adam."""

    discount: Fraction = 0.99
    """Worth of one bar later (0–1)."""

    gae_lambda: Fraction = 0.95
    """How far advantages look along rewards rather than at the next value (0–1); Schulman et al. 2016."""

    value_weight: Positive = 0.5
    """Weight of the value loss."""

    entropy_weight: Fraction = 0.01
    """Weight of the entropy bonus (0–1), so that the policy keeps trying."""

    entropy_half_life_updates: Count = 10_000
    """Updates after which the entropy bonus has halved."""

    gradient_clip: Positive = 0.5
    """Largest norm of the gradient."""

    ratio_clip: Fraction = 0.2
    """How far the probability of an action may have moved from the policy that took it before the action stops teaching (0–1)."""

    divergence_limit: Positive = 0.1
    """KL divergence (nats) of one update above which the last good weights return."""


class DistributedConfig(Section):
    """[learn.distributed] Training on several processes."""

    world_size: Count = 4
    """Processes that train together."""

    backend: Literal["nccl", "gloo"] = "nccl"
    """`nccl` between GPUs, `gloo` between CPU processes."""

    master_address: str = "localhost"
    """Host of the process of rank 0."""

    master_port: Port = 29_500
    """Port of the process of rank 0 (1–65535)."""


class RuntimeConfig(Section):
    """[learn.runtime] Where agents and workers live."""

    backend: Literal["local", "ray"] = "local"
    """`local` is this machine and needs no server; `ray` a Ray cluster (`pip install "cryptoalpha[ray]"`). Nothing else changes."""

    processes: bool = False
    """Local agents in a process each instead of a thread each: a crash in native code then ends one agent, not the run, at 35 MB of memory
    and more, and a third of a millisecond per call."""

    restarts: Annotated[int, Field(ge=0)] = 3
    """Times in a row that an agent or worker may die over the same work before that is given up; fewer would lose work to a flaky node,
    more would let one poisonous message kill for minutes."""

    restart_seconds: Positive = 0.2
    """Wait before the first restart (seconds); doubles with each further one, up to a hundred times."""

    call_seconds: Positive = 120.0
    """Time (seconds) a call may take before its agent counts as dead and is killed. A thread cannot be killed: its call just fails."""

    start_seconds: Positive = 120.0
    """Time (seconds) Ray may take to find room for an agent or worker and to build it: models have to be read, machines may be busy."""

    remembered_calls: Count = 256
    """Newest answers an agent keeps by the id of their call, so that a call that is repeated is answered and not done again."""

    address: str = ""
    """The Ray cluster: `host:6379` from a machine that is part of it, `ray://host:10001` from outside; empty starts Ray on this machine,
    for as long as the run lasts."""

    cpus: Annotated[int, Field(ge=0)] = 0
    """CPUs that a Ray started here may give away; 0 means all of this machine."""

    object_store_mib: Annotated[int, Field(ge=80)] = 200
    """Shared memory (MiB, ≥ 80) of a Ray started here. Ray would take 30 % of the machine; agents pass kilobytes."""

    temp_dir: Annotated[str, Field(max_length=LONGEST_TEMP_DIR)] = ""
    """Folder for logs and sockets of a Ray started here, short because sockets lie in it; empty makes one and removes it at the end."""

    cpus_per_actor: NonNegative = 0.1
    """CPUs that Ray sets aside for one agent or worker. A tenth, because agents mostly wait; Ray refuses to place more than there are."""

    gpus_per_actor: NonNegative = 0.0
    """GPUs for one agent or worker: a fraction below 1 shares one GPU, above 1 a whole number. 0 because nothing here needs one."""

    token_auth: bool = True
    """Whether whoever talks to Ray must show the cluster's token. Off only in a network where nobody else can reach Ray's ports."""

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.gpus_per_actor > 1 and self.gpus_per_actor != int(self.gpus_per_actor):
            raise ValueError("gpus_per_actor above 1 must be a whole number")
        return self


class LearnConfig(Section):
    """[learn] How things learn and plan."""

    planner: PlannerConfig = PlannerConfig()
    """Search."""

    evolution: EvolutionConfig = EvolutionConfig()
    """Without gradients."""

    replay: ReplayConfig = ReplayConfig()
    """What is learned from."""

    fit: FitConfig = FitConfig()
    """With gradients."""

    actor_critic: ActorCriticConfig = ActorCriticConfig()
    """From outcomes."""

    distributed: DistributedConfig = DistributedConfig()
    """On several processes."""

    runtime: RuntimeConfig = RuntimeConfig()
    """Where agents and workers live."""
