"""The original: QEMU's own `qemu.machine` as a program uses it, and `qemu.qmp` alone where that can do more."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from measure import Cannot
from protocol import EVENTS, Session, events
from qemu.machine import QEMUMachine
from qemu.machine.machine import VMLaunchFailure as LaunchError

__all__ = ["EVENTS", "LaunchError", "Session", "events"]

# It leaves its folder behind where a launch fails: all of them are in one that goes with this program.
FOLDERS = tempfile.TemporaryDirectory(prefix="yardstick-")

# It takes them one at a time.
CONSOLE_BYTES = 512 << 10

quit_within = Cannot("it waits for the reply to `quit` without an end")

# The warnings about what is done here on purpose.
logging.disable(logging.CRITICAL)


def machine(binary: str, *args: str, console: bool = False, log: str | None = None) -> QEMUMachine:
    """A machine that is not launched yet."""
    made = QEMUMachine(binary, args, base_temp_dir=FOLDERS.name, drain_console=console, console_log=log)
    if console or log:
        made.set_console()
    return made


def pid(machine: QEMUMachine) -> int:
    """QEMU's process."""
    return int(machine.get_pid() or 0)


def drained_bytes(machine: QEMUMachine) -> int:
    """How much of it has been drained."""
    return len(machine.console_socket._buffer)


def many(binary: str, args: tuple[str, ...], count: int, meanwhile: Callable[[], None]) -> None:
    """Launches so many at once, and ends them; each in a thread, since it waits with a loop of its own."""
    all_run = Barrier(count, meanwhile)

    def one() -> None:
        machine = QEMUMachine(binary, args, base_temp_dir=FOLDERS.name)
        machine.launch()
        all_run.wait(60)
        machine.shutdown()

    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(one) for _ in range(count)]:
            future.result()
