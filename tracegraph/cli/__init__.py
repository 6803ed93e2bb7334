"""The command line `tracegraph`: look into files, run, verify, compare, time and optimise them."""

from tracegraph.cli.arguments import main

__all__ = ["main"]
