"""A console as a socket, which is read in the background from its first byte on.

What comes is kept, up to a bound, until it is read; the guest never waits for a reader, and the oldest bytes go when there are too
many. A log file gets them all.
"""

from __future__ import annotations

import os
import socket
from typing import Optional, Union

from ratite import _core

__all__ = ["ConsoleSocket"]

_StrPath = Union[str, "os.PathLike[str]"]

HISTORY = 16 << 20
"""How many bytes of a console are kept for a reader."""

WRITE_LIMIT = 30.0
"""How many seconds a guest may take to read what is typed."""

READ_LIMIT = 300.0
"""How many seconds a read of a drained console waits, until `settimeout` says otherwise."""


class ConsoleSocket(socket.socket):
    """A socket that is connected to a console.

    Takes either a path or the number of a connected socket, which it then owns. A file gets everything that comes, from now on; with
    one, or with `drain`, the console is read in the background.

    The arguments of QEMU 7.2, ``(address, file, drain)``, and of QEMU 10, ``(address, sock_fd, file, drain)``, are both taken.
    """

    def __init__(
        self,
        address: Optional[_StrPath] = None,
        sock_fd: Union[int, _StrPath, None] = None,
        file: Union[_StrPath, bool, None] = None,
        drain: bool = False,
    ) -> None:
        if isinstance(file, bool):
            drain, file = file, None
        if sock_fd is not None and not isinstance(sock_fd, int):
            file, sock_fd = sock_fd, None
        if (address is None) == (sock_fd is None):
            raise ValueError("a console is either at a path or at the number of a connected socket")
        self._console: Optional[_core.Console] = None
        self._log = None if file is None else os.path.abspath(file)
        number = _connected(address) if sock_fd is None else sock_fd
        if drain or file is not None:
            number = self._drain(number)
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM, fileno=number)
        if drain:
            self.settimeout(READ_LIMIT)

    @classmethod
    def over(cls, console: _core.Console, drain: bool) -> ConsoleSocket:
        """A socket on a console that is read already."""
        made = cls(sock_fd=console.socket())
        made._console = console
        if drain:
            made.settimeout(READ_LIMIT)
        return made

    def _drain(self, number: int) -> int:
        try:
            self._console = _core.Console.over(number, HISTORY, self._log, WRITE_LIMIT)
            return self._console.socket()
        finally:
            os.close(number)

    def recv(self, bufsize: int = 1, flags: int = 0) -> bytes:
        """What has arrived, at most `bufsize` bytes; nothing at the end of the stream."""
        return super().recv(bufsize, flags) if bufsize > 0 else b""

    def close(self) -> None:
        """Closes the socket. The console is read on until QEMU has ended, if it belongs to a machine."""
        super().close()
        self._console = None

    def __repr__(self) -> str:
        drained = "read in the background" if self._console is not None else "not drained"
        return f"<{super().__repr__()[1:-1]}, logfile={self._log!r}, {drained}>"


def _connected(address: Optional[_StrPath]) -> int:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.connect(os.fspath(address or ""))
        return made.detach()
    finally:
        made.close()


def widen(end: socket.socket) -> None:
    """Has as much as possible fit between QEMU and whoever reads its console.

    A guest writes byte by byte, and each takes the room of a packet: not 300 fit by default. Some of QEMU's devices drop what does not
    fit at once, however soon it is read.
    """
    try:
        end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, ROOM)
    except PermissionError:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)


ROOM = 32 << 20

# Of Linux; Python has no name for it.
_SO_SNDBUFFORCE = 32
