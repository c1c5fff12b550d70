"""The command line: `gatewise fit`, `predict`, `gates`, `experts`, `families` and `datasets`."""

from gatewise.cli.main import main

__all__ = ["main"]
