"""What a study provides for: early stopping, a budget, time limits, each trial's resources, a confirmation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count, takewhile
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sweep.attacks import NamedAttack
from sweep.configuration import Several
from sweep.errors import counted
from sweep.registry import Record


class Asha(Record):
    """Asynchronous successive halving (Li et al. 2018): at each rung only the best 1 / reduction_factor go on.

    Rungs lie at grace_period * reduction_factor^k of `resource`. Stopping: a trial is trained on beyond a rung if its
    best value so far is among the best that reached the rung before it. Promotion (Algorithm 2 there): it is trained
    for a rung's epochs alone, all schedules compressed to them, and from scratch for the next rung's once it is among
    the best of its rung, whenever that is; the last rung is the configuration's own epochs.
    """

    kind: Literal["stopping", "promotion"] = Field(
        "stopping",
        description="stopping trains on what goes on; promotion trains it again with a longer schedule, for schedules "
        "that make early epochs say nothing of the end",
    )
    resource: Literal["epochs", "gradient_evaluations"] = Field(
        "epochs", description="what rungs are counted in; a promotion's are whole trainings, and so epochs"
    )
    grace_period: int = Field(ge=1, description="the first rung: resource before which nothing is judged")
    reduction_factor: int = Field(3, ge=2, le=100, description="one in this many goes on")

    @model_validator(mode="after")
    def _counts_what_can_be_compressed(self) -> Asha:
        if self.kind == "promotion" and self.resource != "epochs":
            raise ValueError(
                f"kind 'promotion' trains each rung's schedule to its end, in epochs; resource is '{self.resource}': "
                "give resource='epochs' and the grace_period in epochs, or kind='stopping'"
            )
        return self

    def levels(self) -> Iterator[int]:
        """The rungs, without end."""
        return (self.grace_period * self.reduction_factor**k for k in count())

    def ladder(self, epochs: int) -> list[int]:
        """The epochs of each training through which promotion leads a configuration of so many epochs."""
        return [*takewhile(lambda level: level < epochs, self.levels()), epochs]


class Budget(Record):
    """When no further trial begins; those that run are finished. Of several limits the first one reached counts."""

    trials: int = Field(ge=1, le=1_000_000, description="at most so many, whatever other limits there are")
    gradient_evaluations: int | None = Field(None, ge=1, description="of all trials together, validation excluded")
    hours: float | None = Field(None, gt=0, description="wall time over all sessions of the study")


class Limits(Record):
    """Wall time, in hours, after which a trial's process is ended from outside, whatever it is doing."""

    trial_hours: float | None = Field(
        None, gt=0, description="of one trial, all its attempts together: it ends as timed_out"
    )
    epoch_hours: float | None = Field(
        6.0,
        gt=0,
        description="without a finished epoch, for the attacks and checks at the end, or for a process to start: it "
        "hangs, and the trial is taken up again (retries)",
    )


ACCELERATOR = "ray.io/accelerator-type"  # Ray's own label of a node that has any
_LABEL_VALUE = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,61}[A-Za-z0-9])?", re.ASCII)


class Resources(Record):
    """What one trial gets, and where. A fraction of a GPU lets several trials share one; Ray does not isolate their
    memory."""

    cpus: int = Field(1, ge=1, le=1024)
    gpus: float = Field(0.0, ge=0, le=64)
    accelerator_type: str | None = Field(
        None, description="the GPU's kind by Ray's name, such as A10G or H100; none: whichever the node has"
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="what the node's labels must be, such as {'ray.io/market-type': 'spot'}"
    )

    def __str__(self) -> str:
        kind = f" of type {self.accelerator_type}" if self.accelerator_type else ""
        where = ", ".join(f"{name}={value}" for name, value in self.labels.items())
        return self.amount + kind + (f" on a node with the label {where}" if where else "")

    @property
    def amount(self) -> str:
        return f"{counted(self.cpus, 'CPU')} and {counted(self.gpus, 'GPU')}"

    @property
    def selector(self) -> dict[str, str]:
        """The labels of the nodes that will do, the GPU's kind among them."""
        return self.labels | ({ACCELERATOR: self.accelerator_type} if self.accelerator_type else {})

    def fit(self, node: Resources) -> bool:
        """Whether a node that has nothing else to do can give them."""
        enough = self.cpus <= node.cpus and self.gpus <= node.gpus
        return enough and self.selector.items() <= node.selector.items()

    def times(self, share: int, node: Resources) -> Resources:
        """So many times as much, up to all of a node; of GPUs no more than one, on which a trial lives."""
        gpus = max(min(self.gpus * share, node.gpus, 1.0), self.gpus)
        return self.model_copy(update={"cpus": max(min(self.cpus * share, node.cpus), self.cpus), "gpus": gpus})

    @model_validator(mode="after")
    def _can_be_had(self) -> Resources:
        if self.gpus > 1 and self.gpus % 1:
            raise ValueError(f"gpus: a fraction of one, or a whole number, but got {self.gpus:g}")
        if ACCELERATOR in self.labels:
            raise ValueError(f"labels: write accelerator_type={self.labels[ACCELERATOR]!r} in place of {ACCELERATOR!r}")
        if self.accelerator_type and not self.gpus:
            raise ValueError(
                f"accelerator_type: {self.accelerator_type} of a trial that gets no GPU: give gpus as well"
            )
        for name, value in self.selector.items():
            if not _LABEL_VALUE.fullmatch(value):
                raise ValueError(
                    f"a label's value is a word of letters, digits, '-', '_' and '.', but {name} is {value!r}"
                )
        return self


class Confirmation(Record):
    """What a confirming study trains again: `sweep confirm` writes it, a search-space file does not.

    Trial n of such a study trains candidate n modulo their number, with a fresh seed.
    """

    study: str = Field(description="name of the study that was searched")
    fingerprint: str = Field(description="of that study")
    trials: Annotated[tuple[int, ...], Several] = Field(min_length=1, description="the candidates, best first")
    values: Annotated[tuple[float, ...], Several] = Field(
        min_length=1, description="the objective as the search saw it"
    )
    baselines: int = Field(ge=0, description="how many of the last candidates are baselines rather than winners")
    seeds: int = Field(ge=1, le=1_000, description="trainings of each candidate")
    raced: int = Field(0, ge=0, description="how many raced, on validation, for being candidates; 0: the search chose")
    attacks: Annotated[tuple[NamedAttack, ...], Several] = Field(min_length=1, description="on the test split")

    @property
    def trainings(self) -> int:
        """Of all candidates together."""
        return len(self.trials) * self.seeds

    def training(self, number: int) -> tuple[int, int]:
        """What trial `number` trains: a candidate, by its number in the search, with which of its seeds, from 1."""
        seed, place = divmod(number, len(self.trials))
        return self.trials[place], seed + 1
