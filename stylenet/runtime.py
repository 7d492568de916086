"""Device, precision, processes and signals of a run, and the facts saved with every checkpoint."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from stylenet import __version__
from stylenet.errors import (
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    StylenetError,
    UsageError,
    one_line,
)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
RECORDED_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "safetensors", "pyyaml", "wandb")


def pick_device(name: str) -> torch.device:
    """The device of a name: `auto` is cuda, else mps, else cpu.

    Any other name is torch's own. Raises UsageError if the device is not available.
    """
    if name == "auto":
        best = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
        return torch.device(best, local_rank()) if best == "cuda" else torch.device(best)
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", local_rank())
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, ValueError, ImportError, AttributeError) as error:
        reason = one_line(error).split(". ")[0]
        raise UsageError(
            f"expected a device such as auto, cpu or cuda:0, but {name!r} cannot be used ({reason})"
        ) from None
    return device


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """The context of a forward pass: float32 as it is, or convolutions in bf16 or fp16."""
    dtype = DTYPES.get(precision)
    return torch.autocast(device.type, dtype=dtype) if dtype else contextlib.nullcontext()


def allow_tf32(is_allowed: bool) -> None:
    """Allow or forbid TF32 in convolutions and matrix products on the GPU.

    Without it they are full float32.
    """
    torch.backends.cuda.matmul.allow_tf32 = is_allowed
    torch.backends.cudnn.allow_tf32 = is_allowed


def rank() -> int:
    """This process's number under torchrun, 0 otherwise.

    Raises UsageError for a number outside 0 to WORLD_SIZE - 1.
    """
    number, n = environment_number("RANK", 0), world_size()
    if not 0 <= number < n:
        raise UsageError(
            f"expected RANK from 0 to {n - 1} for WORLD_SIZE={n}, but {number} came; count from 0"
        )
    return number


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def world_size() -> int:
    """The number of processes under torchrun, 1 otherwise.

    Raises UsageError for less than one.
    """
    number = environment_number("WORLD_SIZE", 1)
    if number < 1:
        raise UsageError(f"expected WORLD_SIZE of 1 or more, but {number} came")
    return number


def environment_number(name: str, default: int) -> int:
    """The whole number in an environment variable, or the default.

    Raises UsageError for anything else.
    """
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f"expected a whole number in the environment variable {name}, but {text!r} came"
        ) from None


def n_threads() -> int:
    """The number of cores for this process."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


@contextlib.contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """A context with torchrun's process group: nccl on GPUs, gloo elsewhere.

    It does nothing for a single process. Raises StylenetError where another process has gone.
    """
    if world_size() == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # both back ends: gradients are on the device, stop requests on the CPU, where they delay no GPU
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise StylenetError(
            f"expected {world_size()} processes to the end, but another one has gone, so this one "
            f"(rank {rank()}) ends too ({one_line(error)[:160]}); see what the other said; a "
            "training continues from its last checkpoint with --resume"
        ) from error
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for all processes."""
    if dist.is_initialized():
        dist.barrier()


def average_gradients(module: torch.nn.Module) -> None:
    """Replace each gradient by its mean over the processes."""
    if dist.is_initialized():
        for parameter in module.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= world_size()


def from_main(value: Any) -> Any:
    """Rank 0's value in every process (any picklable object)."""
    if not dist.is_initialized():
        return value
    box = [value]  # broadcast_object_list replaces the entries in place
    dist.broadcast_object_list(box, src=0)
    return box[0]


class StopRequest:
    """A context in which SIGINT and SIGTERM ask for a stop after the present step.

    A second Ctrl-C ends the process at once. Under torchrun all ranks stop at the same step.
    """

    EXIT_CODES = {signal.SIGINT: EXIT_INTERRUPTED, signal.SIGTERM: EXIT_TERMINATED}

    def __init__(self) -> None:
        self.exit_code = 0

    def __enter__(self) -> StopRequest:
        self.previous = {number: signal.signal(number, self.note) for number in self.EXIT_CODES}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def note(self, number: int, _: object) -> None:
        """Store the exit code; this is the signal handler."""
        if self.exit_code and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.exit_code = self.EXIT_CODES[signal.Signals(number)]

    def is_made(self) -> bool:
        """Whether to stop now, with the same answer in every process."""
        if dist.is_initialized():
            codes = torch.tensor([self.exit_code])
            dist.all_reduce(codes, op=dist.ReduceOp.MAX)  # any rank's signal stops all
            self.exit_code = int(codes)
        return self.exit_code > 0


