"""Compare implementations fairly on a noisy machine.

Each has a process of its own. Rounds are interleaved, and ratios are taken per round.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

Make = Callable[..., Callable[[], None]]


def serve(connection: Connection, make: Make, arguments: tuple) -> None:
    """A worker: builds its implementation, then times one call for every request."""
    call = make(*arguments)
    call()  # warm-up
    connection.send("ready")
    while connection.recv():
        start = time.perf_counter()
        call()
        connection.send(time.perf_counter() - start)


def compare(candidates: dict[str, tuple[Make, tuple]], n_rounds: int) -> None:
    """Print the seconds of each candidate, and the ratios first / other.

    Ratios are given as median, smallest and largest round.
    """
    context = multiprocessing.get_context("spawn")
    connections, workers = {}, []
    for name, (make, arguments) in candidates.items():
        connections[name], theirs = context.Pipe()
        workers.append(context.Process(target=serve, args=(theirs, make, arguments), daemon=True))
        workers[-1].start()
        connections[name].recv()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(n_rounds):
        for name, connection in connections.items():
            connection.send(True)
            times[name].append(connection.recv())
    print_ratios(times)
    for connection, worker in zip(connections.values(), workers, strict=True):
        connection.send(False)
        worker.join()


def print_ratios(times: dict[str, list[float]]) -> None:
    """Print a table of seconds, and of the ratios first / other.

    The ratios are taken round by round: median, smallest and largest.
    """
    first = next(iter(times.values()))
    print(
        f"{'':<28}{'seconds':>9}{'times as fast':>16}{'smallest':>10}{'largest':>10}   "
        f"({len(first)} rounds)"
    )
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(first, seconds, strict=True)]
        median = statistics.median
        print(
            f"{name:<28}{median(seconds):>9.3f}{median(ratios):>16.2f}"
            f"{min(ratios):>10.2f}{max(ratios):>10.2f}"
        )
