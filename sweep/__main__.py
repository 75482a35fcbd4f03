"""``python -m sweep``: the command where no script of that name is installed, as on a node that was sent this code."""

from sweep.cli import main

if __name__ == "__main__":
    main()
