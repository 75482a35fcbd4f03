"""The command line. Heavy packages are imported by the command that needs them, so that `sweep --help` is instant."""

from __future__ import annotations

import os
import sys

import typer

from sweep.cli import confirm, inspect, run, tracking, trial
from sweep.errors import SweepError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Find the defense, and the hyperparameters, that make an image classifier robust to adversarial attack.",
)
for command in (
    inspect.check,
    run.run,
    run.resume,
    run.extend,
    inspect.status,
    confirm.confirm,
    trial.trial,
    trial.export,
    tracking.ui,
    tracking.sync,
    inspect.components,
):
    app.command()(command)


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the whole traceback of an error."),
) -> None:
    if debug:
        os.environ["SWEEP_DEBUG"] = "1"


def main() -> None:
    """Run a command. An error that the user can mend is a sentence and exit code 2; --debug shows its origin."""
    try:
        app()
    except SweepError as error:
        if os.environ.get("SWEEP_DEBUG"):
            raise
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(2)
    except OSError as error:
        if os.environ.get("SWEEP_DEBUG"):
            raise
        typer.secho(f"error: {error.filename or 'the system'}: {error.strerror or error}", fg="red", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
