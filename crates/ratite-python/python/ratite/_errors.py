"""What can go wrong, with the evidence in attributes.

Error
├── ConfigError            (also a ValueError)
│   ├── AddressError
│   ├── ArgumentsError
│   └── PatternError
├── LaunchError
├── ShutdownError
├── MachineExited
├── NoMonitor
├── CommandError
├── TimedOut               (also a TimeoutError)
│   ├── NoAgent
│   └── StillRuns
├── Disconnected           (also a ConnectionError)
├── ConnectError           (also a ConnectionError)
├── ProtocolError
│   ├── GreetingError
│   └── NegotiationError
├── Lagged
├── ConsoleError
│   ├── ConsoleEnded       (also an EOFError)
│   ├── ConsoleFailure
│   └── GuestPanicked
├── ScreenError
├── InputError
├── ShellError
│   ├── LoginRefused
│   ├── ShellFailed
│   └── ShellGone
├── TemplateError
├── FreezeError
├── SpawnError
├── StoreError
├── CacheError
├── QtestError
└── ForkedError            (also a RuntimeError)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Mapping, Optional

if TYPE_CHECKING:
    from ratite._core import Exit, Match, Picture, ProcessExit, ShellOutput


class Error(Exception):
    """Anything that ratite raises of its own."""


class ConfigError(Error, ValueError):
    """Something that cannot work, seen before anything was started."""


class AddressError(ConfigError):
    """A text that is no address."""


class ArgumentsError(ConfigError):
    """Arguments that cannot be sent as JSON. Nothing was."""


class PatternError(ConfigError):
    """A text that is no regular expression."""


class LaunchError(Error):
    """A machine that did not start. Nothing is left behind.

    Its text is a report: the causes, QEMU's last words, and the command line with secrets masked.
    """

    kind: str = "other"
    """``work-folder``, ``log``, ``monitor-address``, ``channel``, ``spawn``, ``exited``, ``timed-out``, ``qmp``, ``console``."""
    reason: str = ""
    """The causes alone, on one line."""
    command: List[str] = []
    """What was run, if it came to that; secrets as they are."""
    errno: Optional[int] = None
    """The number of what the system said, if it said something."""
    exit: Optional[ProcessExit] = None
    """How the process ended, if there was one."""
    log: bytes = b""
    """The end of what the process wrote to stdout and stderr."""

    @property
    def output(self) -> str:
        """``log`` as text."""
        return self.log.decode(errors="replace")


class ShutdownError(Error):
    """A machine that did not end as it should. It is down, unless ``kind`` is ``unkillable``."""

    kind: str = "other"
    """``timed-out``, ``unclean``, ``unkillable``."""
    exit: Optional[Exit] = None
    """How it ended."""


class MachineExited(Error):
    """QEMU ended while something was under way."""

    exit: Optional[ProcessExit] = None
    """How it ended."""
    log: bytes = b""
    """The end of what it wrote to stdout and stderr."""


class NoMonitor(Error):
    """Something that takes a monitor, asked of a machine without one."""


class CommandError(Error):
    """QEMU, or a guest's agent, refused a command."""

    command: str = ""
    """The command's name."""
    error_class: str = ""
    """QEMU's error class, such as ``GenericError``."""
    desc: str = ""
    """QEMU's own words."""


class TimedOut(Error, TimeoutError):
    """A limit was over."""

    what: str = ""
    """What was waited for."""
    limit: float = 0.0
    """How long, in seconds."""
    tail: bytes = b""
    """The end of what the console had said, where one was waited for."""
    picture: Optional[Picture] = None
    """The last picture of the screen, where something on it was waited for."""


class NoAgent(TimedOut):
    """No guest agent has answered: it is not installed, does not run, or has another channel."""


class StillRuns(TimedOut):
    """A program in the guest that runs on: an agent cannot end it."""

    pid: int = 0
    """Its process in the guest."""


class Disconnected(Error, ConnectionError):
    """The connection ended."""

    errno: Optional[int] = None
    """The number of what the system said, if it said something."""


class ConnectError(Error, ConnectionError):
    """Nobody could be reached, or an address could not be listened on."""


class ProtocolError(Error):
    """A peer that does not speak as it should."""

    kind: str = "other"
    """``not-utf8``, ``not-json``, ``not-an-object``, ``not-qmp``, ``too-long``, ``too-deep``, ``truncated``; or ``unattributed``, an
    error that names no command while this one waited: ``error_class`` and ``desc`` are the peer's words."""
    excerpt: str = ""
    """The beginning of what it sent, escaped."""
    error_class: str = ""
    desc: str = ""


