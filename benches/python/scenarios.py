"""What is done in each scenario, and what is told of it. Both contenders do the same, each in its own way."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Dict, List

from measure import Clock, Figures, Laps, memory_bytes, pin, threads, us

SECONDS = 0.8
"""How long a sample goes on, unless one lap is longer."""

REAL = ("qemu-system-x86_64", "-machine", "none", "-accel", "tcg", "-nodefaults")


class Cannot(Exception):
    """The contender has nothing for this scenario."""


class Scenarios:
    """One method a scenario, for one contender."""

    def __init__(self, side: ModuleType, peer: str, reply: str) -> None:
        self.side = side
        self.peer = peer
        self.reply = reply

    def play(self, *words: str) -> None:
        """Tells the peers that start from now on what to play."""
        os.environ["PEER_PLAY"] = " ".join(words)

    @contextmanager
    def running(self, *command: str, **options: Any) -> Iterator[Any]:
        """A machine that runs, until it is not needed any more."""
        machine = self.side.machine(*(command or (self.peer,)), **options)
        machine.launch()
        try:
            yield machine
        finally:
            machine.shutdown()

    # Starts and ends.

    def launch_fake(self) -> Figures:
        return self.launch(self.peer)

    def launch_real(self) -> Figures:
        return self.launch(*REAL)

    def launch(self, *command: str) -> Figures:
        def lap() -> None:
            machine = self.side.machine(*command)
            machine.launch()
            machine.shutdown()

        return Laps(lap, SECONDS).figures()

    def launch_failure(self) -> Figures:
        self.play("fail")

        def lap() -> None:
            try:
                self.side.machine(self.peer).launch()
            except self.side.LaunchError:
                return
            raise AssertionError("the launch did not fail")

        return Laps(lap, SECONDS).figures()

    def killed(self) -> Figures:
        kills: List[int] = []

        def lap() -> None:
            machine = self.side.machine(self.peer)
            machine.launch()
            began = time.perf_counter_ns()
            machine.kill()
            kills.append(time.perf_counter_ns() - began)

        Laps(lap, SECONDS)
        return {"wall_us": us(kills, 0.5), "p99_us": us(kills, 0.99)}

    def hung_grace(self) -> Figures:
        if not self.side.GRACE_HOLDS:
            raise Cannot("it waits for the reply to `quit` without an end")
        self.play("hang")
        machine = self.side.machine(self.peer)
        machine.launch()
        clock = Clock()
        self.side.quit_within(machine, 1)
        return {"over_us": clock.wall_us() - 1e6, "cpu_us": clock.cpu_us()}

    def many_machines(self) -> Figures:
        count = 64
        alive: Dict[str, float] = {}

        def look() -> None:
            alive["memory"], alive["threads"] = memory_bytes(), threads()

        # What the first one brings is not theirs.
        self.side.many(self.peer, (), 1, look)
        before = alive["memory"]
        self.side.many(self.peer, (), count, look)
        laps = Laps(lambda: self.side.many(self.peer, (), count, lambda: None), SECONDS, least=2, warm_up=0)
        memory = (alive["memory"] - before) / count / 1024
        return {**laps.figures(), "memory_kib": memory, "threads": alive["threads"]}

    # Commands.

    def round_trip_two_cores(self) -> Figures:
        return self.round_trip(1, self.peer)

    def round_trip_one_core(self) -> Figures:
        return self.round_trip(0, self.peer)

    def round_trip_real(self) -> Figures:
        return self.round_trip(None, *REAL)

    def round_trip(self, processor: int | None, *command: str) -> Figures:
        if processor is not None:
            pin(0)
        with self.running(*command) as machine:
            if processor is not None:
                pin(processor, self.side.pid(machine))
            return Laps(lambda: machine.cmd("query-status"), SECONDS, warm_up=100).figures()

    def in_flight(self) -> Figures:
        return self.commands_at_once(32, self.peer)

    def in_flight_real(self) -> Figures:
        return self.commands_at_once(32, *REAL)

    def commands_at_once(self, count: int, *command: str) -> Figures:
        session, each = self.side.Session(*command), 16

        async def one_after_the_other() -> None:
            for _ in range(each):
                await session.execute("query-status")

        async def all_of_them() -> None:
            await asyncio.gather(*(one_after_the_other() for _ in range(count)))

        laps = Laps(lambda: session.run(all_of_them()), SECONDS)
        session.close()
        return per_second(laps, count * each)

    def reply_value(self) -> Figures:
        self.play(f"reply={self.reply}")
        with self.running() as machine:
            assert len(machine.cmd("query-qmp-schema")) > 100
            return Laps(lambda: machine.cmd("query-qmp-schema"), SECONDS, warm_up=5).figures()

    def reply_text(self) -> Figures:
        if not hasattr(self.side, "text"):
            raise Cannot("it has no replies but values")
        self.play(f"reply={self.reply}")
        with self.running() as machine:
            return Laps(self.side.text(machine), SECONDS, warm_up=5).figures()

    # Events.

    def events_one(self) -> Figures:
        return self.events(1)

    def events_sixteen(self) -> Figures:
        return self.events(16)

    def events_nobody(self) -> Figures:
        return self.events(0)

    def events(self, listeners: int) -> Figures:
        self.play(f"events={self.side.EVENTS}")
        with self.running() as machine:
            return per_second(self.side.events(machine, listeners, SECONDS), self.side.EVENTS)

    def flood_latency(self) -> Figures:
        self.play("events=forever")
        machine = self.side.machine(self.peer)
        machine.launch()
        machine.cmd("start-flood")
        figures = Laps(lambda: machine.cmd("query-status"), 2.0).figures()
        machine.kill()
        return figures

    def held_event(self) -> Figures:
        # As many as ratite holds before it drops the oldest.
        count = 16_000
        self.play(f"events={count}")
        with self.running() as machine:
            machine.cmd("query-status")
            before = memory_bytes()
            machine.cmd("start-flood")
            machine.cmd("query-status")
            return {"bytes": (memory_bytes() - before) / count}

    # Consoles.

    def console_drain(self) -> Figures:
        return self.console(console=True)

    def console_log(self) -> Figures:
        with tempfile.NamedTemporaryFile(prefix="yardstick-", dir="/var/tmp") as log:
            return self.console(console=True, log=log.name)

    def console(self, **options: Any) -> Figures:
        size = self.side.CONSOLE_BYTES
        self.play(f"console={size}")
        with self.running(**options) as machine:
            self.side.drain(machine)
            machine.cmd("query-status")
            before, clock = memory_bytes(), Clock()
            machine.cmd("start-console")
            while self.side.drained_bytes(machine) < size:
                time.sleep(0.001)
            seconds, cpu = clock.wall_us() / 1e6, clock.cpu_us()
            growth = (memory_bytes() - before) / 1024
            return {"mb_per_s": size / 1e6 / seconds, "cpu_us": cpu, "memory_kib": growth}


def per_second(laps: Laps, count: int) -> Figures:
    """How much of it a second, where a lap has `count`."""
    return {"per_s": count / (us(laps.laps_ns, 0.5) / 1e6), "cpu_us": laps.cpu_us / count}
