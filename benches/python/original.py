"""The original: QEMU's own `qemu.machine`, as a program uses it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from measure import Cannot, Laps
from qemu.machine import QEMUMachine
from qemu.machine.machine import VMLaunchFailure as LaunchError

__all__ = ["LaunchError"]

EVENTS = 5_000
# It takes them one at a time.
CONSOLE_BYTES = 512 << 10

# The warnings about what is done here on purpose.
logging.disable(logging.CRITICAL)


def machine(binary: str, *args: str, console: bool = False, log: str | None = None) -> QEMUMachine:
    """A machine that is not launched yet."""
    made = QEMUMachine(binary, args, drain_console=console, console_log=log)
    if console or log:
        made.set_console()
    return made


def pid(machine: QEMUMachine) -> int:
    """QEMU's process."""
    return int(machine.get_pid() or 0)


def drained_bytes(machine: QEMUMachine) -> int:
    """How much of it has been drained."""
    return len(machine.console_socket._buffer)


def quit_within(machine: QEMUMachine, seconds: int) -> None:
    """Asks it to quit, and ends it by force once so much time is over."""
    raise Cannot("it waits for the reply to `quit` without an end")


def events(machine: QEMUMachine, listeners: int, seconds: float) -> Laps:
    """Takes floods of events in."""
    if listeners > 1:
        raise Cannot("it has one queue for everybody")

    def burst() -> None:
        machine.cmd("start-flood")
        for _ in range(EVENTS * listeners):
            machine.get_qmp_event(wait=True)
        # Answered behind the last of them.
        machine.cmd("query-name")
        machine.get_qmp_events()

    return Laps(burst, seconds, least=1, warm_up=0)


def many(binary: str, args: tuple[str, ...], count: int, meanwhile: Callable[[], None]) -> None:
    """Launches so many at once, and ends them; each in a thread, since it waits with a loop of its own."""
    all_run = Barrier(count, meanwhile)

    def one() -> None:
        machine = QEMUMachine(binary, args)
        machine.launch()
        all_run.wait(60)
        machine.shutdown()

    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(one) for _ in range(count)]:
            future.result()