def git_commit() -> str | None:
    """The commit of this code, with `+dirty` if tracked files were changed.

    None where git does not track the code. A package installed inside another project's repository
    is such a case: `versions` then names its version.
    """
    here = Path(__file__)
    describe = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+dirty"]
    try:
        ask_git(here.parent, "ls-files", "--error-unmatch", here.name)
        return ask_git(here.parent, *describe)
    except (OSError, subprocess.SubprocessError):
        return None


def ask_git(folder: Path, *arguments: str) -> str:
    """The answer of git in the folder.

    Raises OSError or SubprocessError.
    """
    command = ["git", "-C", str(folder), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return answer.stdout.strip()


def versions() -> dict[str, str]:
    """The versions of stylenet, Python, the platform and the libraries."""
    record = {"stylenet": __version__, "python": platform.python_version()}
    record["platform"] = platform.platform()
    for name in RECORDED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            record[name] = metadata.version(name)
    return record


def hardware(device: torch.device) -> str:
    """The device in words, and the number of processes."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} x {world_size()}"
    return (
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads x "
        f"{world_size()}"
    )


def free_memory(device: torch.device) -> int | None:
    """The bytes that the device can still provide.

    None where the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if not sys.platform.startswith("linux"):
        return None
    lines = Path("/proc/meminfo").read_text().splitlines()
    # the file's unit is KiB
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


class Lock:
    """A file that one process holds until `release`, or until the process ends in any way."""

    def __init__(self, file: Path, busy: str, wait_s: float = 0.0) -> None:
        """Take the lock.

        Raises UsageError with the message `busy` where another process holds it for longer than
        `wait_s`.
        """
        from filelock import FileLock, Timeout

        self.lock = FileLock(file)
        try:
            self.lock.acquire(timeout=wait_s)
        except Timeout:
            raise UsageError(busy) from None
        except OSError as error:
            raise UsageError(
                f"expected to write {file}, but it failed ({error.strerror})"
            ) from None

    def release(self) -> None:
        """Release the lock, so that others can take it.

        The file stays, because a new file would not be the one that waiting processes try to lock.
        """
        self.lock.release()


# a killed trainer's loader workers hold its lock until they notice, after some seconds
WORKERS_END_S = 8.0


def lock_folder(folder: Path) -> Lock:
    """The lock of the one process that trains in a folder.

    Raises UsageError.
    """
    busy = (
        f"expected to be alone in {folder}, but another process trains there; wait for it or "
        "stop it"
    )
    return Lock(folder / ".lock", busy, WORKERS_END_S)


class PeakMemory:
    """The most memory in use since the object was made, above the use at that time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.start = torch.cuda.memory_allocated(device)
        elif sys.platform.startswith("linux"):
            # sets the peak of the resident memory to its present value
            Path("/proc/self/clear_refs").write_text("5")
            self.start = self.resident("VmRSS")

    @staticmethod
    def resident(field: str) -> int:
        """A field of /proc/self/status in bytes."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))

    def above_start(self) -> int | None:
        """The peak in bytes above the start.

        None on systems that cannot tell.
        """
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.start
        return self.resident("VmHWM") - self.start if sys.platform.startswith("linux") else None


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks in this process instead of returning them.

    Every activation is a new block of many megabytes, and the kernel's page faults for them cost a
    third of the time of a CPU pass. The price is a higher peak memory. Other systems are unchanged.
    For entry points only: STYLENET_MALLOC=default turns it off.
    """
    if not sys.platform.startswith("linux") or os.environ.get("STYLENET_MALLOC") == "default":
        return
    import ctypes

    m_trim_threshold, m_mmap_max = -1, -4  # from malloc.h
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_mmap_max, 0)  # large blocks from the heap as well
        mallopt(m_trim_threshold, -1)  # never return the heap's end
