"""What both faces, blocking and asyncio, take and give: configurations, patterns, what is wanted of an event."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from ratite import _core
from ratite._errors import PatternError

StrPath = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
Pattern = Union[str, "re.Pattern[str]", "re.Pattern[bytes]"]
Wanted = List[Tuple[Optional[str], Optional[str]]]


def text(path: StrPath) -> str:
    """A path or an argument as the text that Python has for any bytes (`os.fsdecode`)."""
    return os.fsdecode(path)


def texts(what: str, words: Iterable[StrPath]) -> List[str]:
    """Several of them; a lone text is not taken apart into its letters."""
    if isinstance(words, (str, bytes)):
        raise TypeError(f"{what} is a sequence of words, not {words!r}")
    return [text(word) for word in words]


def wanted(names: Sequence[str], match: Optional[Mapping[str, Any]]) -> Wanted:
    """The events of any of these names (any at all if there is none) that contain `match`."""
    subset = None if match is None else json.dumps(match)
    return [(name, subset) for name in names] or [(None, subset)]


def pattern(wanted: Pattern) -> Tuple[str, bool]:
    """The text of a pattern, and whether it is a regular expression."""
    if isinstance(wanted, str):
        return wanted, False
    expression = wanted.pattern
    if isinstance(expression, bytes):
        try:
            expression = expression.decode("ascii")
        except UnicodeDecodeError:
            raise PatternError(f"{expression!r}: bytes beyond ASCII are written as \\xNN") from None
    flags = "".join(letter for flag, letter in _FLAGS if wanted.flags & flag)
    return (f"(?{flags}){expression}" if flags else expression), True


_FLAGS = ((re.IGNORECASE, "i"), (re.MULTILINE, "m"), (re.DOTALL, "s"), (re.VERBOSE, "x"))


class ConsoleOptions:
    """A console: which device it is, and what is kept of it.

    `device` is a device type such as ``virtconsole``, else the console is a serial port. `index` is how many serial ports
    come before it. `log` is a file that gets every byte from the first on. `history` is how many of the last bytes are kept for
    readers; what nobody read in time is dropped and counted, and the guest never waits.
    """

    def __init__(
        self,
        device: Optional[str] = None,
        *,
        index: int = 0,
        log: Optional[StrPath] = None,
        history: int = 1 << 20,
    ) -> None:
        self.device = device
        self.index = index
        self.log = log
        self.history = history

    def apply(self, config: _core.Config) -> None:
        log = None if self.log is None else text(self.log)
        config.console(self.device, self.index, self.history, log)
