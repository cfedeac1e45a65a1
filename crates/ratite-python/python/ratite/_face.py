"""What the blocking and the asyncio machine have in common: the description, and whatever does not wait."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, TypeVar, Union

from ratite import _core
from ratite._core import ProcessExit
from ratite._errors import CommandError, ConfigError, Error, ForkedError, Lagged
from ratite._json import Object, loads
from ratite._words import ConsoleOptions, StrPath, seconds, text, texts

SelfFace = TypeVar("SelfFace", bound="Face")


def _consoles(console: Union[bool, ConsoleOptions, Sequence[ConsoleOptions]]) -> List[ConsoleOptions]:
    if isinstance(console, bool) or console is None:
        return [ConsoleOptions()] if console else []
    return [console] if isinstance(console, ConsoleOptions) else list(console)


class Face:
    """A machine: what to run, and, once launched, the QEMU that runs.

    `binary` is a path, or a name that is searched in ``PATH``; `args` are QEMU's arguments. All limits are in seconds;
    ``math.inf`` is none.

    :param name: names the log file; by default a name that no other machine has.
    :param machine: ``-machine``, the type alone.
    :param accel: ``-accel``, one or several; QEMU takes the first that works.
    :param console: True for the first serial port, or a :class:`ConsoleOptions`, or several.
    :param agent: give the guest's agent (``qemu-guest-agent``) its channel.
    :param qtest: run under qtest.
    :param monitor: True for a QMP monitor over a socket pair; False for none; a path, or a ``(host, port)``, for one that
        QEMU connects to there.
    :param qmp_path: a further QMP monitor, which QEMU serves there for other programs.
    :param fds: descriptors to hand to QEMU: the number there, and the one here.
    :param wrapper: words to put before the binary, such as ``("valgrind", "--quiet")``.
    :param env: environment variables to set, or to remove (None).
    :param working_folder: QEMU's current folder, by default the caller's.
    :param base_folder: where the work folder is made.
    :param log_folder: where the log is kept; by default it goes with the work folder.
    :param freezable: so that :meth:`freeze` can make a template in the best way: with its RAM in a file in memory, and an overlay on
        each disk that it can write to, so that no image of the caller's is written to.
    :param keep_folder: leave the work folder behind when the machine has ended.
    :param screen: leave out ``-display none -vga none``.
    :param own_process_group: False for a QEMU that gets the terminal's Ctrl-C itself.
    :param connect_timeout: from the start of the process to its monitor being ready.
    :param command_timeout: a command, unless it says otherwise.
    :param console_timeout: a write to the console.
    :param kill_timeout: from SIGKILL to the end of the process.
    :param grace: how long an end that is asked for may take before the machine is killed.
    :param transcript: called with ``"sent"`` or ``"received"`` and the text of each QMP message, by a thread of ratite's: it must
        not wait for anything.
    """

    def __init__(
        self,
        binary: StrPath = "qemu-system-x86_64",
        *args: StrPath,
        name: Optional[str] = None,
        machine: Optional[str] = None,
        accel: Union[str, Sequence[str]] = (),
        console: Union[bool, ConsoleOptions, Sequence[ConsoleOptions]] = False,
        agent: bool = False,
        qtest: bool = False,
        monitor: Union[bool, StrPath, Tuple[str, int]] = True,
        qmp_path: Optional[StrPath] = None,
        fds: Optional[Mapping[int, int]] = None,
        wrapper: Sequence[StrPath] = (),
        env: Optional[Mapping[str, Optional[str]]] = None,
        working_folder: Optional[StrPath] = None,
        base_folder: StrPath = "/var/tmp",
        log_folder: Optional[StrPath] = None,
        keep_folder: bool = False,
        freezable: bool = False,
        screen: bool = False,
        own_process_group: bool = True,
        connect_timeout: float = 30.0,
        command_timeout: float = 60.0,
        console_timeout: float = 30.0,
        kill_timeout: float = 60.0,
        grace: float = 30.0,
        transcript: Optional[Callable[[str, str], object]] = None,
    ) -> None:
        self.binary = text("binary", binary)
        self.args: List[str] = texts("args", args)
        self.name = name
        self.machine = machine
        self.accel: List[str] = [accel] if isinstance(accel, str) else texts("accel", accel)
        self.console_options = _consoles(console)
        self.has_agent = agent
        self.has_qtest = qtest
        self.monitor = monitor
        self.qmp_path = qmp_path
        self.fds: Dict[int, int] = dict(fds or {})
        self.wrapper: List[str] = texts("wrapper", wrapper)
        self.env: Dict[str, Optional[str]] = dict(env or {})
        self.working_folder = working_folder
        self.base_folder = base_folder
        self.log_folder = log_folder
        self.keep_folder = keep_folder
        self.freezable = freezable
        self.has_screen = screen
        self.own_process_group = own_process_group
        self.connect_timeout = seconds("connect_timeout", connect_timeout)
        self.command_timeout = seconds("command_timeout", command_timeout)
        self.console_timeout = seconds("console_timeout", console_timeout)
        self.kill_timeout = seconds("kill_timeout", kill_timeout)
        self.grace = seconds("grace", grace)
        if transcript is not None and not callable(transcript):
            raise TypeError(f"transcript takes something to call, not {transcript!r}")
        self.transcript = transcript
        self._machine: Optional[_core.Machine] = None
        # Empty while it is being launched. To pop from a list is atomic, and a list, unlike a lock, can be pickled.
        self._may_launch = [True]
        self._was_taken = False

    def _config(self) -> _core.Config:
        config = _core.Config(self.binary)
        config.args(self.args)
        config.wrapper(self.wrapper)
        config.base_folder(text("base_folder", self.base_folder))
        config.timeouts(self.connect_timeout, self.command_timeout, self.console_timeout, self.kill_timeout)
        if self.name is not None:
            config.name(self.name)
        if self.machine is not None:
            config.machine_type(self.machine)
        for accel in self.accel:
            config.accelerator(accel)
        for options in self.console_options:
            options._apply(config)
        if self.has_agent:
            config.agent()
        if self.has_qtest:
            config.qtest()
        self._configure_monitors(config)
        for number, fd in self.fds.items():
            config.fd(fd, number)
        for variable, value in self.env.items():
            config.env(variable, value)
        if self.working_folder is not None:
            config.working_folder(text("working_folder", self.working_folder))
        if self.log_folder is not None:
            config.log_folder(text("log_folder", self.log_folder))
        if self.keep_folder:
            config.keep_folder()
        if self.freezable:
            config.freezable()
        if self.has_screen:
            config.with_screen()
        if not self.own_process_group:
            config.in_callers_process_group()
        if self.transcript is not None:
            config.transcript(self.transcript)
        return config

    def _configure_monitors(self, config: _core.Config) -> None:
        if self.monitor is False:
            config.without_monitor()
        elif isinstance(self.monitor, tuple):
            host, port = self.monitor
            if not 0 <= port < 1 << 16:
                raise ConfigError(f"monitor takes a port from 0 to 65535, not {port}")
            config.monitor_at_port(host, port)
        elif self.monitor is not True:
            config.monitor_at_path(text("monitor", self.monitor))
        if self.qmp_path is not None:
            config.extra_monitor("qmp", text("qmp_path", self.qmp_path))

    @property
    def _launched(self) -> _core.Machine:
        if self._machine is None:
            raise Error("the machine was not launched")
        return self._machine

    def _taken(self: SelfFace, machine: _core.Machine) -> SelfFace:
        """Makes it the face of a machine that runs already."""
        self._machine, self._was_taken = machine, True
        return self

    @contextmanager
    def _launching(self) -> Iterator[_core.Config]:
        """Once at a time, and not while it runs."""
        if self._was_taken:
            raise Error("the machine was not launched but made of a template, or taken from a pool: that gives another one")
        try:
            self._may_launch.pop()
        except IndexError:
            raise Error("the machine is being launched already") from None
        try:
            if self._machine is not None and self._machine.is_running:
                raise Error(f"the machine runs already, as process {self._machine.pid}")
            yield self._config()
        finally:
            self._may_launch.append(True)

    def events(self) -> List[Object]:
        """Takes all events that have arrived and were not taken yet, oldest first. Works after the end, too."""
        return [loads(event) for event in self._launched.take_events()]

    @property
    def dropped_events(self) -> int:
        """How many events were dropped because nobody took them in time, of the 16384 that are kept."""
        return self._launched.dropped_events

    @property
    def greeting(self) -> Optional[Object]:
        """What QEMU said first: its version and capabilities."""
        greeting = self._launched.greeting
        return None if greeting is None else loads(greeting)

    @property
    def pid(self) -> int:
        """The process that was started: QEMU, or the wrapper if there is one."""
        return self._launched.pid

    @property
    def is_running(self) -> bool:
        """Whether it was launched and has not ended yet."""
        return self._machine is not None and self._machine.is_running

    @property
    def exit(self) -> Optional[ProcessExit]:
        """How the process ended, if it has."""
        return None if self._machine is None else self._machine.exit

    @property
    def log(self) -> bytes:
        """Everything that QEMU has written to stdout and stderr, also while it runs."""
        return self._launched.log()

    @property
    def log_path(self) -> str:
        """Where that is written to."""
        return self._launched.log_path

    @property
    def command(self) -> List[str]:
        """What was run, word by word."""
        return self._launched.command

    @property
    def command_line(self) -> str:
        """The same as one line for a shell, with secrets masked."""
        return self._launched.command_line

    @property
    def work_folder(self) -> str:
        """The machine's own folder (mode 0700), removed when the machine has ended."""
        return self._launched.work_folder

    @property
    def launch_time(self) -> float:
        """Seconds from the start of the process to its monitor being ready."""
        return self._launched.launch_time

    def __repr__(self) -> str:
        try:
            if self._machine is None:
                state = "not launched"
            elif self._machine.is_running:
                state = f"process {self._machine.pid}"
            else:
                state = f"QEMU {self._machine.exit}"
        except ForkedError:
            state = "another process has it"
        return f"<{type(self).__module__}.{type(self).__name__} {self.binary!r}: {state}>"


class Queue:
    """A listener's queue: whatever does not wait."""

    def __init__(self, listener: _core.Listener) -> None:
        self._listener = listener
        self._told = 0

    def take_all(self) -> List[Object]:
        """Takes all events that are there."""
        return [loads(event) for event in self._listener.take_all()]

    def __len__(self) -> int:
        return len(self._listener)

    @property
    def dropped(self) -> int:
        """How many events were dropped because nobody read them in time, of the 16384 that are kept."""
        return self._listener.dropped

    def _tell_what_is_lost(self) -> None:
        before, self._told = self._told, self._listener.dropped
        dropped = self._told - before
        if dropped:
            error = Lagged(f"{dropped} events were dropped, because nobody read them in time")
            error.dropped = dropped
            raise error


def result(command: str, reply: Object) -> Any:
    """The value in a reply.

    :raises CommandError: if it is a refusal.
    """
    if "error" not in reply:
        return reply["return"]
    refusal = reply["error"]
    error = CommandError(f"QEMU refused `{command}`: {refusal['desc']}")
    error.command, error.error_class, error.desc = command, refusal["class"], refusal["desc"]
    raise error


NEVER = math.inf
