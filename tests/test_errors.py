"""Errors become one line and an exit code."""

import sys

import pytest
from conftest import run_python

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
