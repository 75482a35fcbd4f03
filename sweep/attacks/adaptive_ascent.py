"""Ascent that chooses its own step size, written once: APGD and its targeted form are this."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from sweep.attacks.base import Adversary, Objective, ask, input_gradient, misclassified, wrong
from sweep.threat_models.base import per_example

_MOMENTUM = 0.75  # alpha of the paper: the new direction's weight against the last step's
_RISING = 0.75  # rho: a stretch in which fewer of the steps went up has its step size halved
_FIRST, _SHORTER, _SHORTEST = 22, 3, 6  # stretches between two looks at the step size, in % of all steps


def looks(num_steps: int) -> list[int]:
    """The steps after which the step size is judged: w_j = ceil(p_j N), p_1 = .22, each stretch .03 shorter than the
    one before and never below .06. In whole percents, as .57 * 100 is more than 57 in floating point."""
    found, percent, stretch = [], _FIRST, _FIRST
    while percent <= 100:
        found.append(-(-percent * num_steps // 100))
        stretch = max(stretch - _SHORTER, _SHORTEST)
        percent += stretch
    return sorted(set(found))


@dataclass
class _Climb:
    """Where each example that is still climbed stands; every field's first dimension is theirs."""

    rows: Tensor
    images: Tensor
    labels: Tensor
    reference: Tensor
    points: Tensor
    previous: Tensor
    gradient: Tensor
    loss: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    best_at_look: Tensor
    step_size: Tensor
    was_halved: Tensor
    rises: Tensor

    @classmethod
    def begin(
        cls,
        images: Tensor,
        labels: Tensor,
        reference: Tensor,
        start: Tensor,
        gradient: Tensor,
        loss: Tensor,
        epsilon: Tensor | float,
    ) -> _Climb:
        return cls(
            rows=torch.arange(len(images), device=images.device),
            images=images,
            labels=labels,
            reference=reference,
            points=start,
            previous=start,
            gradient=gradient,
            loss=loss,
            best=start,
            best_gradient=gradient,
            best_loss=loss,
            best_at_look=loss,
            step_size=torch.full_like(loss, 2) * epsilon,
            was_halved=torch.zeros_like(loss, dtype=torch.bool),
            rises=torch.zeros_like(labels),
        )

    def release(self, logits: Tensor, result: Tensor) -> None:
        """Let those go whose point is misclassified, with that point as their result."""
        broken = wrong(logits, self.labels)
        if broken.any():
            result[self.rows[broken]] = self.points[broken]
            for field in fields(self):
                setattr(self, field.name, getattr(self, field.name)[~broken])

    def step(self, adversary: Adversary, first: bool) -> None:
        """z = P(x + step direction), then x <- P(x + .75 (z - x) + .25 (x - the x before)); the first step is z."""
        ball, epsilon, points = adversary.threat_model, adversary.epsilon, self.points
        size = per_example(self.step_size, points)
        self.points = ball.project(points + size * ball.direction(self.gradient.nan_to_num()), self.images, epsilon)
        if not first:
            leap = _MOMENTUM * (self.points - points) + (1 - _MOMENTUM) * (points - self.previous)
            self.points = ball.project(points + leap, self.images, epsilon)
        self.previous = points

    def look(self, network: nn.Module, objective: Objective, last: bool) -> Tensor:
        """Logits at the points, which are held against the highest ones. No gradient is needed after the last step."""
        if last:
            with torch.no_grad():
                logits: Tensor = network(self.points)
        else:
            logits, self.gradient = input_gradient(network, self.points, self.reference, objective)
        loss = objective(logits, self.reference)
        self.rises += loss > self.loss
        higher = loss > self.best_loss
        self.loss, self.best_loss = loss, torch.where(higher, loss, self.best_loss)
        higher = per_example(higher, self.points)
        self.best = torch.where(higher, self.points, self.best)
        self.best_gradient = torch.where(higher, self.gradient, self.best_gradient)
        return logits

    def adapt(self, stretch: int) -> None:
        """Halve the step size and go back to the highest point, where the last `stretch` steps rose too seldom
        (condition 1), or brought nothing new at a step size that was not halved at the last look (condition 2)."""
        stuck = ~self.was_halved & (self.best_loss == self.best_at_look)
        halved = (self.rises < _RISING * stretch) | stuck
        self.step_size = torch.where(halved, self.step_size / 2, self.step_size)
        self.loss = torch.where(halved, self.best_loss, self.loss)
        wide = per_example(halved, self.points)
        self.points = torch.where(wide, self.best, self.points)
        self.gradient = torch.where(wide, self.best_gradient, self.gradient)
        self.was_halved, self.best_at_look, self.rises = halved, self.best_loss, torch.zeros_like(self.rises)


def climb(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    start: Tensor,
    adversary: Adversary,
    *,
    objective: Objective,
    reference: Tensor,
    num_steps: int,
    until_broken: bool,
) -> Tensor:
    """Auto-PGD (Croce and Hein 2020, Algorithm 1): the point of the highest objective on the path, from a step size of
    2 epsilon. With `until_broken`, a misclassified point is kept and its example leaves the batch, as in `ascend`.

    Where the authors' code (fra31/auto-attack) and their words differ, each in passing: as in the code, a look at the
    step size follows step w_j at once, so that no step is thrown away; as in the words, condition 1 is a strict
    inequality, counts the first step against the start, and the step after a return against the highest point.
    """
    result = start.clone()
    logits, gradient = input_gradient(network, start, reference, objective)
    state = _Climb.begin(images, labels, reference, start, gradient, objective(logits, reference), adversary.epsilon)
    last_look, due = 0, looks(num_steps)
    if until_broken:
        state.release(logits, result)
    for step in range(1, num_steps + 1):
        if not len(state.rows):
            break
        state.step(adversary, first=step == 1)
        logits = state.look(network, objective, last=step == num_steps)
        if until_broken:
            state.release(logits, result)
        if step in due:
            state.adapt(step - last_look)
            last_look = step
    result[state.rows] = state.best
    return result


def worst_climb(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    adversary: Adversary,
    goals: Iterable[tuple[Objective, Tensor]],
    *,
    harm: Objective,
    num_steps: int,
    until_broken: bool,
) -> Tensor:
    """One climb from a random start for each goal, which is an objective and its reference. An example counts its worst
    end: a misclassified one, else that of the highest `harm`. With `until_broken` what is misclassified at the image
    comes back as it is, and later climbs see only what no earlier one has broken.
    """
    worst, highest = images.clone(), torch.full_like(labels, -torch.inf, dtype=images.dtype)
    rows = torch.arange(len(images), device=images.device)
    if until_broken:
        rows = rows[~misclassified(network, images, labels)]
    for objective, reference in goals:
        # Every climb draws for the whole batch, so what an example meets never depends on its neighbours' fates.
        start = adversary.threat_model.random_start(images, adversary.epsilon, adversary.generator)
        if not len(rows):
            break
        ends = climb(
            network,
            images[rows],
            labels[rows],
            start[rows],
            adversary,
            objective=objective,
            reference=reference[rows],
            num_steps=num_steps,
            until_broken=until_broken,
        )
        reached, broken = ask(network, ends, labels[rows], harm)
        reached = reached.nan_to_num(torch.inf)
        if until_broken:
            reached[broken] = torch.inf
        worse = reached > highest[rows]
        worst[rows[worse]], highest[rows[worse]] = ends[worse], reached[worse].to(highest.dtype)
        if until_broken:
            rows = rows[~broken]
    return worst
