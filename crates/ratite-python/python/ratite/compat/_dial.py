"""Sockets for QMP: connected to an address, or listening at one. Nothing of the protocol."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import stat
import time
from typing import Any, List, Optional, Tuple, Union

Address = Union[str, Tuple[str, int]]
_Found = Tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]


def refuse_tls(tls: object) -> None:
    """QMP comes here as it is, over sockets that this host reaches."""
    if tls is not None:
        raise ValueError("ratite speaks QMP without TLS: `ssl` has to be None")


def dial(address: Address, limit: Optional[float]) -> socket.socket:
    """A socket that is connected to `address`; blocks for at most `limit` seconds."""
    end = None if limit is None else time.monotonic() + limit
    if isinstance(address, tuple):
        host, port = address
        found = _lookup(host, port, 0)
    else:
        found = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", os.fspath(address))]
    fault: Optional[OSError] = None
    for family, kind, protocol, _, where in found:
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(None if end is None else max(0.001, end - time.monotonic()))
            made.connect(where)
            return made
        except OSError as error:
            made.close()
            fault = _named(error, where)
        except BaseException:
            made.close()
            raise
    raise fault or OSError(errno.EADDRNOTAVAIL, f"no address of {address!r}")


async def dial_async(address: Address) -> socket.socket:
    """The same for the running loop, without a limit: cancel it."""
    loop = asyncio.get_running_loop()
    if isinstance(address, tuple):
        host, port = address
        found = await loop.run_in_executor(None, _lookup, host, port, 0)
    else:
        found = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", os.fspath(address))]
    fault: Optional[OSError] = None
    for family, kind, protocol, _, where in found:
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            await loop.sock_connect(made, where)
            return made
        except OSError as error:
            made.close()
            fault = _named(error, where)
        except BaseException:
            made.close()
            raise
    raise fault or OSError(errno.EADDRNOTAVAIL, f"no address of {address!r}")


def _lookup(host: str, port: int, flags: int) -> List[_Found]:
    if not host:
        raise ValueError("the host is empty")
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is no port: it is a number from 0 to 65535")
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))


def _named(error: OSError, where: object) -> OSError:
    """What the system said, with the path that it was about."""
    if isinstance(where, str) and error.filename is None:
        if error.errno is None:
            return OSError(errno.ENAMETOOLONG, f"a socket's path has at most 107 bytes: {error}", where)
        return OSError(error.errno, error.strerror, where)
    return error


class Listening:
    """A socket, or one for each address of a host, that waits for one peer."""

    def __init__(self, sockets: List[socket.socket]) -> None:
        self._sockets = sockets
        for each in sockets:
            each.setblocking(False)

    @classmethod
    def at(cls, address: Address) -> Listening:
        """Listens at a path, which has to be free or a socket that nobody listens on any more; or at a host and port.

        The socket's file has mode 0600. It stays behind, as whoever gave the path expects.
        """
        if isinstance(address, tuple):
            host, port = address
            return cls.on(_lookup(host, port, socket.AI_PASSIVE))
        return cls([_listen_at(os.fspath(address))])

    @classmethod
    async def at_async(cls, address: Address) -> Listening:
        """The same, with the look-up of a host's name out of the running loop's way."""
        if isinstance(address, tuple):
            host, port = address
            loop = asyncio.get_running_loop()
            return cls.on(await loop.run_in_executor(None, _lookup, host, port, socket.AI_PASSIVE))
        return cls.at(address)

    @classmethod
    def on(cls, found: List[_Found]) -> Listening:
        """Listens at every address that was found."""
        made: List[socket.socket] = []
        try:
            for family, kind, protocol, _, where in found:
                made.append(socket.socket(family, kind, protocol))
                made[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    made[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                made[-1].bind(where)
                made[-1].listen(1)
                if where[1] == 0:
                    # The system chooses a port for each address: one is enough.
                    break
        except BaseException:
            for each in made:
                each.close()
            raise
        return cls(made)

    @property
    def name(self) -> Any:
        """Where the first of them listens."""
        return self._sockets[0].getsockname()

    def accept(self, limit: Optional[float]) -> socket.socket:
        """Waits for a peer; blocks for at most `limit` seconds.

        :raises asyncio.TimeoutError: when nobody came.
        """
        end = None if limit is None else time.monotonic() + limit
        poll = select.poll()
        for each in self._sockets:
            poll.register(each, select.POLLIN)
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            poll.poll(None if left is None else left * 1000)
            for each in self._sockets:
                try:
                    return each.accept()[0]
                except BlockingIOError:
                    continue
            if left == 0.0:
                raise asyncio.TimeoutError(f"nobody connected within {limit} s")

    async def accept_async(self) -> socket.socket:
        """The same for the running loop, without a limit: cancel it."""
        loop = asyncio.get_running_loop()
        if len(self._sockets) == 1:
            return (await loop.sock_accept(self._sockets[0]))[0]
        come: asyncio.Future[None] = loop.create_future()

        def note() -> None:
            if not come.done():
                come.set_result(None)

        while True:
            for each in self._sockets:
                try:
                    return each.accept()[0]
                except BlockingIOError:
                    continue
            come = loop.create_future()
            for each in self._sockets:
                loop.add_reader(each, note)
            try:
                await come
            finally:
                for each in self._sockets:
                    loop.remove_reader(each)

    def close(self) -> None:
        for each in self._sockets:
            each.close()


def _listen_at(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not path.startswith("\0"):
            _make_way(path)
        made.bind(path)
        if not path.startswith("\0"):
            # Before `listen`, so that nobody can connect while the mode is still what the umask made of it.
            os.chmod(path, 0o600)
        made.listen(1)
        return made
    except OSError as error:
        made.close()
        raise _named(error, path) from None
    except BaseException:
        made.close()
        raise


def _make_way(path: str) -> None:
    """Removes a socket that nobody listens on any more; everything else is left alone."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EADDRINUSE, "there is a file that is no socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            # Its queue is full: somebody listens.
            pass
    raise OSError(errno.EADDRINUSE, "somebody else listens there", path)
