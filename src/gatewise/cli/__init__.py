"""The command line: `gatewise fit`, `gatewise predict` and `gatewise datasets`."""

from gatewise.cli.main import main

__all__ = ["main"]
