"""The original, QEMU's own `qemu.machine`, as a program uses it, and `qemu.qmp` where much goes on at once."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from measure import Laps
from qemu.machine import QEMUMachine
from qemu.machine.machine import AbnormalShutdown
from qemu.machine.machine import VMLaunchFailure as LaunchError
from qemu.qmp import EventListener, QMPClient

__all__ = ["LaunchError"]

# A QEMU that does not answer `quit` is waited for without an end.
GRACE_HOLDS = False
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


def drain(machine: QEMUMachine) -> None:
    """Has its console drained, by a thread."""
    assert machine.console_socket is not None


def drained_bytes(machine: QEMUMachine) -> int:
    """How much of it has been drained."""
    return len(machine.console_socket._buffer)


def quit_within(machine: QEMUMachine, seconds: int) -> None:
    """Asks it to quit, and ends it by force once so much time is over."""
    try:
        machine.shutdown(timeout=seconds)
    except AbnormalShutdown:
        pass


def events(machine: QEMUMachine, listeners: int, seconds: float) -> Laps:
    """Takes floods of events in, each listener all of them; `qemu.machine` itself has one listener."""
    client = machine._qmp._qmp
    loop = machine._qmp._aloop
    queues = [EventListener() for _ in range(listeners)]

    async def take(queue: EventListener) -> None:
        for _ in range(EVENTS):
            await queue.get()

    async def burst() -> None:
        await client.execute("start-flood")
        await asyncio.gather(*(take(queue) for queue in queues))
        # Answered behind the last of them.
        await client.execute("query-status")
        client.events.clear()

    with client.listen(*queues):
        return Laps(lambda: loop.run_until_complete(burst()), seconds, least=1, warm_up=0)


class Session:
    """A session with asyncio, in a loop that runs while it is asked to; the process is started as `qemu.machine` does it."""

    def __init__(self, binary: str, *args: str) -> None:
        self.loop = asyncio.new_event_loop()
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        monitor = ("-chardev", f"socket,id=mon,fd={theirs.fileno()}", "-mon", "chardev=mon,mode=control")
        self.process = subprocess.Popen([binary, *monitor, *args], stdin=subprocess.DEVNULL, close_fds=False)
        theirs.close()
        self.client = QMPClient("yardstick")
        self.run(self.client.connect(ours))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs the loop until `work` is done."""
        return self.loop.run_until_complete(work)

    def execute(self, command: str) -> Awaitable[Any]:
        """Executes a command."""
        return self.client.execute(command)

    def close(self) -> None:
        """Ends the machine."""
        self.run(self.client.execute("quit"))
        try:
            self.run(self.client.disconnect())
        except EOFError:
            # How it tells that the other side was quicker.
            pass
        self.process.wait()
        self.loop.close()


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
