"""The blocking face."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Type, TypeVar

from ratite import _core
from ratite._agent import Agent
from ratite._core import Exit, Match
from ratite._errors import Disconnected, Error, ForkedError, ShutdownError
from ratite._face import NEVER, Face, Queue, result
from ratite._json import Object, dumps, hyphenated, loads
from ratite._words import Patterns, count, patterns, seconds, turns, wanted

SelfMachine = TypeVar("SelfMachine", bound="Machine")


class Machine(Face):
    __doc__ = Face.__doc__

    def launch(self: SelfMachine) -> SelfMachine:
        """Starts QEMU and returns once its monitor answers. May be called again once the machine has ended.

        :raises LaunchError: with QEMU's last words; nothing is left behind.
        """
        with self._launching() as config:
            self._machine = config.launch(None).wait()
        return self

    def __enter__(self: SelfMachine) -> SelfMachine:
        """Launches it, unless it runs already."""
        return self if self.is_running else self.launch()

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Shuts it down. What the body raised counts more than an end that was not clean."""
        try:
            self.shutdown()
        except (ForkedError, ShutdownError):
            if error is None:
                raise
        except BaseException:
            # Interrupted: nobody may be left who ends it.
            self.kill()
            raise

    def cmd(
        self,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        /,
        *,
        timeout: Optional[float] = None,
        oob: bool = False,
        fds: Sequence[int] = (),
        **keywords: Any,
    ) -> Any:
        """Executes a QMP command and returns its value.

        `arguments` are sent as they are; in keywords each ``_`` becomes ``-``. Copies of `fds` travel with the command. `timeout` is
        ``command_timeout`` by default. Safe from any number of threads at once.

        :raises CommandError: with QEMU's own words.
        :raises MachineExited: if QEMU ended.
        """
        return result(command, self.qmp(command, arguments, timeout=timeout, oob=oob, fds=fds, **keywords))

    def qmp(
        self,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        /,
        *,
        timeout: Optional[float] = None,
        oob: bool = False,
        fds: Sequence[int] = (),
        **keywords: Any,
    ) -> Object:
        """The same, but returns the whole reply, with ``return`` or ``error``."""
        text = dumps(command, {**(arguments or {}), **hyphenated(keywords)})
        limit = None if timeout is None else seconds("timeout", timeout)
        return loads(self._launched.send(command, text, oob, fds, limit).wait())

    def event_wait(
        self, *names: str, match: Optional[Mapping[str, Any]] = None, timeout: float = 60.0
    ) -> Object:
        """Takes the oldest event of any of these names, and waits for one. Events that are passed over stay, in order.

        `match` is what the event has to contain: objects in part, everything else exactly; None is any value.

        :raises TimedOut: after `timeout` seconds in all.
        :raises MachineExited: at once if QEMU has ended and nothing that arrived fits.
        """
        events, limit = wanted(names, match), seconds("timeout", timeout)
        return loads(self._launched.next_event(events, limit).wait())

    def listen(self, *names: str, match: Optional[Mapping[str, Any]] = None) -> Listener:
        """A queue of its own, of such events from now on."""
        return Listener(self._launched.listen(wanted(names, match)))

    @property
    def console(self) -> Console:
        """The console, which is read from its first byte whether or not anybody looks."""
        console = self._launched.console
        if console is None:
            raise Error("the machine has no console: it takes `console=True`")
        return Console(console)

    @property
    def consoles(self) -> Dict[str, Console]:
        """All consoles by their names."""
        return {name: Console(console) for name, console in self._launched.consoles}

    @property
    def agent(self) -> Agent:
        """The agent in the guest. Its commands may take `command_timeout`."""
        agent = self._launched.agent
        if agent is None:
            raise Error("the machine has no channel for an agent: it takes `agent=True`")
        return Agent._over(agent, self.command_timeout)

    @property
    def qtest(self) -> Qtest:
        """The qtest session."""
        qtest = self._launched.qtest
        if qtest is None:
            raise Error("the machine has no qtest session: it takes `qtest=True`")
        return Qtest(qtest)

    def shutdown(self, grace: Optional[float] = None) -> Optional[Exit]:
        """Asks it to quit, and kills it once `grace` is over. None if it was never launched.

        May be called again, also after it was interrupted or the machine ended by itself: the answer is the same.

        :raises ShutdownError: when it had to be killed, or ended otherwise than with status 0; it is down then, too.
        """
        if self._machine is None:
            return None
        return self._machine.shutdown(self.grace if grace is None else seconds("grace", grace)).wait()

    def kill(self) -> Optional[Exit]:
        """Ends it by force, with everything that it has started."""
        return None if self._machine is None else self._machine.kill().wait()

    def wait(self, timeout: float = NEVER) -> Exit:
        """Waits until it ends by itself, and kills it once `timeout` is over. Commands and events go on meanwhile."""
        return self._launched.wait(seconds("timeout", timeout)).wait()


