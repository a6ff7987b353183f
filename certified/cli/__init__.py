"""The ``certified`` command."""

from certified.cli._main import main

__all__ = ["main"]
