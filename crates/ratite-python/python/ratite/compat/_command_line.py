"""From what a caller has said to the words of a command line, and the descriptors that they name."""

from __future__ import annotations

import os
import re
from typing import Any, Collection, Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

# The arguments behind `monitor_address`, by position: QEMU 10's, and QEMU 7.2's.
_NEW = ("drain_console", "console_log", "log_dir", "qmp_timer")
_OLD = ("sock_dir", *_NEW)


def by_position(given: Sequence[Any]) -> Dict[str, Any]:
    """The arguments that were given by position behind `monitor_address`, by their names.

    `sock_dir` comes first in QEMU 7.2's order, and is a path or None; `drain_console` in QEMU 10's, and is a truth value.
    """
    names = _NEW if not given or isinstance(given[0], bool) else _OLD
    if len(given) > len(names):
        raise TypeError(f"{len(given) - len(names)} positional arguments too many")
    return dict(zip(names, given))


def words(what: str, given: Iterable[str]) -> List[str]:
    """A list of them; a lone text is not taken apart into its letters."""
    if isinstance(given, (str, bytes)):
        raise TypeError(f"`{what}` is a sequence of words, not {given!r}")
    return list(given)


def texts(given: Iterable[Any]) -> Tuple[str, ...]:
    """Each word as the text that Python has for any bytes.

    :raises TypeError: for what is neither text nor path.
    """
    return tuple(os.fsdecode(word) for word in given)


def doubled(value: str) -> str:
    """A value within an option: QEMU separates by commas, and reads two of them as one."""
    return value.replace(",", ",,")


def named_descriptors(arguments: Iterable[str], added: Collection[int]) -> Iterator[int]:
    """The descriptors that QEMU is told of by number: those in `added`, and those that were made inheritable for it."""
    seen: Set[int] = set()
    for argument in arguments:
        for numbers in _NUMBERS.findall(argument):
            for number in map(int, re.findall("[0-9]+", numbers)):
                if number > 2 and number not in seen and (number in added or _is_inheritable(number)):
                    seen.add(number)
                    yield number


# `fd=5`, `fds=5:6`, `vhostfd=7`, `fd:8`, `/dev/fd/9`, `/proc/self/fd/9`.
_NUMBERS = re.compile(r"(?:\b[a-z]*fds?[=:]|/fd/)([0-9]+(?::[0-9]+)*)")


def _is_inheritable(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except (OSError, OverflowError):
        return False


def to_the_terminal(taken: Iterable[int]) -> Optional[Tuple[List[str], Dict[int, int]]]:
    """What to put before a command line so that its output goes where ours goes, and the descriptors for that: our own by
    their numbers there.

    A shell takes no numbers above 9 in a redirection; None when they are all taken.
    """
    occupied = set(taken)
    free = [number for number in range(9, 2, -1) if number not in occupied][:2]
    if len(free) < 2:
        return None
    out, err = free
    script = f'exec "$@" >&{out} 2>&{err} {out}>&- {err}>&-'
    return ["/bin/sh", "-c", script, "sh"], {out: 1, err: 2}
