"""A plugin for pytest: the fixture `machine` launches machines, ends them after the test, and shows what they did if it failed.

    def test_a_paused_machine_runs_on(machine):
        vm = machine("-S", accel="tcg")
        vm.cmd("cont")
        vm.event_wait("RESUME")
"""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from typing import Any, Callable, Deque, Generator, Iterator, List, Optional, Tuple

import pytest

from ratite import Error, Machine, ShutdownError
from ratite._words import StrPath

__all__ = ["MachineFactory"]

MESSAGES = 20
"""How many of the last QMP messages a report shows."""

LONGEST = 2000
"""How many characters it shows of each."""

TAIL = 4096
"""How many bytes it shows of a log, and of a console."""


class MachineFactory:
    """Launches machines for one test."""

    def __init__(self, binary: str, accel: List[str]) -> None:
        self.binary = binary
        self.accel = accel
        self._launched: List[_Launched] = []

    def __call__(self, *args: StrPath, binary: Optional[StrPath] = None, **keywords: Any) -> Machine:
        """A machine that runs; the keywords are those of `ratite.Machine`.

        `binary` and ``accel`` are by default what the options ``--qemu`` and ``--qemu-accel`` say, or ``qemu`` and ``qemu_accel`` in
        pytest's configuration.
        """
        messages: Deque[Tuple[str, str]] = deque(maxlen=MESSAGES)
        keywords.setdefault("accel", self.accel)
        keywords["transcript"] = _noting(messages, keywords.get("transcript"))
        machine = Machine(self.binary if binary is None else binary, *args, **keywords)
        self._launched.append(_Launched(machine, messages))
        return machine.launch()

    def end(self) -> None:
        """Shuts down those that still run; all of them, whatever the others do.

        :raises ShutdownError: for one that had to be killed, or crashed on its way out.
        """
        with ExitStack() as stack:
            for launched in self._launched:
                stack.callback(launched.end)

    def report(self) -> Iterator[Tuple[str, str]]:
        """The heading and the text of each machine."""
        for number, launched in enumerate(self._launched, start=1):
            yield f"machine {number}", launched.report()


class _Launched:
    def __init__(self, machine: Machine, messages: Deque[Tuple[str, str]]) -> None:
        self.machine = machine
        self.messages = messages

    def end(self) -> None:
        if self.machine.is_running:
            try:
                self.machine.shutdown()
            except ShutdownError:
                raise
            except BaseException:
                self.machine.kill()
                raise

    def report(self) -> str:
        machine = self.machine
        parts = [repr(machine)]
        if machine.exit is not None or machine.is_running:
            parts += [machine.command_line, _part("log", self._log()), _part("console", self._console())]
        arrows = {"sent": "->", "received": "<-"}
        messages = [f"{arrows[way]} {text.rstrip()[:LONGEST]}" for way, text in list(self.messages)]
        parts.append(_part(f"QMP, the last {MESSAGES} messages", "\n".join(messages)))
        return "\n".join(parts)

    def _log(self) -> str:
        try:
            return _readable(self.machine.log[-TAIL:])
        except (Error, OSError) as error:
            return f"({error})"

    def _console(self) -> str:
        try:
            return _readable(self.machine.console.tail(TAIL))
        except Error:
            return ""


def _noting(
    messages: Deque[Tuple[str, str]], subscriber: Optional[Callable[[str, str], object]]
) -> Callable[[str, str], object]:
    def note(way: str, text: str) -> None:
        messages.append((way, text))
        if subscriber is not None:
            subscriber(way, text)

    return note


def _part(heading: str, text: str) -> str:
    return f"--- {heading}\n{text}" if text else f"--- {heading}: nothing"


def _readable(tail: bytes) -> str:
    """Text without what would move a terminal's cursor."""
    text = tail.decode(errors="replace").replace("\r\n", "\n").rstrip("\n")
    return "".join(letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1] for letter in text)


_FACTORY: pytest.StashKey[MachineFactory] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ratite")
    group.addoption("--qemu", metavar="BINARY", help="the QEMU of the fixture `machine`")
    group.addoption(
        "--qemu-accel",
        metavar="ACCEL",
        action="append",
        help="its accelerator; may be given several times, and QEMU takes the first that works",
    )
    parser.addini("qemu", "the QEMU of the fixture `machine`", default="qemu-system-x86_64")
    parser.addini("qemu_accel", "its accelerators; QEMU takes the first that works", type="args", default=[])


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Iterator[MachineFactory]:
    """Launches machines, with the keywords of `ratite.Machine`; they are ended after the test."""
    config = request.config
    accel = config.getoption("--qemu-accel")
    factory = MachineFactory(
        config.getoption("--qemu") or config.getini("qemu"),
        config.getini("qemu_accel") if accel is None else accel,
    )
    request.node.stash[_FACTORY] = factory
    yield factory
    factory.end()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    report = outcome.get_result()
    factory = item.stash.get(_FACTORY, None)
    if factory is not None and report.failed:
        report.sections.extend(factory.report())
