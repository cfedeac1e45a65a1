"""A plugin for pytest: the fixture `machine` launches machines, ends them after the test, and shows what they did if it failed.

    def test_a_paused_machine_runs_on(machine):
        vm = machine("-S", accel="tcg")
        vm.cmd("cont")
        vm.event_wait("RESUME")

The fixture `ratite_template` boots a machine once and for all; each test has a fresh one of it.

    @pytest.fixture(scope="session")
    def shell(ratite_template):
        return ratite_template("shell", "-kernel", "vmlinuz", console=True, boot=lambda vm: vm.console.expect("# "))

    def test_a_shell_answers(machine, shell):
        vm = machine.spawn(shell)
"""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from typing import Any, Callable, Deque, Dict, Generator, Iterator, List, Optional, Tuple

import pytest

from ratite import Error, Machine, Pool, ShutdownError, Template
from ratite._words import StrPath

__all__ = ["MachineFactory", "TemplateFactory"]

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
        keywords.setdefault("accel", self.accel)
        messages = _noted(keywords)
        machine = Machine(self.binary if binary is None else binary, *args, **keywords)
        self._launched.append(_Launched(machine, messages))
        return machine.launch()

    def spawn(self, template: Template, **keywords: Any) -> Machine:
        """A machine that goes on where `template` was frozen; the keywords are those of `ratite.Template.spawn`."""
        messages = _noted(keywords)
        machine = template.spawn(**keywords)
        self._launched.append(_Launched(machine, messages))
        return machine

    def take(self, pool: Pool) -> Machine:
        """A machine out of `pool`. Nobody has noted its QMP messages."""
        machine = pool.take()
        self._launched.append(_Launched(machine, None))
        return machine

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


class TemplateFactory:
    """Makes templates, or finds those that were made before: by this program, by another one at the same time, or in an earlier run."""

    def __init__(self, binary: str, accel: List[str]) -> None:
        self.binary = binary
        self.accel = accel
        self._templates: List[Template] = []

    def __call__(
        self,
        key: str,
        *args: StrPath,
        boot: Callable[[Machine], object],
        binary: Optional[StrPath] = None,
        **keywords: Any,
    ) -> Template:
        """The template of `key` in the user's cache; the keywords are those of `ratite.Machine`.

        Where there is none of this very machine, it is launched, ``boot(machine)`` brings it to where it is to be frozen, and it is frozen.
        `binary` and ``accel`` are by default those of the fixture `machine`. See `ratite.TemplateCache.cached`.
        """
        keywords.setdefault("accel", self.accel)
        messages = _noted(keywords)

        def booting(machine: Machine) -> None:
            try:
                boot(machine)
            except BaseException as error:
                # It is gone when the report is made.
                setattr(error, _REPORT, (f"machine of the template {key}", _Launched(machine, messages).report()))
                raise

        machine = Machine(self.binary if binary is None else binary, *args, **keywords)
        template = Template.cached(key, machine, booting)
        self._templates.append(template)
        return template

    def close(self) -> None:
        """Lets the templates go; they stay in the cache."""
        for template in self._templates:
            template.close()


_REPORT = "_ratite_report"
"""The attribute of an exception that has what is known of the machine that it has ended."""


def _told_by(error: Optional[BaseException]) -> Iterator[Tuple[str, str]]:
    """What an exception and its causes have to say of their machines."""
    seen: List[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        if hasattr(error, _REPORT):
            yield getattr(error, _REPORT)
        error = error.__cause__ or error.__context__


class _Launched:
    def __init__(self, machine: Machine, messages: Optional[Deque[Tuple[str, str]]]) -> None:
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
        if self.messages is None:
            return "\n".join(parts)
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


def _noted(keywords: Dict[str, Any]) -> Deque[Tuple[str, str]]:
    """The last QMP messages of a machine with these keywords, from now on."""
    messages: Deque[Tuple[str, str]] = deque(maxlen=MESSAGES)
    keywords["transcript"] = _noting(messages, keywords.get("transcript"))
    return messages


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


def _defaults(config: pytest.Config) -> Tuple[str, List[str]]:
    """The binary and the accelerators of all fixtures."""
    accel = config.getoption("--qemu-accel")
    return config.getoption("--qemu") or config.getini("qemu"), config.getini("qemu_accel") if accel is None else accel


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Iterator[MachineFactory]:
    """Launches machines, with the keywords of `ratite.Machine`; they are ended after the test."""
    factory = MachineFactory(*_defaults(request.config))
    request.node.stash[_FACTORY] = factory
    yield factory
    factory.end()


@pytest.fixture(scope="session")
def ratite_template(request: pytest.FixtureRequest) -> Iterator[TemplateFactory]:
    """Boots machines once, for all tests and all runs: `ratite_template(key, *args, boot=…)` is a `ratite.Template`."""
    factory = TemplateFactory(*_defaults(request.config))
    yield factory
    factory.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    factory = item.stash.get(_FACTORY, None)
    if factory is not None:
        report.sections.extend(factory.report())
    if call.excinfo is not None:
        report.sections.extend(_told_by(call.excinfo.value))
