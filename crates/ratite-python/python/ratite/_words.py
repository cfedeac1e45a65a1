"""What both faces, blocking and asyncio, take and give: configurations, limits, patterns, what is wanted of an event."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterable
from typing import Any, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from ratite import _core
from ratite._errors import ArgumentsError, ConfigError, PatternError

StrPath = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
Pattern = Union[str, bytes, "re.Pattern[str]", "re.Pattern[bytes]"]
Patterns = Union[Pattern, Iterable[Pattern]]
Part = Tuple[int, int, int, int]
Wanted = List[Tuple[Optional[str], Optional[str]]]


def text(what: str, path: StrPath) -> str:
    """A path or an argument as the text that Python has for any bytes (`os.fsdecode`)."""
    try:
        return os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{what} takes a text or a path, not {path!r}") from None


def texts(what: str, words: Iterable[StrPath]) -> List[str]:
    """Several of them. A lone text is not taken apart into its letters."""
    if isinstance(words, (str, bytes)) or not isinstance(words, Iterable):
        raise TypeError(f"{what} takes a sequence of words, not {words!r}")
    return [text(what, word) for word in words]


def seconds(what: str, limit: float) -> float:
    """A limit in seconds that can be waited for.

    :raises ConfigError: for one that is negative, or no number at all.
    """
    try:
        if limit >= 0:
            return float(limit)
    except OverflowError:
        return math.inf
    except TypeError:
        raise TypeError(f"{what} takes seconds, or math.inf for no limit, not {limit!r}") from None
    raise ConfigError(f"{what} takes seconds from 0 on, or math.inf for no limit, not {limit!r}")


def turns(limit: float) -> Iterator[float]:
    """What is left of a limit, each time that a wait begins anew: all of it at first."""
    end = time.monotonic() + limit
    yield limit
    while True:
        yield max(0.0, end - time.monotonic())


def count(what: str, number: int) -> int:
    """How many there are of something."""
    if isinstance(number, int) and 0 <= number < 1 << 63:
        return number
    raise (ConfigError if isinstance(number, int) else TypeError)(f"{what} takes a whole number from 0 on, not {number!r}")


def wanted(names: Sequence[str], match: Optional[Mapping[str, Any]]) -> Wanted:
    """The events of any of these names (any at all if there is none) that contain `match`."""
    if not names and match is None:
        return _ANY
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"the name of an event is a text, not {name!r}")
    try:
        subset = None if match is None else json.dumps(match, allow_nan=False)
    except ValueError as error:
        raise ArgumentsError(f"could not compare an event with `match`: {error}") from error
    return [(name, subset) for name in names] or [(None, subset)]


_ANY: Wanted = [(None, None)]


def pattern(wanted: Pattern) -> Tuple[str, bool]:
    """The text of a pattern, and whether it is a regular expression."""
    if isinstance(wanted, str):
        return wanted, False
    if isinstance(wanted, bytes):
        return _exactly(wanted)
    if not isinstance(wanted, re.Pattern):
        raise TypeError(f"a pattern is a text, bytes, or made by re.compile, not {wanted!r}")
    expression = wanted.pattern
    if isinstance(expression, bytes):
        try:
            expression = expression.decode("ascii")
        except UnicodeDecodeError:
            raise PatternError(f"{expression!r}: bytes beyond ASCII are written as \\xNN") from None
    flags = "".join(letter for flag, letter in _FLAGS if wanted.flags & flag)
    return (f"(?{flags}){expression}" if flags else expression), True


def _exactly(wanted: bytes) -> Tuple[str, bool]:
    try:
        return wanted.decode(), False
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in wanted), True


_FLAGS = ((re.IGNORECASE, "i"), (re.MULTILINE, "m"), (re.DOTALL, "s"), (re.VERBOSE, "x"))


def patterns(what: Patterns) -> List[Tuple[str, bool]]:
    """One pattern, or several."""
    if isinstance(what, (str, bytes, re.Pattern)) or not isinstance(what, Iterable):
        return [pattern(what)]
    return [pattern(one) for one in what]


class ConsoleOptions:
    """A console: which device it is, and what is kept of it.

    `device` is a device type such as ``sclpconsole``, whose bus is for `args`; else the console is a serial port. `name` is the
    one in `Machine.consoles`. `index` says which serial port it is, counted from 0: by default the first that no other console
    has; for a device it is how many serial ports come before it. `log` is a file that gets every byte from the first on, with `timestamps` each
    of its lines begins with the seconds since the launch. `history` is how many of the last bytes are kept for readers;
    what nobody read in time is dropped and counted, and the guest never waits.
    """

    def __init__(
        self,
        device: Optional[str] = None,
        *,
        name: str = "console",
        index: Optional[int] = None,
        log: Optional[StrPath] = None,
        timestamps: bool = False,
        history: int = 1 << 20,
    ) -> None:
        self.device = device
        self.name = name
        self.index = None if index is None else count("index", index)
        self.log = None if log is None else text("log", log)
        self.timestamps = timestamps
        self.history = count("history", history)
        self.port: Optional[str] = None
        self.bus: Optional[str] = None

    @classmethod
    def virtconsole(
        cls,
        *,
        name: str = "console",
        bus: Optional[str] = None,
        log: Optional[StrPath] = None,
        timestamps: bool = False,
        history: int = 1 << 20,
    ) -> ConsoleOptions:
        """A virtio console, ``/dev/hvc0`` and so on of a Linux guest, on a bus that all such consoles of a machine share, or
        on `bus`."""
        options = cls(name=name, log=log, timestamps=timestamps, history=history)
        options.port, options.bus = "", bus
        return options

    @classmethod
    def virtserialport(
        cls,
        port: str,
        *,
        name: Optional[str] = None,
        bus: Optional[str] = None,
        log: Optional[StrPath] = None,
        timestamps: bool = False,
        history: int = 1 << 20,
    ) -> ConsoleOptions:
        """A virtio channel, which a Linux guest has as ``/dev/virtio-ports/PORT``; its name is that of the port by default."""
        if not port:
            raise ConfigError("a virtio channel has a name; one without is a virtconsole")
        options = cls(name=name or port, log=log, timestamps=timestamps, history=history)
        options.port, options.bus = port, bus
        return options

    def _apply(self, config: _core.Config) -> None:
        kind = (self.name, self.device, self.port, self.bus)
        config.console(*kind, self.index, self.history, self.log, self.timestamps)
