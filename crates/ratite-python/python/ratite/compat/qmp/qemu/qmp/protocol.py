"""The life of a connection, whatever is spoken over it.

    IDLE ─► CONNECTING ─► RUNNING ─► DISCONNECTING ─► IDLE
                └─────────────────────────┘ a connection that failed

A session that breaks goes to DISCONNECTING on its own; `disconnect()` brings it to IDLE and says why.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import asynccontextmanager
from enum import Enum
from ssl import SSLContext
from typing import AsyncIterator, Awaitable, Callable, Generic, List, Optional, Tuple, TypeVar, Union

from ratite.compat._dial import Listening, dial_async, refuse_tls

from .error import QMPError

T = TypeVar("T")

InternetAddrT = Tuple[str, int]
UnixAddrT = str
SocketAddrT = Union[UnixAddrT, InternetAddrT]

CLOSING = 1.0
"""How many seconds a stream may take to bring away what is yet unsent when it is closed."""


class Runstate(Enum):
    """Where a connection is."""

    IDLE = 0
    CONNECTING = 1
    RUNNING = 2
    DISCONNECTING = 3


class ConnectError(QMPError):
    """A connection, or the session over it, did not come about; `exc` is why."""

    def __init__(self, error_message: str, exc: Exception) -> None:
        super().__init__(error_message, exc)
        self.error_message: str = error_message
        self.exc: Exception = exc

    def __str__(self) -> str:
        return f"{self.error_message}: {str(self.exc) or _summary(self.exc)}"


class StateError(QMPError):
    """Something that can only be done in the runstate `required`, asked for in `state`."""

    def __init__(self, error_message: str, state: Runstate, required: Runstate) -> None:
        super().__init__(error_message, state, required)
        self.error_message: str = error_message
        self.state: Runstate = state
        self.required: Runstate = required

    def __str__(self) -> str:
        return self.error_message


def require(owner: str, state: Runstate, required: Runstate) -> None:
    """
    :raises StateError: if `owner` is in another state.
    """
    if state is not required:
        raise StateError(f"{owner} {_WORDS[state]}", state, required)


_WORDS = {
    Runstate.IDLE: "is disconnected and idle.",
    Runstate.CONNECTING: "is currently connecting.",
    Runstate.RUNNING: "is already connected and running.",
    Runstate.DISCONNECTING: "is disconnecting. Call disconnect() to return to IDLE state.",
}


def _summary(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    text = str(error)
    return f"{name}: {text}" if text else name


class AsyncProtocol(Generic[T]):
    """A connection that messages of type `T` are exchanged over.

    A subclass says how one message is read and written (`_do_recv`, `_do_send`) and what becomes of those that arrive
    (`_on_message`); `_cb_inbound` and `_cb_outbound` see each. `QMPClient` leaves the wire to ratite.

    :param name: tells its log lines apart: they go to the logger of that name below the class's own.
    """

    logger = logging.getLogger(__name__)

    _limit = 64 * 1024

    def __init__(self, name: Optional[str] = None) -> None:
        self.name = name
        self._runstate = Runstate.IDLE
        self._watchers: List[asyncio.Future[Runstate]] = []
        self._listening: Optional[Listening] = None
        # Something, between `start_server()` and `accept()`.
        self._accepted: Optional[object] = None
        self._reader: Optional[asyncio.StreamReader] = None
        self._writer: Optional[asyncio.StreamWriter] = None
        self._outgoing: asyncio.Queue[T]
        self._tasks: List[asyncio.Task[None]] = []
        self._disconnecting: Optional[asyncio.Task[None]] = None
        # What broke the session.
        self._fault: Optional[BaseException] = None

    @property
    def name(self) -> Optional[str]:
        """The connection's nickname, if it has one."""
        return self._name

    @name.setter
    def name(self, name: Optional[str]) -> None:
        self._name = name
        logger = type(self).logger
        self.logger = logger if name is None else logger.getChild(name)

    def __repr__(self) -> str:
        name = "" if self.name is None else f"name={self.name!r} "
        return f"<{type(self).__name__} {name}runstate={self.runstate.name}>"

    @property
    def runstate(self) -> Runstate:
        """Where the connection is."""
        return self._runstate

    async def runstate_changed(self) -> Runstate:
        """Waits for the next change, and returns what it is then."""
        change: asyncio.Future[Runstate] = asyncio.get_running_loop().create_future()
        self._watchers.append(change)
        try:
            return await change
        finally:
            if change in self._watchers:
                self._watchers.remove(change)

    async def connect(
        self, address: Union[SocketAddrT, socket.socket], ssl: Optional[SSLContext] = None
    ) -> None:
        """Connects to a path, a host and port, or over a socket that is connected, which it takes over.

        :raises StateError: unless it is IDLE.
        :raises ConnectError: with the cause in `exc`. It is IDLE again.
        """
        self._require(Runstate.IDLE)
        async with self._guard("Failed to establish connection"):
            await self._do_connect(address, ssl)
        async with self._guard("Failed to establish session"):
            await self._establish_session()

    async def start_server(self, address: SocketAddrT, ssl: Optional[SSLContext] = None) -> None:
        """Listens at a path, or a host and port.

        A path has to be free, or a socket that nobody listens on any more. Its file stays behind.

        :raises StateError: unless it is IDLE.
        :raises ConnectError: with the cause in `exc`. It is IDLE again.
        """
        self._require(Runstate.IDLE)
        async with self._guard("Failed to establish connection"):
            await self._do_start_server(address, ssl)

    async def accept(self) -> None:
        """Waits for a peer.

        :raises StateError: unless it is CONNECTING.
        :raises QMPError: before `start_server()`.
        :raises ConnectError: with the cause in `exc`. It is IDLE again.
        """
        self._require(Runstate.CONNECTING)
        if self._accepted is None:
            raise QMPError("Cannot call accept() before start_server().")
        async with self._guard("Failed to establish connection"):
            await self._do_accept()
        async with self._guard("Failed to establish session"):
            await self._establish_session()

    async def start_server_and_accept(self, address: SocketAddrT, ssl: Optional[SSLContext] = None) -> None:
        """Listens, and waits for a peer."""
        await self.start_server(address, ssl)
        await self.accept()

    async def disconnect(self) -> None:
        """Ends the session, in any state, and raises what had broken it if something had; `EOFError` is a peer that hung up."""
        self.logger.debug("disconnect() called.")
        self._schedule_disconnect()
        await self._quiesce()

    def _require(self, required: Runstate) -> None:
        require(type(self).__name__, self._runstate, required)

    def _set_state(self, state: Runstate) -> None:
        if state is self._runstate:
            return
        self.logger.debug("Transitioning from '%s' to '%s'.", self._runstate, state)
        self._runstate = state
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(state)

    @asynccontextmanager
    async def _guard(self, what: str) -> AsyncIterator[None]:
        """Brings it back to IDLE when the block fails."""
        try:
            yield
        except BaseException as error:
            self.logger.error("%s: %s", what, _summary(error))
            self._schedule_disconnect()
            await self._quiesce()
            if isinstance(error, Exception):
                raise ConnectError(what, error) from error
            raise

    def _schedule_disconnect(self) -> None:
        """Begins to disconnect, unless that has begun."""
        if self._disconnecting is None:
            self._set_state(Runstate.DISCONNECTING)
            self._disconnecting = asyncio.get_running_loop().create_task(self._tear_down())

    async def _quiesce(self) -> None:
        """Waits until it is disconnected, and raises what was wrong, once."""
        task = self._disconnecting
        if task is None:
            return
        await asyncio.wait((task,))
        if self._disconnecting is not task:
            return
        self._disconnecting = None
        self._accepted = None
        fault, self._fault = self._fault, None
        self._set_state(Runstate.IDLE)
        task.result()
        if fault is not None:
            raise fault

    def _fail(self, fault: Optional[BaseException]) -> None:
        """The session broke. Of several reasons the first one counts."""
        if self._disconnecting is None:
            if fault is not None:
                level = logging.INFO if isinstance(fault, EOFError) else logging.ERROR
                self.logger.log(level, "Task.Reader: %s", _summary(fault))
            self._fault = fault
            self._schedule_disconnect()

    async def _tear_down(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        if self._tasks and not any(task.done() for task in self._tasks) and self._fault is None:
            try:
                await asyncio.wait_for(self._outgoing.join(), CLOSING)
            except asyncio.TimeoutError:
                self.logger.warning("What was yet to be sent is dropped: the peer does not read.")
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            await self._close_stream(writer)
        self.logger.debug("Disconnected.")

    async def _close_stream(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        try:
            await asyncio.wait_for(writer.wait_closed(), CLOSING)
        except asyncio.TimeoutError:
            writer.transport.abort()
        except OSError as error:
            self.logger.debug("While closing: %s", _summary(error))

    async def _do_start_server(self, address: SocketAddrT, ssl: Optional[SSLContext] = None) -> None:
        self._set_state(Runstate.CONNECTING)
        # Whoever watches the runstate sees this one, even if what follows fails at once.
        await asyncio.sleep(0)
        refuse_tls(ssl)
        self._listening = await Listening.at_async(address)
        self._accepted = self._listening
        self.logger.debug("Server listening on %s", address)

    async def _do_accept(self) -> None:
        assert self._listening is not None
        come = await self._listening.accept_async()
        self._listening.close()
        self._listening = self._accepted = None
        await self._open(come)
        self.logger.debug("Connection accepted.")

    async def _do_connect(
        self, address: Union[SocketAddrT, socket.socket], ssl: Optional[SSLContext] = None
    ) -> None:
        self._set_state(Runstate.CONNECTING)
        try:
            await asyncio.sleep(0)
            refuse_tls(ssl)
        except BaseException:
            if isinstance(address, socket.socket):
                address.close()
            raise
        self.logger.debug("Connecting to %s ...", address)
        await self._open(address if isinstance(address, socket.socket) else await dial_async(address))
        self.logger.debug("Connected.")

    async def _open(self, connected: socket.socket) -> None:
        """Takes over a connected socket."""
        try:
            self._reader, self._writer = await asyncio.open_connection(sock=connected, limit=self._limit)
        except BaseException:
            connected.close()
            raise

    async def _establish_session(self) -> None:
        """Begins to read and write; what has to come before that, a subclass does first."""
        self._outgoing = asyncio.Queue()
        self._start(self._receive)
        self._start(self._transmit)
        self._set_state(Runstate.RUNNING)
        await asyncio.sleep(0)

    def _start(self, turn: Callable[[], Awaitable[None]]) -> None:
        """Does `turn` again and again, until it fails."""

        async def forever() -> None:
            try:
                while True:
                    await turn()
            except Exception as error:
                self._fail(error)

        self._tasks.append(asyncio.get_running_loop().create_task(forever()))

    async def _receive(self) -> None:
        await self._on_message(await self._recv())

    async def _transmit(self) -> None:
        message = await self._outgoing.get()
        try:
            await self._send(message)
        finally:
            self._outgoing.task_done()

    def _cb_outbound(self, msg: T) -> T:
        """Sees each message before it is sent; what it returns is sent."""
        self.logger.debug("--> %s", msg)
        return msg

    def _cb_inbound(self, msg: T) -> T:
        """Sees each message that has arrived; what it returns is handled."""
        self.logger.debug("<-- %s", msg)
        return msg

    async def _readline(self) -> bytes:
        """
        :raises EOFError: at the end of the stream.
        """
        assert self._reader is not None
        line = await self._reader.readline()
        if not line:
            raise EOFError
        return line

    async def _do_recv(self) -> T:
        raise NotImplementedError

    async def _recv(self) -> T:
        return self._cb_inbound(await self._do_recv())

    def _do_send(self, msg: T) -> None:
        raise NotImplementedError

    async def _send(self, msg: T) -> None:
        self._do_send(self._cb_outbound(msg))

    async def _on_message(self, msg: T) -> None:
        """A message has arrived."""
