"""The client that blocks.

It does not need an event loop: any thread may use it, several may use one at once, and so may a coroutine, whose loop stands
still meanwhile. Signal handlers run while it waits.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import threading
import time
from types import TracebackType
from typing import Any, Dict, List, Optional, Set, Type, TypeVar, Union, cast

import ratite
from ratite import _core
from ratite.compat._dial import Listening, dial
from ratite.compat._generation import cmd_is_raw

from .error import QMPError
from .message import Message
from .protocol import ConnectError, Runstate, SocketAddrT, require
from .qmp_client import (
    Command,
    Descriptors,
    ExecInterruptedError,
    Ids,
    QMPClient,
    ServerParseError,
    check_id,
    execution_fault,
    greeting_dict,
    handshake_fault,
    has_ended,
    message,
    reply_message,
    session_fault,
    value,
)

QMPMessage = Dict[str, Any]
"""A whole message."""

QMPReturnValue = object
"""The value of a command."""

QMPObject = Dict[str, object]
"""Any object in a message."""

Self = TypeVar("Self", bound="QEMUMonitorProtocol")

CONNECT_LIMIT = 30.0
"""How many seconds `connect()` may take, with greeting and negotiation."""

COMMAND_LIMIT = 300.0
"""How many seconds a command may take, unless `settimeout()` says otherwise."""


class QMPBadPortError(QMPError):
    """An address whose port is no number from 0 to 65535."""


class QEMUMonitorProtocol:
    """A QMP session that blocks.

    :param address: a path, a host and port, or a socket that is connected, which `connect()` takes over.
    :param server: listen there at once, for `accept()`.
    :param nickname: tells its log lines apart: they go to the logger ``qemu.qmp.qmp_client.<nickname>``.
    :param sock: QEMU 7.2's name for a socket that is connected; there, it may stand second.
    """

    def __init__(
        self,
        address: Union[SocketAddrT, socket.socket, None] = None,
        server: Union[bool, socket.socket, None] = False,
        nickname: Union[str, bool, None] = None,
        *more: Optional[str],
        sock: Optional[socket.socket] = None,
    ) -> None:
        self._monitor_state = Runstate.IDLE
        if isinstance(server, socket.socket) or server is None:
            # QEMU 7.2: address, sock, server, nickname.
            sock, server = server or sock, bool(nickname)
            nickname = more[0] if more else None
        elif isinstance(address, socket.socket):
            if server:
                raise ValueError("server argument should be False when passing a socket")
            sock, address = address, None
        if address is None and sock is None:
            raise ValueError("it takes an address or a socket")
        self._monitor_log = QMPClient.logger
        if nickname:
            self._monitor_log = self._monitor_log.getChild(str(nickname))
        self._monitor_address = address if sock is None else None
        self._monitor_socket = sock
        self._monitor_lock = threading.Lock()
        self._monitor_limit: Optional[float] = COMMAND_LIMIT
        self._monitor_listening: Optional[Listening] = None
        self._monitor_session: Optional[_core.Client] = None
        self._monitor_events: Optional[_core.Listener] = None
        self._monitor_dropped = 0
        self._monitor_fault: Optional[BaseException] = None
        self._monitor_ids = Ids()
        self._monitor_taken: Set[str] = set()
        self._monitor_descriptors = Descriptors()
        if server and sock is None:
            self._listen()

    @classmethod
    def parse_address(cls, address: str) -> Union[SocketAddrT, socket.socket]:
        """What a text stands for.

        ``host:port``, ``tcp:host:port`` and ``[v6]:port`` are a host and port; ``fd:3`` is a copy of the socket that this process
        has under that number; all else is a path, with or without ``unix:``.

        :raises QMPBadPortError: for a port that is none.
        """
        kind, colon, rest = address.partition(":")
        if colon and kind == "unix":
            return rest
        if colon and kind == "fd":
            if not (rest.isascii() and rest.isdigit()):
                raise QMPBadPortError(f"Bad descriptor: '{rest}' in '{address}'.")
            with socket.socket(fileno=int(rest)) as theirs:
                try:
                    return theirs.dup()
                finally:
                    theirs.detach()
        text = rest if colon and kind == "tcp" else address
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif not colon or ":" in host:
            return address
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise QMPBadPortError(f"Bad port: '{port}' in '{address}'.")
        return host, int(port)

    def connect(self, negotiate: bool = True) -> Optional[QMPMessage]:
        """Connects, and returns the greeting; None without negotiation, as the guest agent wants it. It takes at most 30 s.

        :raises ConnectError: with the cause in `exc`.
        """
        self._begin(Runstate.IDLE)
        return self._connected(self._dial, negotiate, CONNECT_LIMIT)

    def accept(self, timeout: Optional[float] = 15.0) -> QMPMessage:
        """Waits for a peer, and returns its greeting.

        :param timeout: how many seconds it may take; None is no limit.
        :raises asyncio.TimeoutError: at the limit.
        :raises ConnectError: with the cause in `exc`.
        """
        if self._monitor_socket is None:
            self._require(Runstate.CONNECTING)
            come = self._accepted
        else:
            self._begin(Runstate.IDLE)
            come = self._dial
        try:
            greeting = self._connected(come, True, timeout)
        except ConnectError as error:
            if isinstance(error.exc, asyncio.TimeoutError):
                raise error.exc from None
            raise
        assert greeting is not None
        return greeting

    def cmd(self, cmd: str, /, *of_72: Any, **kwds: Any) -> Any:
        """Executes a command and returns its value.

        It is QEMU 7.2's method of this name, and returns the whole reply, if it is called like that: with a second argument, be it
        None, or with `args=` that holds all arguments; and without arguments if what imports us is a QEMU of before 8.2.

        :raises ExecuteError: if QEMU refuses it.
        :raises ExecInterruptedError: if the session ends first.
        :raises asyncio.TimeoutError: at the limit; the session stays usable.
        """
        if not of_72 and set(kwds) <= {"args", "cmd_id"} and isinstance(kwds.get("args", ""), (dict, type(None))):
            of_72 = (kwds["args"], kwds.get("cmd_id"))
        if not of_72 and (kwds or not cmd_is_raw()):
            return self.command(cmd, **kwds)
        sent: QMPMessage = {"execute": cmd}
        for member, given in zip(("arguments", "id"), of_72):
            if given:
                sent[member] = given
        return self.cmd_obj(sent)

    def command(self, cmd: str, /, **kwds: object) -> QMPReturnValue:
        """The name that `cmd()` had in QEMU 7.2."""
        self._require(Runstate.RUNNING)
        sent = QMPClient.make_execute_msg(cmd, kwds)
        sent["id"] = self._monitor_ids.next()
        return value(self._exchange(sent), sent)

    def cmd_raw(self, name: str, args: Optional[Dict[str, object]] = None) -> QMPMessage:
        """Executes a command and returns the whole reply, be it a refusal."""
        return self.cmd_obj({"execute": name, "arguments": args} if args else {"execute": name})

    def cmd_obj(self, qmp_cmd: QMPMessage) -> QMPMessage:
        """Sends a message as it is, and returns the whole reply.

        An ``id`` in it is a string that no command under way has, and that does not begin with ``__qmp#``.
        """
        self._require(Runstate.RUNNING)
        sent = Message(qmp_cmd)
        own = check_id(sent)
        if own is not None:
            with self._monitor_lock:
                if own in self._monitor_taken:
                    raise ValueError(f"ID '{own}' is in-use and cannot be used.")
                self._monitor_taken.add(own)
        try:
            return dict(self._exchange(sent))
        except ServerParseError as error:
            if own is not None:
                raise
            return dict(error.msg)
        finally:
            if own is not None:
                with self._monitor_lock:
                    self._monitor_taken.discard(own)

    def pull_event(self, wait: Union[bool, float, None] = False) -> Optional[QMPMessage]:
        """Takes the oldest event.

        :param wait: for how many seconds it is waited for; True is for ever. Without it, None is returned if there is none.
        :raises asyncio.TimeoutError: at the limit.
        :raises ExecInterruptedError: if the session has ended, and all events were taken.
        """
        events = self._monitor_events
        if not wait:
            return self._event_at_hand()
        if events is None:
            self._require(Runstate.RUNNING)
            raise AssertionError("a session has events")
        limit = math.inf if wait is True else wait
        try:
            return self._seen(events.next([(None, None)], limit if limit > 0 else 0.0).wait())
        except ratite.Error as error:
            self._note_end(error)
            raise execution_fault(error) from error

    def _event_at_hand(self) -> Optional[QMPMessage]:
        try:
            return self._seen(None if (events := self._monitor_events) is None else events.try_next([(None, None)]))
        except ratite.Error:
            # The session has ended, and brought nothing else.
            return None

    def get_events(self, wait: Union[bool, float, None] = False) -> List[QMPMessage]:
        """Takes all events. If there is none, it waits for one as `pull_event()` does."""
        events = [] if self._monitor_events is None else self._monitor_events.take_all()
        if events:
            return [cast(QMPMessage, self._seen(event)) for event in events]
        event = self.pull_event(wait)
        return [] if event is None else [event]

    def clear_events(self) -> None:
        """Drops all events that are there."""
        if self._monitor_events is not None:
            self._monitor_events.take_all()

    def settimeout(self, timeout: Optional[float]) -> None:
        """Says how many seconds a command may take, 300 unless told; None is no limit."""
        self._monitor_limit = timeout

    def send_fd_scm(self, fd: int) -> None:
        """Lets a copy of `fd` travel with the next command, which should be ``getfd`` or ``add-fd``.

        :raises QMPError: if the session is not over a Unix socket.
        :raises OSError: for a descriptor that is none, or a peer that is gone.
        """
        self._require(Runstate.RUNNING)
        session = self._monitor_session
        if session is not None and session.ended is not None:
            raise BrokenPipeError(32, f"The session has ended: {session.ended}")
        with self._monitor_lock:
            self._monitor_descriptors.add(fd)

    def close(self) -> None:
        """Ends the session, in any state, and raises what had broken it if a call had met with that; `EOFError` is a peer that
        hung up. Events that had arrived can be taken still."""
        with self._monitor_lock:
            self._monitor_state = Runstate.IDLE
            session, self._monitor_session = self._monitor_session, None
            listening, self._monitor_listening = self._monitor_listening, None
            fault, self._monitor_fault = self._monitor_fault, None
            self._monitor_descriptors.close()
        if listening is not None:
            listening.close()
        if session is not None:
            try:
                session.close().wait()
            except ratite.ForkedError:
                self._monitor_log.debug("The session belongs to the process that this one was forked off.")
        if fault is not None:
            raise fault

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc_val: Optional[BaseException],
        exc_tb: Optional[TracebackType],
    ) -> None:
        try:
            self.close()
        except Exception as error:
            # What the body raised counts more.
            if exc_val is None:
                raise
            self._monitor_log.debug("While closing: %r", error)

    def __del__(self) -> None:
        if getattr(self, "_monitor_state", Runstate.IDLE) is Runstate.IDLE:
            return
        self._monitor_log.warning("QEMUMonitorProtocol object garbage collected without a prior call to close()")
        if self._monitor_listening is not None:
            self._monitor_listening.close()
        self._monitor_descriptors.close()
        # The last reference to the session goes with this object, and closes it.

    def _require(self, required: Runstate) -> None:
        require(QMPClient.__name__, self._monitor_state, required)

    def _begin(self, required: Runstate) -> None:
        with self._monitor_lock:
            self._require(required)
            self._monitor_state = Runstate.CONNECTING

    def _listen(self) -> None:
        self._begin(Runstate.IDLE)
        assert self._monitor_address is not None and not isinstance(self._monitor_address, socket.socket)
        try:
            self._monitor_listening = Listening.at(self._monitor_address)
        except Exception as error:
            self._monitor_state = Runstate.IDLE
            raise ConnectError("Failed to establish connection", error) from error

    def _dial(self, limit: Optional[float]) -> socket.socket:
        if self._monitor_socket is not None:
            return self._monitor_socket
        assert self._monitor_address is not None and not isinstance(self._monitor_address, socket.socket)
        return dial(self._monitor_address, limit)

    def _accepted(self, limit: Optional[float]) -> socket.socket:
        listening = self._monitor_listening
        assert listening is not None
        return listening.accept(limit)

    def _connected(self, reach: Any, negotiate: bool, limit: Optional[float]) -> Optional[QMPMessage]:
        """Begins the session over the socket that `reach` brings, within `limit` in all."""
        end = math.inf if limit is None else time.monotonic() + limit
        what = "Failed to establish connection"
        connected: Optional[socket.socket] = None
        try:
            connected = reach(limit)
            what = "Failed to establish session"
            left = max(0.0, end - time.monotonic())
            carries_descriptors = connected.family == socket.AF_UNIX
            session = _core.Client.over(connected.fileno(), negotiate, left, COMMAND_LIMIT).wait()
        except BaseException as error:
            self._monitor_log.error("%s: %s", what, error or repr(error))
            self._monitor_state = Runstate.IDLE
            if not isinstance(error, Exception):
                raise
            fault = handshake_fault(error) if isinstance(error, ratite.Error) else error
            raise ConnectError(what, fault) from error
        finally:
            # ratite has a copy; the peer sees the end of the session by the last of them.
            if connected is not None:
                connected.close()
            listening, self._monitor_listening = self._monitor_listening, None
            if listening is not None:
                listening.close()
        with self._monitor_lock:
            self._monitor_session, self._monitor_events = session, session.events
            self._monitor_descriptors = Descriptors(carries_descriptors)
            self._monitor_dropped = 0
            self._monitor_state = Runstate.RUNNING
        greeting = greeting_dict(session)
        if greeting is not None:
            self._monitor_log.debug("<-- %s", Message(greeting, eager=False))
        return greeting

    def _exchange(self, sent: Message) -> Message:
        self._monitor_log.debug("--> %s", sent)
        command = Command.of(sent)
        session = self._monitor_session
        if session is None:
            # Another thread has closed it meanwhile.
            raise ExecInterruptedError("Disconnected")
        limit = math.inf if self._monitor_limit is None else max(0.0, self._monitor_limit)
        try:
            with self._monitor_lock, self._monitor_descriptors as fds:
                waiting = session.send(command.name, command.arguments, command.oob, fds, limit)
            reply = reply_message(waiting.wait(), sent)
        except ratite.Error as error:
            self._note_end(error)
            raise execution_fault(error) from error
        self._monitor_log.debug("<-- %s", reply)
        return reply

    def _note_end(self, error: ratite.Error) -> None:
        """The session has ended, and a caller hears of it."""
        with self._monitor_lock:
            if has_ended(error) and self._monitor_state is Runstate.RUNNING:
                self._monitor_state = Runstate.DISCONNECTING
                self._monitor_fault = session_fault(error)

    def _seen(self, text: Optional[str]) -> Optional[QMPMessage]:
        if text is None:
            return None
        events = self._monitor_events
        if events is not None and events.dropped > self._monitor_dropped:
            dropped, self._monitor_dropped = events.dropped - self._monitor_dropped, events.dropped
            self._monitor_log.warning("%d events were dropped because nobody took them.", dropped)
        event = message(text)
        self._monitor_log.debug("<-- %s", event)
        return dict(event)
