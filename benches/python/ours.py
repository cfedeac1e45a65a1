"""ratite's Python package as a program uses it: its blocking class, and its asyncio where much goes on at once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import ratite
from measure import Laps, part
from ratite import LaunchError, Machine, aio

__all__ = ["LaunchError"]

EVENTS = 10_000
CONSOLE_BYTES = 256 << 20


def machine(binary: str, *args: str, console: bool = False, log: str | None = None) -> Machine:
    """A machine that is not launched yet."""
    return Machine(binary, *args, console=ratite.ConsoleOptions(log=log) if log else console)


def pid(machine: Machine) -> int:
    """QEMU's process."""
    return machine.pid


def drained_bytes(machine: Machine) -> int:
    """How much of it has been drained."""
    return machine.console._console.bytes_seen


def quit_within(machine: Machine, seconds: int) -> None:
    """Asks it to quit, and ends it by force once so much time is over."""
    try:
        machine.shutdown(seconds)
    except ratite.ShutdownError:
        pass


def text(machine: Machine) -> Callable[[], object]:
    """What executes the command with the big reply and leaves its text unread."""
    core = machine._machine
    assert core is not None
    return lambda: core.send("query-qmp-schema", None, False, (), None).wait()


def events(binary: str, listeners: int, seconds: float) -> Laps:
    """Takes floods of events in, each listener all of them, one after the other."""
    machine = Machine(binary).launch()
    queues = [machine.listen() for _ in range(listeners)]

    def burst() -> None:
        machine.cmd("start-flood")
        for queue in queues:
            for _ in range(EVENTS):
                queue.next(timeout=math.inf)
        # Answered behind the last of them.
        machine.cmd("query-status")
        machine.events()

    laps = Laps(burst, seconds, least=2, warm_up=1)
    machine.shutdown()
    return laps


class Session:
    """A machine with asyncio, in a loop that runs while it is asked to."""

    def __init__(self, binary: str, *args: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.machine = aio.Machine(binary, *args)
        self.run(self.machine.launch())
        part()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs the loop until `work` is done."""
        return self.loop.run_until_complete(work)

    def execute(self, command: str) -> Awaitable[Any]:
        """Executes a command."""
        return self.machine.cmd(command)

    def close(self) -> None:
        """Ends the machine."""
        self.run(self.machine.shutdown())
        self.loop.close()


def many(binary: str, args: tuple[str, ...], count: int, meanwhile: Callable[[], None]) -> None:
    """Launches so many at once, and ends them."""

    async def all_of_them() -> None:
        machines = [aio.Machine(binary, *args) for _ in range(count)]
        await asyncio.gather(*(machine.launch() for machine in machines))
        meanwhile()
        await asyncio.gather(*(machine.shutdown() for machine in machines))

    asyncio.run(all_of_them())
