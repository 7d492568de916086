"""The exceptions that a user can meet, with their exit codes, and how a script starts."""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn


class StylenetError(Exception):
    """A mistake that a user can correct.

    Its message is one line: what was expected, what came, and what to do.
    """

    exit_code = 1


class UsageError(StylenetError):
    """A wrong command line or configuration."""

    exit_code = 2


class DataError(StylenetError):
    """Images are missing, unreadable or too few."""

    exit_code = 3


class WeightsError(StylenetError):
    """Network weights or a checkpoint are missing, damaged or of another network."""

    exit_code = 4


class NonFiniteLossError(StylenetError):
    """A loss became NaN or infinite, so training diverged."""

    exit_code = 5


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are UsageErrors of one line.

    Abbreviated options are not guessed.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise the UsageError for argparse, which calls this with its message."""
        raise UsageError(f"{message}; see {self.prog} --help")


EXIT_INTERRUPTED = 130  # the shell's convention for Ctrl-C: 128 + SIGINT
EXIT_TERMINATED = 143  # 128 + SIGTERM


def run_script(main: Callable[[list[str]], int]) -> int:
    """The exit code of `main(sys.argv[1:])`.

    Our own errors become one line on stderr instead of a traceback.
    """
    try:
        return main(sys.argv[1:])
    except StylenetError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


@contextlib.contextmanager
def lasting_imports() -> Iterator[None]:
    """A context of imports whose objects the garbage collector never examines.

    Torch makes a million objects, which last as long as the process. Without them in the collector
    the process starts and ends 0.5 s sooner (of 1.9 s). The context does nothing if torch is
    already imported.
    """
    if "torch" in sys.modules:
        yield
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # the collector skips all objects so far
        if was_enabled:
            gc.enable()


def one_line(error: BaseException) -> str:
    """The error's message, with every line break and run of spaces as one space."""
    return " ".join(str(error).split()) or type(error).__name__