class GreetingError(ProtocolError):
    """The peer's first message is no greeting."""


class NegotiationError(ProtocolError):
    """The peer refused the capabilities; ``error_class`` and ``desc`` are its words."""


class Lagged(Error):
    """What was not read in time is gone; the next read goes on behind it."""

    dropped: int = 0
    """How many events, or bytes of a console."""


class ConsoleError(Error):
    """A console cannot be written to, or searched."""

    tail: bytes = b""
    """The end of what it had said."""


class ConsoleEnded(ConsoleError, EOFError):
    """A console's stream ended before it brought what was waited for."""

    exit: Optional[ProcessExit] = None
    """How QEMU ended, if that is why."""


class ConsoleFailure(ConsoleError):
    """Something appeared on a console that means a failure; it was taken, as a match is."""

    pattern: str = ""
    """The pattern that means a failure."""
    match: Match
    """What was found, with what came before it."""


class GuestPanicked(ConsoleError):
    """QEMU told that the guest has panicked, and it does not go on."""

    event: Mapping[str, Any] = {}
    """What QEMU says of it."""


class ScreenError(Error):
    """A machine without a screen, a screen without text that can be read, or a picture that could not be handed over."""

    picture: Optional[Picture] = None
    """What the screen shows, if a picture was taken."""


class InputError(Error):
    """Keys that there are not, a text that cannot be typed, a place that cannot be pointed at, or a machine that does not run.

    Nothing was sent.
    """


class ShellError(Error):
    """A guest's shell did not do what it was told."""

    output: str = ""
    """What the command had printed."""


class LoginRefused(ShellError):
    """The guest did not let the user in."""

    user: str = ""
    """Who."""
    said: str = ""
    """What the guest said."""


class ShellFailed(ShellError):
    """A command has failed, and `check` was asked for."""

    status: int = 0
    """Its exit status."""
    result: ShellOutput
    """All that it has brought."""


class ShellGone(ShellError):
    """The shell has ended, or another is in its place, which `Shell.attach` can take."""


class TemplateError(Error):
    """A template that cannot be used. QEMU was not started."""

    kind: str = "other"
    """``missing``, ``unreadable``, ``gone``, ``size``, ``changed``, ``other-qemu``; or ``closed``."""
    path: Optional[str] = None
    """The file that is missing or damaged, or the template's folder."""
    errno: Optional[int] = None
    """The number of what the system said, if it said something."""


class FreezeError(Error):
    """A machine that was not frozen. It goes on as it was."""

    kind: str = "other"
    """``not-freezable``, ``blocked``, ``block-job``, ``writable-disk``, ``save``, ``command``, ``folder``, ``files``, ``unkillable``."""
    reasons: List[str] = []
    """What is in the way: QEMU's own words, which name the device; the job; the disk."""
    errno: Optional[int] = None
    """The number of what the system said, if it said something."""


class SpawnError(Error):
    """A machine that did not come of a template. Nothing is left behind."""

    kind: str = "other"
    """``restore`` when QEMU did not take the state, ``resume`` when it refused a command or to go on, ``prepare`` when it was made and
    its pool's preparation has failed: the cause is what that has raised."""
    exit: Optional[ProcessExit] = None
    """How QEMU ended, if it did."""
    log: bytes = b""
    """The end of what it wrote to stdout and stderr."""


class StoreError(Error):
    """A template that was not stored."""

    kind: str = "other"
    """``held`` by a pool or a spawn that is under way; ``taken``, ``system``."""
    path: Optional[str] = None
    """The place."""
    errno: Optional[int] = None
    """The number of what the system said, if it said something."""


class CacheError(Error):
    """There is no template of that name, and nothing is kept of one that was not finished."""

    kind: str = "other"
    """``boot`` when the caller's own part has failed, which is the cause; ``name``, ``folder``, ``no-folder``, ``busy``, ``taken``,
    ``in-use``, ``key``."""
    errno: Optional[int] = None
    """The number of what the system said, if it said something."""
    exit: Optional[ProcessExit] = None
    """How the machine that was to be frozen ended, if it had."""
    log: bytes = b""
    """The end of what it wrote to stdout and stderr."""
    tail: bytes = b""
    """The end of what its console had said."""


class QtestError(Error):
    """QEMU did not do a qtest command."""

    answer: str = ""
    """Its answer."""


class ForkedError(Error, RuntimeError):
    """Something that belongs to the process that this one was forked off."""
