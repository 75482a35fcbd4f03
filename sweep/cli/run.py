"""Commands that search: run, resume and extend."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweep.cli.inspect import DEFAULT_STUDIES, AsJson, Studies, messages_aside, told
from sweep.cli.numbers import number
from sweep.cli.tracking import TrackingUri, refuse_unusable
from sweep.errors import counted
from sweep.tracking.address import checked, is_database, redacted

if TYPE_CHECKING:
    from sweep.orchestration.folder import StudyFolder
    from sweep.orchestration.search import Search
    from sweep.study import Study
    from sweep.tracking.follower import Follower

Address = Annotated[str | None, typer.Option(help="A Ray cluster to join; none: Ray starts here.")]
StorageUri = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URI",
        help="A store that holds the studies, for machines that share no disk: s3://bucket/path, gs://..., file:///...",
    ),
]
InProcess = Annotated[bool, typer.Option("--in-process", help="Without Ray: one trial after another, in this process.")]
DRAIN_SECONDS = 30.0  # that the end of a sweep waits for MLflow


def run(
    file: Annotated[Path, typer.Argument(help="A search-space file, such as search_spaces/digits.py.")],
    studies: Studies = DEFAULT_STUDIES,
    address: Address = None,
    storage: StorageUri = None,
    tracking_uri: TrackingUri = None,
    in_process: InProcess = False,
    warm_start: Annotated[
        str | None, typer.Option(help="A study (name, folder or URI) whose finished trials the sampler learns from.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search a space: Ray runs the trials, Optuna proposes them, MLflow shows them.

    Ctrl-C lets running trials save and ends; `sweep resume` goes on.

    Example: sweep run search_spaces/digits.py
    """
    from sweep.cli.files import load_study
    from sweep.orchestration.folder import StudyFolder
    from sweep.orchestration.storage import Storage

    study = load_study(file)
    away = refuse_unusable(checked(tracking_uri), study.name) if tracking_uri else None
    check_address(address, in_process)
    store = Storage(storage) if storage else None
    if store:
        store.check()
    if address is None:  # where trials run here, missing data are better said now than by every trial
        dataset = study.trial_config(next(study.space.corners()), 0).dataset
        dataset.load()
        if lacking := dataset.lacks_test():
            typer.secho(lacking, fg="yellow", err=True)
    with messages_aside(as_json):
        inherited = _inherited(study, StudyFolder.find(studies, warm_start)) if warm_start else None
    folder = StudyFolder.create(studies, study, inherited, store)
    search_in(folder, address, tracking_uri, in_process, as_json=as_json, away=away)


