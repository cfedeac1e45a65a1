"""The asyncio face: the same names as `ratite.Machine`, awaited. Cancelling a wait loses nothing and leaves the machine usable."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, AsyncIterator, Dict, List, Mapping, Optional, Sequence, Type, TypeVar

from ratite import _core
from ratite._agent import AgentFace, GuestOutput
from ratite._aio_screen import Input, Screen
from ratite._aio_template import Pool, Template, TemplateCache
from ratite._core import Exit, Match, ShellOutput
from ratite._errors import Disconnected, Error, ForkedError, ShutdownError
from ratite._face import NEVER, Face, Queue, result
from ratite._json import Object, hyphenated, loads, sent
from ratite._shell import TerminalView as _TerminalView
from ratite._shell import prompts
from ratite._words import Pattern, Patterns, StrPath, count, pattern, patterns, seconds, text, turns, wanted

__all__ = [
    "Agent",
    "Console",
    "Input",
    "Listener",
    "Machine",
    "Pool",
    "Qtest",
    "Screen",
    "Shell",
    "Template",
    "TemplateCache",
    "TerminalView",
]


SelfAgent = TypeVar("SelfAgent", bound="Agent")
SelfMachine = TypeVar("SelfMachine", bound="Machine")


class Machine(Face):
    __doc__ = Face.__doc__

    async def launch(self: SelfMachine) -> SelfMachine:
        """Starts QEMU and returns once its monitor answers; see `ratite.Machine.launch`. Cancelling leaves nothing behind."""
        with self._launching() as config:
            self._machine = await config.launch(None)
        return self

    async def __aenter__(self: SelfMachine) -> SelfMachine:
        """Launches it, unless it runs already."""
        return self if self.is_running else await self.launch()

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Shuts it down. What the body raised counts more than an end that was not clean."""
        try:
            await self.shutdown()
        except (ForkedError, ShutdownError):
            if error is None:
                raise
        except BaseException:
            # Cancelled: nobody may be left who ends it.
            await self.kill()
            raise

    async def cmd(
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
        """Executes a QMP command and returns its value; see `ratite.Machine.cmd`. Any number may be under way at once."""
        return result(command, await self.qmp(command, arguments, timeout=timeout, oob=oob, fds=fds, **keywords))

    async def qmp(
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
        return loads(await self._launched.send(command, text, oob, fds, limit))

    async def event_wait(
        self, *names: str, match: Optional[Mapping[str, Any]] = None, timeout: float = 60.0
    ) -> Object:
        """Takes the oldest event of any of these names, and waits for one; see `ratite.Machine.event_wait`."""
        machine, events, left = self._launched, wanted(names, match), turns(seconds("timeout", timeout))
        while True:
            # Taken only here, in the loop's own thread: a cancelled wait takes no event along.
            await machine.event_ready(events, next(left))
            event = machine.try_event(events)
            if event is not None:
                return loads(event)

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

    async def human_monitor(self, command: str, *, cpu: Optional[int] = None, timeout: Optional[float] = None) -> str:
        """Executes a command of QEMU's monitor for people; see `ratite.Machine.human_monitor`."""
        about = {} if cpu is None else {"cpu-index": cpu}
        return str(await self.cmd("human-monitor-command", {"command-line": command, **about}, timeout=timeout))

    async def freeze(self) -> Template:
        """Makes a template of this machine, as it is now, and ends it; see `ratite.Machine.freeze`. Cancelled, it goes on."""
        return Template(await self._launched.freeze())

    async def shutdown(self, grace: Optional[float] = None) -> Optional[Exit]:
        """Asks it to quit, and kills it once `grace` is over; see `ratite.Machine.shutdown`."""
        if self._machine is None:
            return None
        return await self._machine.shutdown(self.grace if grace is None else seconds("grace", grace))

    async def kill(self) -> Optional[Exit]:
        """Ends it by force, with everything that it has started."""
        return None if self._machine is None else await self._machine.kill()

    async def wait(self, timeout: float = NEVER) -> Exit:
        """Waits until it ends by itself, and kills it once `timeout` is over."""
        return await self._launched.wait(seconds("timeout", timeout))


class Console:
    """A console; see `ratite.Console`."""

    def __init__(self, console: _core.Console) -> None:
        self._console = console

    async def expect(
        self, what: Patterns, timeout: float = 60.0, *, failing_on: Patterns = ()
    ) -> Match:
        """Waits until `what` appears, and takes everything up to its end; see `ratite.Console.expect`."""
        wanted, failures, left = patterns(what), patterns(failing_on), turns(seconds("timeout", timeout))
        while True:
            found = await self._console.find(wanted, failures, next(left))
            match = found.take()
            if match is not None:
                return match

    def reader(self, *, from_now: bool = False) -> Console:
        """The same console, read from a place of its own: from the oldest byte that is there, or from now on."""
        return Console(self._console.reader(from_now))

    async def read(self, size: int = 1 << 30, timeout: float = 60.0) -> bytes:
        """Takes what has arrived, at most `size` bytes, and waits for the first. Empty at the end of the stream."""
        size, left = count("size", size), turns(seconds("timeout", timeout))
        while size:
            await self._console.ready(next(left))
            # Asked first: what comes between the two belongs to this read, too.
            has_ended = self._console.has_ended
            data = self._console.take(size)
            if data or has_ended:
                return data
        return b""

    def take(self, size: int = 1 << 30) -> bytes:
        """Takes what has arrived, at most `size` bytes; does not wait."""
        return self._console.take(count("size", size))

    async def write(self, data: bytes) -> None:
        """Types `data`. Once begun it is finished, even if it is cancelled."""
        await self._console.write(data)

    async def send_line(self, line: str) -> None:
        """Types a line and Enter, which is a carriage return on a serial line."""
        await self.write(line.encode() + b"\r")

    def terminal(self, columns: int = 80, rows: int = 25) -> TerminalView:
        """The console as it looks on a terminal of this size, from the oldest byte that is kept on."""
        return TerminalView(self._console.terminal(count("columns", columns), count("rows", rows)))

    async def send_echoed(self, text: str, timeout: float = 60.0) -> Match:
        """Types `text`, and waits until the guest has echoed it, which is taken: what is expected next is its answer."""
        left = turns(seconds("timeout", timeout))
        await self._console.write(text.encode())
        while True:
            found = await self._console.find_echo(text, next(left))
            match = found.take()
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


class TerminalView(_TerminalView):
    """A console as it looks on a terminal; see `ratite.TerminalView`."""

    async def wait_for(  # type: ignore[override]
        self, what: Pattern, timeout: float = 60.0
    ) -> str:
        """Waits until `what` stands on the screen, and returns the screen's text."""
        return await self._view.wait_for(pattern(what), seconds("timeout", timeout))


class Shell:
    """A shell in a guest; see `ratite.Shell`. Cancelling leaves its command running, until the next call interrupts it."""

    def __init__(self, shell: _core.Shell) -> None:
        self._shell = shell

    @classmethod
    async def attach(cls, console: Console, timeout: float = 60.0) -> Shell:
        """Takes the shell that runs on `console`, or is about to; see `ratite.Shell.attach`."""
        return cls(await _core.Shell.attach(console._console, seconds("timeout", timeout)))

    @classmethod
    async def login(
        cls,
        console: Console,
        user: str,
        password: Optional[str] = None,
        timeout: float = 60.0,
        *,
        login_prompt: Optional[Pattern] = None,
        password_prompt: Optional[Pattern] = None,
        refusal: Optional[Pattern] = None,
        shell_prompt: Optional[Pattern] = None,
    ) -> Shell:
        """Logs in on `console`, and takes the shell; see `ratite.Shell.login`."""
        asked = prompts(login_prompt, password_prompt, refusal, shell_prompt)
        limit = seconds("timeout", timeout)
        return cls(await _core.Shell.login(console._console, user, password, asked, limit))

    async def run(self, command: str, timeout: float = 60.0, *, check: bool = False) -> ShellOutput:
        """Runs `command` and waits for its end; see `ratite.Shell.run`."""
        return await self._shell.run(command, check, seconds("timeout", timeout))

    async def interrupt(self, timeout: float = 60.0) -> None:
        """Ends what runs, with Ctrl-C, and waits until the shell answers again."""
        await self._shell.interrupt(seconds("timeout", timeout))


class Listener(Queue):
    """A queue of events. Iterating waits for the next one, until the connection ends."""

    async def next(
        self, *names: str, match: Optional[Mapping[str, Any]] = None, timeout: float = 60.0
    ) -> Object:
        """Takes the oldest event of these names, and waits for one; one that is there is had without a turn of the loop."""
        if not names and match is None:
            self._tell_what_is_lost()
        events, left = wanted(names, match), turns(seconds("timeout", timeout))
        while True:
            event: Optional[Object] = self._listener.pop(events)
            if event is not None:
                return event
            await self._listener.ready(events, next(left))

    async def __aiter__(self) -> AsyncIterator[Object]:
        while True:
            try:
                yield await self.next(timeout=NEVER)
            except Disconnected:
                return


class Qtest:
    """The qtest protocol; see `ratite.Qtest`."""

    def __init__(self, qtest: _core.Qtest) -> None:
        self._qtest = qtest

    async def command(self, command: str) -> str:
        """What came behind ``OK``."""
        return await self._qtest.command(command)

    async def raw(self, command: str) -> str:
        """The answer as it came, without the line end."""
        return await self._qtest.raw(command)

    @property
    def irqs(self) -> Mapping[int, bool]:
        """The levels of the interrupt lines that were intercepted and have changed."""
        return self._qtest.irqs()

    async def wait_irq(self, number: int, level: bool, timeout: float = 60.0) -> None:
        """Waits until an interrupt line is at `level`."""
        await self._qtest.wait_irq(number, level, seconds("timeout", timeout))


class Agent(AgentFace):
    __doc__ = AgentFace.__doc__

    async def __aenter__(self: SelfAgent) -> SelfAgent:
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Ends the connection."""
        self.close()

    async def execute(
        self,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        /,
        *,
        timeout: Optional[float] = None,
        **keywords: Any,
    ) -> Any:
        """Executes a command of the agent's, such as ``guest-get-osinfo``, and returns its value.

        :raises NoAgent: when nobody has answered in time.
        :raises CommandError: when the agent refused, does not have the command, or has it disabled.
        """
        return json.loads(await self._execute(command, {**(arguments or {}), **hyphenated(keywords)}, timeout))

    async def ping(self, timeout: Optional[float] = None) -> None:
        """Waits until the agent has answered."""
        await self.execute("guest-ping", timeout=timeout)

    async def info(self) -> Object:
        """The agent's ``version`` and ``supported_commands``."""
        info: Object = await self.execute("guest-info")
        return info

    async def exec(
        self,
        *words: str,
        env: Optional[Mapping[str, str]] = None,
        input: Optional[bytes] = None,
        capture: bool = True,
        timeout: float = NEVER,
    ) -> GuestOutput:
        """Runs a program in the guest, by its path or name and its arguments, and waits for its end.

        With `env` it has these variables alone.

        :raises StillRuns: when `timeout` is over; the program runs on.
        """
        return GuestOutput(*(await self._exec(words, env, input, capture, timeout)))

    async def read_file(self, path: StrPath) -> bytes:
        """The whole of a file of the guest."""
        return await self._agent.read_file(text("path", path), self.timeout)

    async def write_file(self, path: StrPath, data: bytes) -> None:
        """Makes `data` the content of a file of the guest."""
        await self._agent.write_file(text("path", path), data, self.timeout)

    async def fs_status(self) -> str:
        """``thawed`` or ``frozen``."""
        return str(await self.execute("guest-fsfreeze-status"))

    async def fs_freeze(self, timeout: Optional[float] = None) -> int:
        """Freezes the guest's file systems, and returns how many; until `fs_thaw` whoever writes in the guest waits."""
        return int(await self.execute("guest-fsfreeze-freeze", timeout=timeout))

    async def fs_thaw(self, timeout: Optional[float] = None) -> int:
        """Thaws the guest's file systems, and returns how many."""
        return int(await self.execute("guest-fsfreeze-thaw", timeout=timeout))

    async def fs_trim(self, minimum: int = 0, timeout: Optional[float] = None) -> List[Object]:
        """Gives free blocks back to the host: for each file system its ``path``, and ``trimmed`` bytes or an ``error``."""
        paths: List[Object] = (await self.execute("guest-fstrim", minimum=minimum, timeout=timeout))["paths"]
        return paths

    async def shutdown(self, mode: str = "powerdown") -> None:
        """Asks the guest to go down: ``powerdown``, ``halt`` or ``reboot``. `Machine.wait` tells when it has."""
        await self.execute("guest-shutdown", mode=mode)

    async def suspend(self, mode: str) -> None:
        """Asks the guest to sleep: ``disk``, ``ram`` or ``hybrid``."""
        await self.execute(f"guest-suspend-{mode}")

    async def interfaces(self) -> List[Object]:
        """The guest's network interfaces."""
        interfaces: List[Object] = await self.execute("guest-network-get-interfaces")
        return interfaces

for _thing in (Input, Pool, Screen, Template, TemplateCache):
    # Where users find them is what a traceback and a `repr` say.
    _thing.__module__ = __name__
del _thing
