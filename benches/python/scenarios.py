"""What is done in each scenario, and what is told of it. All contenders do the same, each in its own way."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Dict, List

from measure import Cannot, Clock, Figures, Laps, cores, meet, memory_bytes, part, seconds, threads, us


class Scenarios:
    """One method a scenario, for one contender."""

    def __init__(self, side: ModuleType) -> None:
        self.side = side
        self.peer = os.environ.get("YARDSTICK_PEER", "peer")
        qemu = os.environ.get("YARDSTICK_QEMU", "qemu-system-x86_64")
        self.real = (qemu, "-machine", "none", "-nodefaults", "-display", "none")

    def needs(self, name: str) -> Any:
        """What the contender has of this name."""
        found = getattr(self.side, name, Cannot("it has nothing for this"))
        if isinstance(found, Cannot):
            raise found
        return found

    def play(self, *words: str) -> None:
        """Tells the peers that start from now on what to play."""
        os.environ["PEER_PLAY"] = " ".join(words)

    @contextmanager
    def running(self, *command: str, **options: Any) -> Iterator[Any]:
        """A machine that runs, until it is not needed any more."""
        machine = self.launched(*(command or (self.peer,)), **options)
        try:
            yield machine
        finally:
            machine.shutdown()

    def launched(self, *command: str, **options: Any) -> Any:
        """A machine that runs."""
        machine = self.side.machine(*command, **options)
        machine.launch()
        part()
        return machine

    # Starts and ends.

    def launch_fake(self) -> Figures:
        return self.launch(self.peer)

    def launch_real(self) -> Figures:
        return self.launch(*self.real)

    def launch(self, *command: str) -> Figures:
        make = self.needs("machine")

        def lap() -> None:
            machine = make(*command)
            machine.launch()
            machine.shutdown()

        return Laps(lap, seconds()).figures()

    def launch_failure(self) -> Figures:
        self.play("fail")
        make, failure = self.needs("machine"), self.needs("LaunchError")

        def lap() -> None:
            try:
                make(self.peer).launch()
            except failure:
                return
            raise AssertionError("the launch did not fail")

        return Laps(lap, seconds()).figures()

    def killed(self) -> Figures:
        make = self.needs("machine")
        kills: List[int] = []

        def lap() -> None:
            machine = make(self.peer)
            machine.launch()
            began = time.perf_counter_ns()
            machine.kill()
            kills.append(time.perf_counter_ns() - began)

        Laps(lap, seconds())
        return {"wall_us": us(kills, 0.5), "p99_us": us(kills, 0.99)}

    def hung_grace(self) -> Figures:
        quit_within = self.needs("quit_within")
        self.play("hang")
        machine = self.side.machine(self.peer)
        machine.launch()
        clock = Clock()
        try:
            quit_within(machine, 1)
        except Cannot:
            machine.kill()
            raise
        return {"over_ms": clock.wall_us() / 1e3 - 1e3}

    def many_machines(self) -> Figures:
        many, count = self.needs("many"), 64
        alive: Dict[str, float] = {}

        def look() -> None:
            alive["memory"], alive["threads"] = memory_bytes(), threads()

        # What the first one brings is not theirs.
        many(self.peer, (), 1, look)
        before, threads_of_one = alive["memory"], alive["threads"]
        many(self.peer, (), count, look)
        laps = Laps(lambda: many(self.peer, (), count, lambda: None), seconds(), least=2, warm_up=0)
        figures = laps.figures()
        return {
            "wall_ms": figures["wall_us"] / 1e3,
            "cpu_ms": figures["cpu_us"] / 1e3,
            "memory_kb": (alive["memory"] - before) / count / 1e3,
            "threads": alive["threads"] - threads_of_one,
        }

    # Commands.

    def round_trip_two_cores(self) -> Figures:
        if len(cores()) < 2:
            raise Cannot("there is only one core")
        return self.round_trip(self.peer)

    def round_trip_one_core(self) -> Figures:
        with self.running(self.peer) as machine:
            meet()
            return self.round_trips(machine)

    def round_trip_real(self) -> Figures:
        return self.round_trip(*self.real)

    def round_trip(self, *command: str) -> Figures:
        with self.running(*command) as machine:
            return self.round_trips(machine)

    def round_trips(self, machine: Any) -> Figures:
        return Laps(lambda: machine.cmd("query-status"), seconds(), warm_up=100).figures()

    def in_flight(self) -> Figures:
        return self.commands_at_once(32, self.peer)

    def in_flight_real(self) -> Figures:
        return self.commands_at_once(32, *self.real)

    def commands_at_once(self, count: int, *command: str) -> Figures:
        session, each = self.needs("Session")(*command), 16

        async def one_after_the_other() -> None:
            for _ in range(each):
                await session.execute("query-status")

        async def all_of_them() -> None:
            await asyncio.gather(*(one_after_the_other() for _ in range(count)))

        laps = Laps(lambda: session.run(all_of_them()), seconds())
        session.close()
        return per_second(laps, count * each)

    def reply_value(self) -> Figures:
        self.play(f"reply={os.environ['YARDSTICK_REPLY']}")
        with self.running() as machine:
            assert len(machine.cmd("query-qmp-schema")) > 100
            return Laps(lambda: machine.cmd("query-qmp-schema"), seconds(), warm_up=5).figures()

    def reply_text(self) -> Figures:
        text = self.needs("text")
        self.play(f"reply={os.environ['YARDSTICK_REPLY']}")
        with self.running() as machine:
            return Laps(text(machine), seconds(), warm_up=5).figures()

    # Events.

    def events_one(self) -> Figures:
        return self.events(1)

    def events_sixteen(self) -> Figures:
        return self.events(16)

    def events_nobody(self) -> Figures:
        return self.events(0)

    def events(self, listeners: int) -> Figures:
        events = self.needs("events")
        self.play(f"events={self.side.EVENTS}")
        return per_second(events(self.peer, listeners, seconds()), self.side.EVENTS)

    def flood_latency(self) -> Figures:
        self.play("events=forever")
        machine = self.launched(self.peer)
        machine.cmd("start-flood")
        figures = Laps(lambda: machine.cmd("query-status"), seconds(2.0), warm_up=1).figures()
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
            # Answered behind the last of them.
            machine.cmd("query-status")
            return {"bytes": (memory_bytes() - before) / count}

    # Consoles.

    def console_drain(self) -> Figures:
        return self.console(console=True)

    def console_log(self) -> Figures:
        with tempfile.NamedTemporaryFile(prefix="yardstick-", dir="/var/tmp") as log:
            return self.console(console=True, log=log.name)

    def console(self, **options: Any) -> Figures:
        drained_bytes, size = self.needs("drained_bytes"), self.side.CONSOLE_BYTES
        self.play(f"console={size}")
        with self.running(**options) as machine:
            drained_bytes(machine)
            machine.cmd("query-status")
            before, clock = memory_bytes(), Clock()
            machine.cmd("start-console")
            # Nothing tells how much has been drained.
            while drained_bytes(machine) < size:
                time.sleep(0.001)
            wall_us, cpu_us = clock.wall_us(), clock.cpu_us()
            growth = (memory_bytes() - before) / 1024
            return {"mb_per_s": size / wall_us, "cpu_us_per_mb": cpu_us / (size / 1e6), "memory_kib": growth}


def per_second(laps: Laps, count: int) -> Figures:
    """How much of it a second, where a lap has `count`."""
    return {"per_s": count / (us(laps.laps_ns, 0.5) / 1e6), "cpu_us": laps.cpu_us / count}