def resume(
    study: Annotated[str, typer.Argument(help="A study's name, folder or URI.")],
    studies: Studies = DEFAULT_STUDIES,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    in_process: InProcess = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Take up the failed trials too, once what failed them is mended."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a study after anything: finished trials stay, those in flight go on from their checkpoints.

    Example: sweep resume digits
    """
    from sweep.orchestration.folder import StudyFolder
    from sweep.orchestration.lock import refuse_running
    from sweep.tracking.home import uri_of

    folder = StudyFolder.find(studies, study)
    refuse_running(folder.path)
    away = refuse_unusable(uri_of(folder.path, tracking_uri), folder.study().experiment)
    check_address(address, in_process)
    search_in(folder, address, tracking_uri, in_process, retry_failed, as_json, away)


def check_address(address: str | None, in_process: bool) -> None:
    """Refuse an address that leads nowhere while nothing is written yet."""
    from sweep.errors import StudyError
    from sweep.orchestration.address import check

    if address is not None and in_process:
        raise StudyError("choose one of --address (a Ray cluster) and --in-process (no Ray)")
    if address is not None:
        check(address)


def extend(
    study: Annotated[str, typer.Argument(help="A study's name, folder or URI.")],
    studies: Studies = DEFAULT_STUDIES,
    trials: Annotated[int | None, number("--trials", "So many trials more.", 1)] = None,
    hours: Annotated[float | None, number("--hours", "So many hours more.", 0, kind=float)] = None,
    gradient_evaluations: Annotated[
        int | None, number("--gradient-evaluations", "So many gradient evaluations more.", 1)
    ] = None,
) -> None:
    """Add to a study's budget; `sweep resume` then goes on with it.

    Example: sweep extend digits --trials 24
    """
    from sweep.errors import StudyError
    from sweep.orchestration.folder import StudyFolder

    more = {"trials": trials, "hours": hours, "gradient_evaluations": gradient_evaluations}
    if not any(more.values()):
        raise StudyError("nothing to add: give --trials, --hours or --gradient-evaluations")
    before, after = StudyFolder.find(studies, study).extend(**more)
    for name, addition in more.items():
        if addition:
            typer.echo(f"{name.replace('_', ' ')}: {getattr(before, name):,} before, {getattr(after, name):,} now")
    where = f" --studies {studies}" if studies != DEFAULT_STUDIES else ""
    typer.echo(f"go on with   sweep resume {study}{where}")


def _inherited(study: Study, source: StudyFolder) -> dict[str, Any]:
    """What a study takes from another one, having said what, and what not."""
    from sweep.orchestration.warm_start import warm_start

    found = warm_start(study, source)
    typer.echo(f"learning from {counted(len(found.event['trials']), 'trial')} of {source.path}")
    for line in found.differences:
        typer.echo(f"  {line}")
    for reason, count in found.left_out.most_common():
        typer.echo(f"  left out {count}: {reason}")
    return found.event


def search_in(
    folder: StudyFolder,
    address: str | None,
    tracking_uri: str | None,
    in_process: bool,
    retry_failed: bool = False,
    as_json: bool = False,
    away: str | None = None,
) -> None:
    """Run the study in `folder` until its budget is spent, and say what came out. `away` was said of MLflow already."""
    with messages_aside(as_json):
        interrupted = _search(folder, address, tracking_uri, in_process, retry_failed, away)
    if as_json:
        typer.echo(told(folder))
    if interrupted:
        raise typer.Exit(130)


def _search(
    folder: StudyFolder,
    address: str | None,
    tracking_uri: str | None,
    in_process: bool,
    retry_failed: bool,
    away: str | None,
) -> bool:
    """Whether it was interrupted."""
    from sweep.analysis import results
    from sweep.cli import tables
    from sweep.cli.progress import Progress
    from sweep.orchestration import search as searching
    from sweep.orchestration.folder import StudyFolder
    from sweep.tracking.follower import Follower
    from sweep.tracking.home import uri_of
    from sweep.tracking.mirror import standing

    study = folder.study()
    uri = uri_of(folder.path, tracking_uri)
    mirror = Follower(folder.path, uri, study.experiment, folder.searched(), away=away)
    written: list[Path] = []  # still none where Ctrl-C comes while they are written
    with Progress(study) as progress, searching.opened(folder, progress.hear, progress.say) as search:
        try:
            progress.follow(search)
            if search.restored:
                progress.say(f"  MLflow  {standing(folder.path)}")
            if retry_failed:
                progress.say(f"  failed  {counted(search.reopen_failed(), 'trial')}, taken up again")
            mirror.say = progress.say
            mirror.start()
            _run_trials(search, address, in_process)
        finally:
            written = results.write(search.ledger, folder.path)
    reconsider(StudyFolder(folder.searched() or folder.path))
    unsent = _wait_for(mirror, progress.say, 2.0 if search.interrupted else DRAIN_SECONDS)
    options = _options(folder.path.parent, address, uri, in_process)
    _show_outcome(folder, study)
    look = "" if is_database(uri) else redacted(uri)
    if unsent:
        look = tables.unsent_yet(folder.path.name, options, unsent, mirror.last_error)
    tables.show_where_to_look(folder, options, look, search.interrupted, written)
    if search.ledger.counts()["failed"]:
        tables.show_retry(folder.path.name, options)
    return search.interrupted


def _show_outcome(folder: StudyFolder, study: Study) -> None:
    from sweep.analysis.opening import reconsidered
    from sweep.cli import tables
    from sweep.cli.verdict import show_confirmation, show_openings

    if study.confirms:
        show_confirmation(folder)
    else:
        tables.show_results(study, reconsidered(folder))
        show_openings(folder)


def reconsider(searched: StudyFolder) -> None:
    """The tables of a searched study once more where its confirmations disbelieve what it believed; whoever runs it at
    the moment does so at the end."""
    from sweep.analysis import results
    from sweep.analysis.opening import reconsidered
    from sweep.errors import StudyError

    ledger = reconsidered(searched)
    if any(trial.refuted for trial in ledger):
        with suppress(StudyError), searched.owned():
            results.write(ledger, searched.path)


def _wait_for(mirror: Follower, say: Callable[[str], None], seconds: float) -> int:
    """Let MLflow take the rest for a while; returns the events that it has not taken then."""
    if unsent := mirror.unsent():
        say(f"MLflow lacks {counted(unsent, 'event')}: waiting for at most {seconds:g} seconds (Ctrl-C: no longer)")
    try:
        return mirror.stop(seconds)
    except KeyboardInterrupt:
        return mirror.stop(0)


def _options(studies: Path, address: str | None, tracking_uri: str, in_process: bool) -> dict[str, str]:
    """The options that another command needs to go on with this study; credentials are for the user to put back."""
    shown = redacted(tracking_uri)
    given = {
        "studies": str(studies) if studies != DEFAULT_STUDIES else "",
        "address": address or "",
        "tracking-uri": shown if shown != tracking_uri else "",  # the study knows any other
    }
    return {name: value for name, value in given.items() if value} | ({"in-process": ""} if in_process else {})


def _run_trials(search: Search, address: str | None, in_process: bool) -> None:
    if in_process:
        from sweep.orchestration import in_process as runner

        runner.run(search)
    else:
        from sweep.orchestration import ray_tune

        ray_tune.run(search, address)
