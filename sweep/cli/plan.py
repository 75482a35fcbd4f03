"""A study's plan as people see it, before anything starts."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from sweep.cli.tables import console
from sweep.errors import counted
from sweep.forecast import Step
from sweep.preview import describe_cost, describe_space, preview
from sweep.study import Study


def show_preview(study: Study) -> None:
    """The plan of a study."""
    plan = preview(study)
    sizes = f"{plan.sizes[0]:,} training and {plan.sizes[1]:,} validation images" if plan.sizes else "sizes unknown"
    goals = "; ".join(f"{goal.direction} {goal.metric}{_bounds(goal.subject_to)}" for goal in study.objective)
    console.print(f"[bold]{study.name}[/]  fingerprint {study.fingerprint}; {sizes}\n{goals}\n")
    table = Table(title="space", title_justify="left")
    table.add_column("parameter", overflow="fold", ratio=3)
    table.add_column("domain", overflow="fold", ratio=2)
    for name, words in describe_space(study):
        table.add_row(name, words)
    console.print(table)
    _show_branches(plan.branches)
    if study.early_stopping:
        _show_rungs(study, plan.rungs)
    budget = study.budget
    most = plan.most * budget.trials
    validation = max(branch.validation for branch in plan.branches) * budget.trials
    beside = f", at most {describe_cost(validation)}," if plan.sizes else ""
    spent = f", none begins after {describe_cost(budget.gradient_evaluations)}" if budget.gradient_evaluations else ""
    limit = f", {counted(budget.hours, 'hour')}" if budget.hours else ""
    console.print(
        f"budget: {counted(budget.trials, 'trial')}{limit}; at most {describe_cost(most)} gradient evaluations of "
        f"training{spent}; not counted: validation in the epochs{beside} and the attacks at a trial's end",
        soft_wrap=True,
    )
    if plan.steps:
        console.print(_promoted(plan.steps))
    if study.compare:
        each = f", and {describe_cost(plan.share)} gradient evaluations each" if plan.share else ""
        console.print(f"compared: the defense that has spent least goes next; a sampler and rungs of its own{each}")
    console.print(
        f"validity: at most {plan.checks} {study.validity} checks of each completed trial, "
        f"{describe_cost(plan.checking)} gradient evaluations"
    )
    for doubt in plan.doubts:
        console.print(f"[yellow]doubt:[/] {escape(doubt)}")
    console.print("[green]no mistakes found[/]")


def _promoted(steps: list[Step]) -> str:
    """About how many trials are trained for how long."""
    *shorter, whole = steps
    told = ", ".join([f"{step.trials:.0f} for {step.epochs}" for step in shorter])
    cost = describe_cost(sum(step.cost for step in steps))
    in_whole = f"{whole.trials:.0f} for all {counted(whole.epochs, 'epoch')}"
    return f"promotion: about {told} and {in_whole}; about {cost} gradient evaluations, all at the costliest"


def _bounds(bounds: dict[str, Any]) -> str:
    return f", with {', '.join(f'{name} {bound}' for name, bound in bounds.items())}" if bounds else ""


def _show_branches(branches: list[Any]) -> None:
    table = Table(title="branches, each at its costliest (gradient evaluations)", title_justify="left")
    for name in ("branch", "parameters", "epochs", "an epoch", "a trial", "validation, at most"):
        table.add_column(name, justify="left" if name == "branch" else "right", no_wrap=name == "branch")
    for branch in branches:
        table.add_row(
            branch.name,
            str(branch.parameters),
            str(branch.config.epochs),
            describe_cost(branch.per_epoch),
            describe_cost(branch.total),
            describe_cost(branch.validation),
        )
    console.print(table)


def _show_rungs(study: Study, rungs: list[Any]) -> None:
    rule = study.early_stopping
    assert rule is not None
    resource = rule.resource.replace("_", " ")
    title, reached = f"rungs: the best 1 in {rule.reduction_factor} go on ({resource})", "reached at epoch"
    if rule.kind == "promotion":
        title = f"rungs: the best 1 in {rule.reduction_factor} are trained again, for the next epochs or in whole"
        reached = "schedules compressed to"
    table = Table("level", reached, title=title, title_justify="left")
    for rung in rungs:
        table.add_row(f"{rung.level:,}", ", ".join(f"{name} {epoch}" for name, epoch in rung.epochs.items()))
    console.print(table)
