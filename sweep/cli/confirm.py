"""The command that opens the test split."""

from __future__ import annotations

from typing import Annotated

import typer

from sweep.cli.inspect import DEFAULT_STUDIES, AsJson, Studies
from sweep.cli.numbers import number
from sweep.cli.run import Address, InProcess, check_address, search_in
from sweep.cli.tracking import TrackingUri, refuse_unusable

_ATTACK = "Attack on the test split: a name, or JSON; repeatable. Default: auto_attack."
_RACE = "Choose these from so many best, by a race under the attack on validation; 0: no race."


def confirm(
    study: Annotated[str, typer.Argument(help="The name, folder or URI of a study that was searched.")],
    top: Annotated[int, number("--top", "How many of the best trials.", 1, 100)] = 3,
    seeds: Annotated[int, number("--seeds", "Trainings of each, with fresh seeds.", 1, 1000)] = 5,
    attack: Annotated[list[str] | None, typer.Option("--attack", metavar="NAME", help=_ATTACK)] = None,
    raced: Annotated[int, number("--race", _RACE, 0)] = 0,
    baselines: Annotated[
        bool,
        typer.Option(help="Also, of each defense that is not among the best, the first enqueued trial that completed."),
    ] = True,
    again: Annotated[
        bool, typer.Option("--again", help="Open the test split once more, for another selection; it is recorded.")
    ] = False,
    studies: Studies = DEFAULT_STUDIES,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    in_process: InProcess = False,
    as_json: AsJson = False,
) -> None:
    """Train the best few again with fresh seeds and judge them on the test split: what may be claimed.

    Given again, it goes on where it was, or shows what came out.

    Example: sweep confirm digits --top 3 --seeds 5 --attack auto_attack
    """
    from sweep.analysis.opening import begin, select, unfinished
    from sweep.cli.files import json_or_text
    from sweep.orchestration.folder import StudyFolder
    from sweep.orchestration.lock import refuse_running
    from sweep.tracking.home import uri_of

    searched = StudyFolder.find(studies, study)
    refuse_running(searched.path)
    check_address(address, in_process)  # before a race, which may take hours
    uri = uri_of(searched.path, tracking_uri)  # its runs lie where those of the search do
    away = refuse_unusable(uri, searched.study().experiment)
    attacks = [json_or_text(text, "--attack") for text in attack or ["auto_attack"]]
    selection = select(searched, top=top, seeds=seeds, attacks=attacks, baselines=baselines, raced=raced, again=again)
    if warning := unfinished(searched.study(), searched.ledger()):
        typer.secho(warning, fg="yellow", err=True)
    search_in(begin(searched, selection, again=again), address, uri, in_process, as_json=as_json, away=away)