class Console:
    """A console. What comes is kept, up to a bound, until it is read."""

    def __init__(self, console: _core.Console) -> None:
        self._console = console

    def expect(
        self, what: Patterns, timeout: float = 60.0, *, failing_on: Patterns = ()
    ) -> Match:
        """Waits until `what` appears, and takes everything up to its end; what follows stays.

        `what` is an exact text, exact bytes, or a compiled regular expression (of the syntax that Rust's ``regex`` shares with `re`: no
        lookaround, no backreferences), searched in bytes; or several of them, of which `Match.index` tells which it was.
        `failing_on` is what means that it went wrong, such as `LINUX_FAILURES`.

        :raises TimedOut: nothing is taken then.
        :raises ConsoleEnded: when the stream ended without it.
        :raises ConsoleFailure: when something of `failing_on` came first; it is taken.
        :raises GuestPanicked: when QEMU told so.
        """
        wanted, failures, left = patterns(what), patterns(failing_on), turns(seconds("timeout", timeout))
        while True:
            match = self._console.find(wanted, failures, next(left)).wait().take()
            if match is not None:
                return match

    def reader(self, *, from_now: bool = False) -> Console:
        """The same console, read from a place of its own: from the oldest byte that is there, or from now on."""
        return Console(self._console.reader(from_now))

    def read(self, size: int = 1 << 30, timeout: float = 60.0) -> bytes:
        """Takes what has arrived, at most `size` bytes, and waits for the first. Empty at the end of the stream."""
        return self._console.read(count("size", size), seconds("timeout", timeout)).wait()

    def take(self, size: int = 1 << 30) -> bytes:
        """Takes what has arrived, at most `size` bytes; does not wait."""
        return self._console.take(count("size", size))

    def write(self, data: bytes) -> None:
        """Types `data`."""
        self._console.write(data).wait()

    def send_line(self, line: str) -> None:
        """Types a line and Enter, which is a carriage return on a serial line."""
        self.write(line.encode() + b"\r")

    def send_echoed(self, text: str, timeout: float = 60.0) -> Match:
        """Types `text`, and waits until the guest has echoed it, which is taken: what is expected next is its answer."""
        return self._console.send_echoed(text, seconds("timeout", timeout)).wait()

    def tail(self, size: int = 4096) -> bytes:
        """At most the last `size` bytes, read or not."""
        return self._console.tail(count("size", size))

    @property
    def has_ended(self) -> bool:
        """Whether the stream has ended."""
        return self._console.has_ended

    @property
    def log_fault(self) -> Optional[str]:
        """Why the log file is not written any more."""
        return self._console.log_fault


class Listener(Queue):
    """A queue of events. Iterating waits for the next one, until the connection ends."""

    def next(
        self, *names: str, match: Optional[Mapping[str, Any]] = None, timeout: float = 60.0
    ) -> Object:
        """Takes the oldest event of these names, and waits for one. Events that are passed over stay, in order.

        :raises Lagged: once after events were dropped, where any event will do.
        """
        if not names and match is None:
            self._tell_what_is_lost()
        events, limit = wanted(names, match), seconds("timeout", timeout)
        return loads(self._listener.next(events, limit).wait())

    def __iter__(self) -> Iterator[Object]:
        while True:
            try:
                yield self.next(timeout=NEVER)
            except Disconnected:
                return


class Qtest:
    """The qtest protocol: reads and writes of a machine's registers and memory."""

    def __init__(self, qtest: _core.Qtest) -> None:
        self._qtest = qtest

    def command(self, command: str) -> str:
        """What came behind ``OK``."""
        return self._qtest.command(command).wait()

    def raw(self, command: str) -> str:
        """The answer as it came, without the line end."""
        return self._qtest.raw(command).wait()

    @property
    def irqs(self) -> Mapping[int, bool]:
        """The levels of the interrupt lines that were intercepted and have changed."""
        return self._qtest.irqs()

    def wait_irq(self, number: int, level: bool, timeout: float = 60.0) -> None:
        """Waits until an interrupt line is at `level`."""
        self._qtest.wait_irq(number, level, seconds("timeout", timeout)).wait()
