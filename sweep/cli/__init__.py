"""The command line. Heavy packages are imported by the command that needs them, so that `sweep --help` is instant."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from types import TracebackType

import typer

from sweep import __version__
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
    rich_markup_mode=None,  # panels keep a docstring's line breaks, and at 80 columns leave little room for words
    context_settings={"max_content_width": 120},
    help="Find the defense, and the hyperparameters, that make an image classifier robust to adversarial attack.",
)
COMMANDS: dict[str, Callable[..., None]] = {
    "new": new.new,
    "check": inspect.check,
    "doctor": doctor.doctor,
    "run": run.run,
    "resume": run.resume,
    "extend": run.extend,
    "submit": submit.submit,
    "status": inspect.status,
    "list": studies.list_studies,
    "compare": studies.compare,
    "confirm": confirm.confirm,
    "report": report.report,
    "export": export.export,
    "trial": trial.trial,
    "transfer": transfer.transfer,
    "ui": tracking.ui,
    "sync": tracking.sync,
    "components": components.components,
}
for name, command in COMMANDS.items():
    summary = (command.__doc__ or "").partition("\n\n")[0]
    app.command(name, short_help=" ".join(summary.split()))(command)  # in whole, where typer would cut it


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sweep {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the whole traceback of an error."),
    version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
    ),
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
