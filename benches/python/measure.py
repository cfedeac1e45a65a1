"""How something is measured: what the clocks say of work that is done again and again, of this process alone."""

from __future__ import annotations

import gc
import os
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Dict, List

Figures = Dict[str, float]


class Cannot(Exception):
    """The contender has nothing for this scenario."""


def seconds(full: float = 0.5) -> float:
    """How long a sample should take that does its work again and again, `full` unless the run is only a trial."""
    return full / 10 if "YARDSTICK_QUICK" in os.environ else full


class Clock:
    """The time that passes, and the processor time of this process with all of its threads."""

    def __init__(self) -> None:
        self._wall = time.perf_counter_ns()
        self._cpu = cpu_ns()

    def wall_us(self) -> float:
        """Since it was made."""
        return (time.perf_counter_ns() - self._wall) / 1e3

    def cpu_us(self) -> float:
        """Since it was made."""
        return (cpu_ns() - self._cpu) / 1e3


def cpu_ns() -> float:
    """What this process has computed; what it has started counts for itself."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1e9


class Laps:
    """Laps of one work, which are run until `seconds` are over, after some that do not count."""

    def __init__(self, work: Callable[[], object], seconds: float, least: int = 5, warm_up: int = 2) -> None:
        for _ in range(warm_up):
            work()
        self.laps_ns: List[int] = []
        clock, now = Clock(), time.perf_counter_ns()
        end = now + int(seconds * 1e9)
        while now < end or len(self.laps_ns) < least:
            began = now
            work()
            now = time.perf_counter_ns()
            self.laps_ns.append(now - began)
        self.cpu_us = clock.cpu_us() / len(self.laps_ns)

    def figures(self) -> Figures:
        """A lap's median and 99th percentile, and its processor time."""
        return {"wall_us": us(self.laps_ns, 0.5), "p99_us": us(self.laps_ns, 0.99), "cpu_us": self.cpu_us}


def us(laps_ns: Sequence[int], share: float) -> float:
    """The lap that this share of them does not exceed."""
    ordered = sorted(laps_ns)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e3


def memory_bytes() -> int:
    """What this process has for itself: nothing of files, nothing that is shared."""
    gc.collect()
    with open("/proc/self/smaps_rollup", "rb") as told:
        return next(int(line.split()[1]) for line in told if line.startswith(b"Anonymous:")) << 10


def threads() -> int:
    """How many threads this process has."""
    return len(os.listdir("/proc/self/task"))


def cores() -> List[int]:
    """Those that this process may run on."""
    return sorted(os.sched_getaffinity(0))


def pin(core: int, process: int) -> None:
    """Lets a process run on one core alone."""
    for thread in os.listdir(f"/proc/{process}/task"):
        # It may have just ended.
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), {core})


def part() -> None:
    """Keeps this process to the first core and what it has started to the second; left alone they would meet now and then."""
    ours, *others = cores()
    if others:
        for process in children():
            pin(others[0], process)
        pin(ours, os.getpid())


def meet() -> None:
    """Keeps this process and what it has started to one core."""
    ours = cores()[0]
    for process in (*children(), os.getpid()):
        pin(ours, process)


def children() -> List[int]:
    """What this process has started."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError), open(f"/proc/self/task/{thread}/children", "rb") as told:
            found += [int(process) for process in told.read().split()]
    return found
