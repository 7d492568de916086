"""Device, precision, stop requests, and the recorded facts."""

import os
import signal

import pytest
import torch
from conftest import run_python

from stylenet import runtime
from stylenet.errors import UsageError


def test_devices():
    assert runtime.pick_device("cpu") == torch.device("cpu")
    assert runtime.pick_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("cuda:99", "tpu", "meta", ""):
        with pytest.raises(UsageError, match="expected a device"):
            runtime.pick_device(name)


def test_autocast_lowers_convolutions_only_where_asked():
    conv, x = torch.nn.Conv2d(3, 3, 3), torch.rand(1, 3, 8, 8)
    for precision, dtype in (
        ("fp32", torch.float32),
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
    ):
        with runtime.autocast(torch.device("cpu"), precision):
            assert conv(x).dtype == dtype


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_a_request_and_handlers_are_restored(number, code):
    before = signal.getsignal(number)
    with runtime.StopRequest() as stop:
        assert not stop.is_made()
        os.kill(os.getpid(), number)
        assert stop.is_made() and stop.exit_code == code
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_ends_at_once():
    with pytest.raises(KeyboardInterrupt), runtime.StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_one_process_without_torchrun():
    assert (runtime.rank(), runtime.world_size(), runtime.is_main()) == (0, 1, True)
    with runtime.processes(torch.device("cpu")):
        assert runtime.from_main({"a": 1}) == {"a": 1}
        runtime.barrier()


def test_recorded_facts():
    assert {"python", "torch", "numpy"} <= set(runtime.versions())
    assert "threads" in runtime.hardware(torch.device("cpu"))
    commit = runtime.git_commit()
    assert commit is None or len(commit.removesuffix("+dirty")) == 40


def test_kept_memory_changes_no_result_and_can_be_turned_off():
    code = (
        "from stylenet import runtime; runtime.keep_freed_memory(); import torch; "
        "print(float(torch.ones(10**6).sum()))"
    )
    for environment in ({}, {"STYLENET_MALLOC": "default"}):
        assert run_python("-c", code, **environment).stdout.strip() == "1000000.0"
