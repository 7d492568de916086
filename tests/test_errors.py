"""Errors become one line and an exit code."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, run_python

from stylenet import errors
from stylenet.errors import (
    DataError,
    NonFiniteLossError,
    StylenetError,
    UsageError,
    WeightsError,
    run_script,
)


@pytest.mark.parametrize(
    "kind, code", [(UsageError, 2), (DataError, 3), (WeightsError, 4), (NonFiniteLossError, 5)]
)
def test_own_errors_become_one_line_and_their_code(kind, code, capsys):
    def main(_):
        raise kind("expected a,\n but   b came")

    assert run_script(main) == code
    assert capsys.readouterr().err == "error: expected a, but b came\n"


def test_ctrl_c_is_130_and_other_errors_keep_their_traceback():
    def interrupted(_):
        raise KeyboardInterrupt

    def broken(_):
        raise ZeroDivisionError

    assert run_script(interrupted) == 130
    with pytest.raises(ZeroDivisionError):
        run_script(broken)


def test_arguments_are_passed_on(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script", "a", "b"])
    assert run_script(lambda arguments: len(arguments)) == 2


def test_parser_mistake_is_a_usage_error():
    with pytest.raises(UsageError, match="required"):
        parser = errors.Parser(prog="x")
        parser.add_argument("--needed", required=True)
        parser.parse_args([])


def test_every_error_is_ours():
    assert all(
        issubclass(kind, StylenetError)
        for kind in (UsageError, DataError, WeightsError, NonFiniteLossError)
    )


def test_imports_last():
    """The garbage collector is off during the imports and works again afterwards.

    It then skips the objects of the imports.
    """
    code = """
import gc, sys
from stylenet.errors import lasting_imports
with lasting_imports():
    assert not gc.isenabled()
    sys.modules["torch"], made = sys, [[] for _ in range(1000)]
assert gc.isenabled() and gc.get_freeze_count() > len(made)
gc.unfreeze()
with lasting_imports():
    assert gc.isenabled()
assert gc.get_freeze_count() == 0
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


SCRIPT = """
import errno, os, sys
sys.path.insert(0, ".")
from stylenet.errors import run_script

def main(_):
    raise {error}

sys.exit(run_script(main))
"""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ("OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))", 2, "(No space left on device); look"),
        ("PermissionError(errno.EACCES, 'no', 'a/b')", 2, "expected to read or write a/b, but"),
        (
            "RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed.')",
            3,
            "lower data.workers, or give more memory (shared memory too",
        ),
        (
            'RuntimeError("DefaultCPUAllocator: can\'t allocate memory: you tried to allocate 9")',
            1,
            "expected enough memory, but there was none left",
        ),
        ("MemoryError()", 1, "(MemoryError); take smaller batches"),
    ],
)
def test_errors_of_the_system_become_one_line(error, code, words):
    done = run_python("-c", SCRIPT.format(error=error))
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and words in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_output_is_told():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.replace("raise {error}", "return print(1) or 0")],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "No space left on device" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="a shell closes the streams")
def test_closed_streams_are_no_error():
    code = SCRIPT.replace("raise {error}", "return print(1) or 0")
    for closing in (">&-", "2>&-"):
        done = subprocess.run(
            f"exec {shlex.join([sys.executable, '-c', code])} {closing}",
            shell=True,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and not done.stderr, done.stderr


def test_a_compiler_that_is_missing_is_one_line(capsys):
    kind = type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})

    def main(_):
        raise kind("InvalidCxxCompiler: none found\n\nmore")

    assert run_script(main) == StylenetError.exit_code
    error = capsys.readouterr().err
    assert "it failed (InvalidCxxCompiler: none found); install" in error and error.count("\n") == 1


def test_no_child_outlives_an_error():
    """A worker that ignores SIGTERM, as those of a loader do, would be awaited for ever."""
    code = """
import multiprocessing, signal, sys, time
sys.path.insert(0, ".")
from stylenet.errors import run_script

def sleep():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    time.sleep(60)

def main(_):
    multiprocessing.get_context("fork").Process(target=sleep, daemon=True).start()
    time.sleep(0.5)
    raise ZeroDivisionError

sys.exit(run_script(main))
"""
    start = time.monotonic()
    done = run_python("-c", code)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    assert "ready" in done.stdout and time.monotonic() - start < 30


def test_a_leading_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    parser = errors.Parser()
    parser.add_argument("--output")
    parser.add_argument("--content", nargs="+")
    options = parser.parse_args(["--output", "~/out", "--content", "~", "~/a", "b~/c"])
    assert options.output == "/home/me/out"
    assert options.content == ["/home/me", "/home/me/a", "b~/c"]
