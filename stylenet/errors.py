"""The exceptions that a user can meet, with their exit codes, and how a script starts."""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
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

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does it, with `~` as the home folder in every value."""
        known, rest = super().parse_known_args(args, namespace)
        for name, value in vars(known).items():
            setattr(known, name, at_home(value))
        return known, rest

    def error(self, message: str) -> NoReturn:
        """Raise the UsageError for argparse, which calls this with its message."""
        raise UsageError(f"{message}; see {self.prog} --help")


def at_home(value: Any) -> Any:
    """The value with a leading `~/` as the home folder; also within a list.

    The shell replaces it only at the beginning of a word.
    """
    if isinstance(value, list):
        return [at_home(item) for item in value]
    is_path = isinstance(value, str) and (value == "~" or value.startswith("~/"))
    return str(Path(value).expanduser()) if is_path else value


EXIT_INTERRUPTED = 130  # the shell's convention for Ctrl-C: 128 + SIGINT
EXIT_TERMINATED = 143  # 128 + SIGTERM
EXIT_PIPE = 141  # 128 + SIGPIPE


def run_script(main: Callable[[list[str]], int]) -> int:
    """The exit code of `main(sys.argv[1:])`.

    Our own errors, and those of the system (a full disk, a locked folder), become one line on
    stderr instead of a traceback. No child process outlives an error.
    """
    for name in ("stdout", "stderr"):  # a daemon may have closed them
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):  # file names need not be UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        exit_code = main(sys.argv[1:])
        sys.stdout.flush()  # here a full disk is still told
        return exit_code
    except StylenetError as error:
        return failed(one_line(error), error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            return failed(worker_message(error), DataError.exit_code)
        if is_out_of_memory(error):
            return failed(memory_message(error), StylenetError.exit_code)
        if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
            return failed(compiler_message(error), StylenetError.exit_code)
        raise
    except MemoryError as error:
        return failed(memory_message(error), StylenetError.exit_code)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        discard_output()
        return EXIT_PIPE
    except OSError as error:
        discard_output()
        return failed(system_message(error), UsageError.exit_code)
    finally:
        end_children()


def failed(message: str, exit_code: int) -> int:
    """Print the error; returns the exit code."""
    with contextlib.suppress(OSError):
        print(f"error: {message}", file=sys.stderr)
    return exit_code


def system_message(error: OSError) -> str:
    """One line for an error of the operating system."""
    place = f" {os.fsdecode(error.filename)}" if error.filename else " a file"
    reason = error.strerror or one_line(error)
    return (
        f"expected to read or write{place}, but it failed ({reason}); look at free space and "
        "permissions"
    )


def worker_message(error: RuntimeError) -> str:
    """One line for a loader worker that has ended."""
    return (
        f"expected the loader workers to last, but one ended ({one_line(error)[:160]}); lower "
        "data.workers, or give more memory (shared memory too: docker run --shm-size=2g)"
    )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch got no memory, of a GPU or of the machine."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def memory_message(error: BaseException) -> str:
    """One line for too little memory."""
    return (
        f"expected enough memory, but there was none left ({one_line(error)[:160]}); take smaller "
        "batches or crops (data.batch_size, data.crop_px), or smaller pictures (--size, --tile)"
    )


def discard_output() -> None:
    """Send what is left of stdout nowhere, so that the interpreter's end does not fail on it."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def end_children() -> None:
    """Kill the processes that this one started with multiprocessing.

    The interpreter would wait for them at its end, and loader workers ignore SIGTERM.
    """
    if "multiprocessing" in sys.modules:
        if hasattr(signal, "SIGCHLD"):  # torch's handler would raise for a killed worker
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for child in sys.modules["multiprocessing"].active_children():
            child.kill()


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


def compiler_message(error: RuntimeError) -> str:
    """One line for a network that torch.compile cannot build."""
    reason = next(line for line in f"{error}\n{type(error).__name__}".splitlines() if line.strip())
    return (
        f"expected torch.compile to build the network, but it failed ({reason.strip()}); install a "
        "C++ compiler, or leave --compile (train.compile=true) out"
    )


def one_line(error: BaseException) -> str:
    """The error's message, with every line break and run of spaces as one space."""
    return " ".join(str(error).split()) or type(error).__name__
