"""The command line. Heavy packages are imported by the command that needs them, so that `sweep --help` is instant."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

import typer

from sweep.cli import (
    components,
    confirm,
    doctor,
    export,
    inspect,
    new,
    report,
    run,
    studies,
    submit,
    tracking,
    transfer,
    trial,
)
from sweep.errors import SweepError
from sweep.tracking.address import redacted

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Find the defense, and the hyperparameters, that make an image classifier robust to adversarial attack.",
)
for command in (
    new.new,
    inspect.check,
    doctor.doctor,
    run.run,
    run.resume,
    run.extend,
    submit.submit,
    studies.compare,
    inspect.status,
    confirm.confirm,
    report.report,
    trial.trial,
    export.export,
    transfer.transfer,
    tracking.ui,
    tracking.sync,
    components.components,
):
    app.command()(command)
app.command("list")(studies.list_studies)


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the whole traceback of an error."),
) -> None:
    if debug:
        os.environ["SWEEP_DEBUG"] = "1"


def main() -> None:
    """Run a command. An error that the user can mend is a sentence and exit code 2; --debug shows its origin."""
    sys.excepthook = _show_traceback
    try:
        app()
    except SweepError as error:
        _say(str(error))
    except OSError as error:
        _say(f"{error.filename or 'the system'}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _say(sentence: str) -> None:
    """Print the error that is being handled, and end."""
    if os.environ.get("SWEEP_DEBUG"):
        typer.echo(redacted(traceback.format_exc()), err=True)
    typer.secho(f"error: {sentence}", fg="red", err=True)
    sys.exit(2)


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A defect of ours, without the credentials that an address in its message may hold."""
    typer.echo(redacted("".join(traceback.format_exception(kind, error, trace))), err=True)
