"""The blocking face."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Type, TypeVar

from ratite import _core
from ratite._agent import Agent
from ratite._core import Exit, Match, Picture, ScreenText
from ratite._errors import Disconnected, Error, ForkedError, ShutdownError
from ratite._face import NEVER, Face, Queue, result
from ratite._json import Object, loads, sent
from ratite._shell import TerminalView
from ratite._template import Template
from ratite._words import Part, Pattern, Patterns, count, pattern, patterns, seconds, turns, wanted

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
        text = sent(command, arguments, keywords)
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

    @property
    def screen(self) -> Screen:
        """The screen. There is one if the machine has a graphics card, such as ``-vga std``."""
        return Screen(self._launched.screen)

    @property
    def input(self) -> Input:
        """Keyboard and mouse."""
        return Input(self._launched.input)

    def human_monitor(self, command: str, *, cpu: Optional[int] = None, timeout: Optional[float] = None) -> str:
        """Executes a command of QEMU's monitor for people (HMP), about a processor if `cpu` is given, and returns what it prints.

        It tells failures as text, too.
        """
        about = {} if cpu is None else {"cpu-index": cpu}
        return str(self.cmd("human-monitor-command", {"command-line": command, **about}, timeout=timeout))

    def freeze(self) -> Template:
        """Makes a template of this machine, as it is now, and ends it: its RAM and its disks become the template's.

        Works for any machine with a monitor; for one that is ``freezable`` in the best way.

        :raises FreezeError: with the device or the job that is to blame. The machine goes on as it was.
        :raises MachineExited: if QEMU ended.
        """
        return Template(self._launched.freeze().wait())

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

    def terminal(self, columns: int = 80, rows: int = 25) -> TerminalView:
        """The console as it looks on a terminal of this size, from the oldest byte that is kept on."""
        return TerminalView(self._console.terminal(count("columns", columns), count("rows", rows)))

    def send_echoed(self, text: str, timeout: float = 60.0) -> Match:
        """Types `text`, and waits until the guest has echoed it, which is taken: what is expected next is its answer."""
        left = turns(seconds("timeout", timeout))
        self._console.write(text.encode()).wait()
        while True:
            match = self._console.find_echo(text, next(left)).wait().take()
            if match is not None:
                return match

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
        event: Optional[Object] = self._listener.pop(events)
        return loads(self._listener.next(events, limit).wait()) if event is None else event

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


class Screen:
    """A machine's screen: the one that QEMU shows first, or that of a card.

    What waits for something to be seen takes a picture every 0.1 s. It takes `channel`, how far red, green and blue of a pixel may be
    off, of 255, before it counts as different; `share`, which share of the pixels may be different, from 0.0 to 1.0; and `ignoring`,
    parts of the screen that do not count: left, top, width, height.
    """

    def __init__(self, screen: _core.Screen) -> None:
        self._screen = screen

    def of(self, device: str, head: int = 0) -> Screen:
        """The screen of the card with this ``id``, and which of its screens."""
        return Screen(self._screen.of(device, head))

    def every(self, pause: float) -> Screen:
        """The same, looked at every `pause` seconds while something is waited for."""
        return Screen(self._screen.every(seconds("pause", pause)))

    def screenshot(self, timeout: float = 60.0) -> Picture:
        """Takes a picture.

        :raises ScreenError: when the machine has no screen.
        """
        return self._screen.screenshot(seconds("timeout", timeout)).wait()

    def png(self, timeout: float = 60.0) -> bytes:
        """Takes a picture as a PNG: QEMU's own where it writes one, converted where not."""
        return self._screen.png(seconds("timeout", timeout)).wait()

    def changed_from(
        self,
        before: Picture,
        timeout: float = 60.0,
        *,
        channel: int = 0,
        share: float = 0.0,
        ignoring: Sequence[Part] = (),
    ) -> Picture:
        """Waits until the screen no longer looks like `before`.

        :raises TimedOut: with the last picture.
        """
        within, limit = (channel, share, list(ignoring)), seconds("timeout", timeout)
        return self._screen.changed_from(before, within, limit).wait()

    def looks_like(
        self,
        reference: Picture,
        timeout: float = 60.0,
        *,
        channel: int = 0,
        share: float = 0.0,
        ignoring: Sequence[Part] = (),
    ) -> Picture:
        """Waits until the screen looks like `reference`.

        :raises TimedOut: with the last picture, and how it differs.
        """
        within, limit = (channel, share, list(ignoring)), seconds("timeout", timeout)
        return self._screen.looks_like(reference, within, limit).wait()

    def still(
        self,
        time: float,
        timeout: float = 60.0,
        *,
        channel: int = 0,
        share: float = 0.0,
        ignoring: Sequence[Part] = (),
    ) -> Picture:
        """Waits until the screen has stayed as it is for `time` seconds.

        :raises TimedOut: with the last picture.
        """
        within, limit = (channel, share, list(ignoring)), seconds("timeout", timeout)
        return self._screen.still(seconds("time", time), within, limit).wait()

    def text(self, timeout: float = 60.0) -> ScreenText:
        """Reads the text on the screen by its glyphs.

        :raises ScreenError: with the picture, when it shows no text.
        """
        return self._screen.text(seconds("timeout", timeout)).wait()

    def wait_text(self, what: Pattern, timeout: float = 60.0) -> ScreenText:
        """Waits until `what` is on the screen: a text, bytes, or a compiled expression.

        :raises TimedOut: with the last picture.
        """
        wanted, regex = pattern(what)
        return self._screen.wait_text(wanted, regex, seconds("timeout", timeout)).wait()


class Input:
    """A machine's keyboard and mouse. Nothing stays pressed, whatever becomes of a call."""

    def __init__(self, devices: _core.Input) -> None:
        self._input = devices

    def hold(self, time: float) -> Input:
        """The same, with keys and buttons held for `time` seconds: 0.04 by default, from 0.001 to 10."""
        return Input(self._input.hold(seconds("time", time)))

    def send_key(self, keys: str) -> None:
        """Presses and releases a key, or several joined by ``-``, such as ``ctrl-alt-delete``.

        :raises InputError: naming the nearest for a key that there is not; nothing is sent then.
        """
        self._input.send_key(keys).wait()

    def type_text(self, text: str, layout: str = "us") -> None:
        """Types a text as on a keyboard of this layout, which has to be the guest's: us, uk, de or fr.

        :raises InputError: naming the character that cannot be typed; nothing is sent then.
        """
        self._input.type_text(text, layout).wait()

    def move_to(self, x: float, y: float) -> None:
        """Moves the pointer to a place, from 0.0, 0.0 at the upper left to 1.0, 1.0 at the lower right.

        :raises InputError: when the machine has no device that takes places, such as ``usb-tablet``.
        """
        self._input.move_to(x, y).wait()

    def move_by(self, right: int, down: int) -> None:
        """Moves the pointer by a way."""
        self._input.move_by(right, down).wait()

    def click(self, button: str = "left") -> None:
        """Presses and releases a button: left, middle, right, side or extra."""
        self._input.click(button).wait()

    def press_button(self, button: str = "left") -> None:
        """Presses a button and leaves it pressed, to drag something."""
        self._input.press_button(button).wait()

    def release_button(self, button: str = "left") -> None:
        """Releases a button."""
        self._input.release_button(button).wait()

    def scroll(self, steps: int) -> None:
        """Turns the wheel away from oneself, or the other way with a negative number."""
        self._input.scroll(steps).wait()
