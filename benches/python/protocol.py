"""`qemu.qmp` from PyPI, which speaks the protocol and starts nothing: the process is started as `qemu.machine` does it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
from collections.abc import Awaitable, Coroutine
from typing import Any

from measure import Laps, part
from qemu.qmp import EventListener, QMPClient

EVENTS = 5_000

# The warnings about what is done here on purpose.
logging.disable(logging.CRITICAL)


class Session:
    """A session with asyncio, in a loop that runs while it is asked to."""

    def __init__(self, binary: str, *args: str) -> None:
        self.loop = asyncio.new_event_loop()
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        monitor = ("-chardev", f"socket,id=mon,fd={theirs.fileno()}", "-mon", "chardev=mon,mode=control")
        self.process = subprocess.Popen([binary, *monitor, *args], stdin=subprocess.DEVNULL, close_fds=False)
        theirs.close()
        self.client = QMPClient("yardstick")
        self.run(self.client.connect(ours))
        part()

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
        except (EOFError, ConnectionError):
            # How it tells that the other side was quicker.
            pass
        self.process.wait()
        self.loop.close()


def events(binary: str, listeners: int, seconds: float) -> Laps:
    """Takes floods of events in, each listener all of them."""
    session = Session(binary)
    queues = [EventListener() for _ in range(listeners)]

    async def take(queue: EventListener) -> None:
        for _ in range(EVENTS):
            await queue.get()

    async def burst() -> None:
        await session.execute("start-flood")
        await asyncio.gather(*(take(queue) for queue in queues))
        # Answered behind the last of them.
        await session.execute("query-status")
        session.client.events.clear()

    with session.client.listen(*queues):
        laps = Laps(lambda: session.run(burst()), seconds, least=1, warm_up=0)
    session.close()
    return laps
