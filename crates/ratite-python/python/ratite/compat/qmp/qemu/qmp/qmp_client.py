"""The client for asyncio: ratite's own behind the interface of QEMU's.

ratite gives each command an id of its own on the wire, so a reply finds its command however many are under way and whatever
was given up; what the caller sees has the ids of this interface.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import socket
from typing import Dict, List, Mapping, NamedTuple, Optional, Set, Union, cast

import ratite
from ratite import _core
from ratite.compat._text import loads

from .error import ProtocolError, QMPError
from .events import Events
from .message import DeserializationError, Message, UnexpectedTypeError
from .models import ErrorResponse, Greeting
from .protocol import AsyncProtocol, Runstate


class _HandshakeError(ProtocolError):
    """A session that did not begin; `exc` is why."""

    def __init__(self, error_message: str, exc: Exception) -> None:
        super().__init__(error_message, exc)
        self.exc: Exception = exc

    def __str__(self) -> str:
        return f"{self.error_message}: {self.exc}"


class GreetingError(_HandshakeError):
    """The peer's first message is no greeting."""


class NegotiationError(_HandshakeError):
    """The peer refused the capabilities; `exc` is an `ExecuteError` with its words."""


class ExecuteError(QMPError):
    """QEMU refused a command."""

    def __init__(self, error_response: ErrorResponse, sent: Message, received: Message) -> None:
        super().__init__(error_response, sent, received)
        self.sent: Message = sent
        """The command."""
        self.received: Message = received
        """The whole reply."""
        self.error: ErrorResponse = error_response
        """The reply, checked."""

    @property
    def error_class(self) -> str:
        """QEMU's error class, such as ``GenericError``."""
        return self.error.error.class_

    def __str__(self) -> str:
        return self.error.error.desc


class ExecInterruptedError(QMPError):
    """The session ended before a reply came; `disconnect()` says why."""


class _MessageError(ProtocolError):
    """A message that makes no sense; `msg` is it."""

    def __init__(self, error_message: str, msg: Message, *args: object) -> None:
        super().__init__(error_message, msg, *args)
        self.msg: Message = msg

    def __str__(self) -> str:
        return f"{self.error_message}\n  it was: {self.msg}\n"


class ServerParseError(_MessageError):
    """QEMU could not read a command, and does not say which; it may be this one."""


class BadReplyError(_MessageError):
    """A reply to `sent` that neither grants nor refuses it."""

    def __init__(self, error_message: str, msg: Message, sent: Message) -> None:
        super().__init__(error_message, msg, sent)
        self.sent: Message = sent


class QMPClient(AsyncProtocol[Message], Events):
    """A QMP session with QEMU, its storage daemon, or (without greeting and negotiation) the guest agent.

        qmp = QMPClient("vm")
        await qmp.connect("/run/vm.sock")
        print(await qmp.execute("query-status"))
        await qmp.disconnect()

    No command has a limit of its own: `asyncio.wait_for` bounds it, and cancelling leaves the session usable.

    :param name: tells its log lines apart: they go to the logger ``qemu.qmp.qmp_client.<name>``.
    :param readbuflen: accepted and not used: a message may have 64 MiB.
    """

    logger = logging.getLogger(__name__)

    def __init__(self, name: Optional[str] = None, readbuflen: int = 0) -> None:
        super().__init__(name)
        Events.__init__(self)
        self.await_greeting: bool = True
        """Whether the peer greets."""
        self.negotiate: bool = True
        """Whether capabilities are negotiated, which takes a greeting."""
        self._greeting: Optional[Greeting] = None
        self._ids = Ids()
        self._taken: Set[str] = set()
        self._under_way: Set[asyncio.Future[None]] = set()
        self._descriptors = Descriptors()
        self._socket: Optional[socket.socket] = None
        self._session: Optional[_core.Client] = None
        self._watch_task: Optional[asyncio.Task[None]] = None

    @property
    def greeting(self) -> Optional[Greeting]:
        """What the peer said first in this session, or the last one."""
        return self._greeting

    async def execute(
        self, cmd: str, arguments: Optional[Mapping[str, object]] = None, oob: bool = False
    ) -> object:
        """Executes a command and returns its value.

        :raises ExecuteError: if QEMU refuses it.
        :raises ExecInterruptedError: if the session ends first.
        :raises StateError: unless it is RUNNING.
        :raises ValueError, TypeError: for arguments that are no JSON; nothing was sent.
        """
        return await self.execute_msg(self.make_execute_msg(cmd, arguments, oob=oob))

    async def execute_msg(self, msg: Message) -> object:
        """The same for a whole message, which is left as it is.

        :raises ValueError: if it has neither ``execute`` nor ``exec-oob``.
        """
        self._require(Runstate.RUNNING)
        if not ("execute" in msg or "exec-oob" in msg):
            raise ValueError("Requires 'execute' or 'exec-oob' message")
        sent = Message(msg)
        sent["id"] = self._ids.next()
        return value(await self._exchange(sent), sent)

    async def _raw(
        self, msg: Union[Message, Mapping[str, object], bytes], assign_id: bool = True
    ) -> Message:
        """Sends a message and returns the whole reply, be it a refusal.

        An `id` of the caller's own (`assign_id` False) is a string that no command under way has, and that does not begin with
        ``__qmp#``.
        """
        self._require(Runstate.RUNNING)
        sent = Message(msg)
        if assign_id:
            sent["id"] = self._ids.next()
        own = check_id(sent) if not assign_id else None
        if own is not None:
            if own in self._taken:
                raise ValueError(f"ID '{own}' is in-use and cannot be used.")
            self._taken.add(own)
        try:
            return await self._exchange(sent)
        except ServerParseError as error:
            if "id" in sent:
                raise
            return error.msg
        finally:
            if own is not None:
                self._taken.discard(own)

    @classmethod
    def make_execute_msg(
        cls, cmd: str, arguments: Optional[Mapping[str, object]] = None, oob: bool = False
    ) -> Message:
        """A message for `execute_msg()`."""
        msg = Message({"exec-oob" if oob else "execute": cmd})
        if arguments is not None:
            msg["arguments"] = arguments
        return msg

    def send_fd_scm(self, fd: int) -> None:
        """Lets a copy of `fd` travel with the next command, which should be ``getfd`` or ``add-fd``.

        :raises QMPError: if the session is not over a Unix socket.
        """
        self._require(Runstate.RUNNING)
        self._descriptors.add(fd)

    async def _exchange(self, msg: Message) -> Message:
        session = self._session
        assert session is not None
        sent = self._cb_outbound(msg)
        command = Command.of(sent)
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.add(over)
        try:
            with self._descriptors as fds:
                reply = session.send(command.name, command.arguments, command.oob, fds, math.inf)
            text = await reply
        except ratite.Error as error:
            # Before anybody goes on: what came before the end, and that it has ended.
            self._deliver(session)
            if has_ended(error) and session is self._session:
                self._fail(session_fault(error))
            raise execution_fault(error) from error
        finally:
            self._under_way.discard(over)
            if not over.done():
                over.set_result(None)
        # Events that came before the reply are with their listeners before whoever asked goes on.
        self._deliver(session)
        return self._cb_inbound(reply_message(text, sent))

    async def _open(self, connected: socket.socket) -> None:
        self._socket = connected

    async def _establish_session(self) -> None:
        connected, self._socket = self._socket, None
        assert connected is not None
        self._greeting = None
        self._taken = set()
        try:
            carries_descriptors = connected.family == socket.AF_UNIX
            greeting = None
            if self.await_greeting and not self.negotiate:
                greeting = await _lone_greeting(connected)
            session = await _core.Client.over(connected.fileno(), self.negotiate, math.inf, math.inf)
        except ratite.Error as error:
            fault = handshake_fault(error)
            self.logger.error("%s", fault)
            raise fault from error
        finally:
            # ratite has a copy; the peer sees the end of the session by the last of them.
            connected.close()
        self._session = session
        self._descriptors = Descriptors(carries_descriptors)
        text = session.greeting or greeting
        if text is not None:
            self._greeting = Greeting(self._cb_inbound(Message(text.encode())))
        self._watch_task = asyncio.get_running_loop().create_task(self._watch(session))
        self._set_state(Runstate.RUNNING)
        await asyncio.sleep(0)

    async def _watch(self, session: _core.Client) -> None:
        """Brings events to their listeners, until the session ends."""
        try:
            while True:
                await session.events.ready([(None, None)], math.inf)
                self._deliver(session)
        except ratite.Error as error:
            # A reply that came before the end, such as that to `quit`, is with its caller before the runstate changes.
            if self._under_way:
                await asyncio.wait(set(self._under_way))
            await asyncio.sleep(0)
            self._fail(session_fault(error))

    def _deliver(self, session: _core.Client) -> None:
        for text in session.events.take_all():
            try:
                self._event_dispatch(self._cb_inbound(message(text)))
            except Exception as error:
                # A filter's fault: whoever wrote it hears of it by `disconnect()`.
                self._fail(error)

    async def _tear_down(self) -> None:
        watch, self._watch_task = self._watch_task, None
        if watch is not None:
            watch.cancel()
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            self._deliver(session)
        self._descriptors.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        await super()._tear_down()


async def _lone_greeting(connected: socket.socket) -> str:
    """The greeting of a peer with which nothing is negotiated; not a byte more is read."""
    connected.setblocking(False)
    loop, line = asyncio.get_running_loop(), bytearray()
    while not line.endswith(b"\n"):
        byte = await loop.sock_recv(connected, 1)
        if not byte:
            break
        line += byte
    if not line:
        raise EOFError
    try:
        Greeting(Message(bytes(line)))
    except (ProtocolError, KeyError, TypeError) as error:
        raise GreetingError("Did not understand Greeting", error) from error
    return line.decode()


class Ids:
    """The ids that commands get here."""

    def __init__(self) -> None:
        self._next = 0

    def next(self) -> str:
        number, self._next = self._next, self._next + 1
        return f"__qmp#{number:05d}"


class Descriptors:
    """Copies of descriptors that are to travel with the next command. A block takes them, and closes them behind it."""

    def __init__(self, possible: bool = True) -> None:
        self._possible = possible
        self._waiting: List[int] = []
        self._taken: List[List[int]] = []

    def add(self, fd: int) -> None:
        if not self._possible:
            raise QMPError("Sending file descriptors requires a UNIX socket.")
        self._waiting.append(os.dup(fd))

    def __enter__(self) -> List[int]:
        taken, self._waiting = self._waiting, []
        self._taken.append(taken)
        return taken

    def __exit__(self, *_: object) -> None:
        for fd in self._taken.pop():
            os.close(fd)

    def close(self) -> None:
        with self:
            pass

    def __del__(self) -> None:
        self.close()


class Command(NamedTuple):
    """A message as ratite takes it."""

    name: str
    arguments: Optional[str]
    oob: bool

    @classmethod
    def of(cls, msg: Mapping[str, object]) -> Command:
        """
        :raises ValueError: for what no command has.
        """
        others = set(msg) - {"execute", "exec-oob", "arguments", "id"}
        if others:
            raise ValueError(f"a command has no member {sorted(others)[0]!r}")
        if ("execute" in msg) == ("exec-oob" in msg):
            raise ValueError("Requires 'execute' or 'exec-oob' message")
        oob = "exec-oob" in msg
        name = msg["exec-oob" if oob else "execute"]
        if not isinstance(name, str):
            raise TypeError(f"a command's name is a string, not {name!r}")
        arguments = msg.get("arguments")
        if not arguments:
            return cls(name, None, oob)
        return cls(name, json.dumps(arguments, separators=(",", ":"), allow_nan=False), oob)


def check_id(msg: Mapping[str, object]) -> Optional[str]:
    """An id of the caller's own, if there is one.

    :raises TypeError, ValueError: for one that cannot be used.
    """
    if "id" not in msg:
        return None
    own = msg["id"]
    if not isinstance(own, str):
        raise TypeError(f"ID ('{own}') must be a string.")
    if own.startswith("__qmp#"):
        raise ValueError(f"ID ('{own}') must not start with '__qmp#'.")
    return own


def message(text: str) -> Message:
    """A message of the peer's."""
    return Message(loads(text), eager=False)


def reply_message(text: str, sent: Mapping[str, object]) -> Message:
    """A reply, with the id that the command was sent with, or none."""
    members: Dict[str, object] = loads(text)
    if "id" in sent:
        members["id"] = sent["id"]
    else:
        members.pop("id", None)
    return Message(members, eager=False)


def value(reply: Message, sent: Message) -> object:
    """
    :raises ExecuteError: if `reply` is a refusal.
    :raises BadReplyError: if it makes no sense.
    """
    if "error" in reply:
        try:
            refusal = ErrorResponse(reply)
        except (KeyError, TypeError) as error:
            raise BadReplyError("QMP error reply is malformed", reply, sent) from error
        raise ExecuteError(refusal, sent, reply)
    if "return" not in reply:
        raise BadReplyError("QMP reply is missing a 'error' or 'return' member", reply, sent)
    return reply["return"]


def has_ended(error: Exception) -> bool:
    """Whether this is how a session ended."""
    if isinstance(error, ratite.ProtocolError):
        return error.kind not in ("other", "unattributed")
    return isinstance(error, ratite.Disconnected)


def execution_fault(error: ratite.Error) -> Exception:
    """Why a command has no reply, in the words of this interface."""
    if has_ended(error):
        return ExecInterruptedError("Disconnected")
    if isinstance(error, ratite.ProtocolError) and error.kind == "unattributed":
        refusal = Message({"error": {"class": error.error_class, "desc": error.desc}})
        return ServerParseError("QEMU could not read a command, and does not say which", refusal)
    if isinstance(error, ratite.TimedOut):
        return asyncio.TimeoutError(str(error))
    if isinstance(error, (ValueError, RuntimeError)):
        return error
    return QMPError(str(error))


def session_fault(error: Exception) -> Optional[Exception]:
    """What broke a session, as the original says it."""
    if isinstance(error, ratite.ProtocolError):
        raw = _unescaped(error.excerpt)
        fault: Exception
        if error.kind == "too-long":
            fault = ValueError(str(error))
        elif error.kind == "not-an-object":
            fault = _no_object(str(error), raw)
        elif error.kind in ("not-utf8", "not-json", "truncated"):
            fault = DeserializationError(str(error), raw)
        else:
            fault = ProtocolError(str(error))
        fault.__cause__ = error
        return fault
    if isinstance(error, ratite.Disconnected):
        return EOFError() if error.errno is None else OSError(error.errno, str(error))
    return error


def _no_object(text: str, raw: bytes) -> ProtocolError:
    try:
        return UnexpectedTypeError(text, json.loads(raw.splitlines()[0]))
    except (ValueError, IndexError):
        return DeserializationError(text, raw)


def _unescaped(excerpt: str) -> bytes:
    """The bytes that an excerpt stands for, as far as it goes."""
    shown = excerpt.partition("… and ")[0]
    return shown.encode("ascii", "replace").decode("unicode_escape").encode("latin-1")


def handshake_fault(error: ratite.Error) -> Exception:
    """Why a session did not begin, as the original says it."""
    if isinstance(error, ratite.NegotiationError):
        received = Message({"error": {"class": error.error_class, "desc": error.desc}})
        refusal = ExecuteError(ErrorResponse(received), QMPClient.make_execute_msg("qmp_capabilities"), received)
        return NegotiationError("Negotiation failed", refusal)
    if isinstance(error, ratite.TimedOut):
        return asyncio.TimeoutError(str(error))
    if isinstance(error, ratite.GreetingError):
        return GreetingError("Did not understand Greeting", ProtocolError(str(error)))
    fault = session_fault(error) or error
    if isinstance(fault, ProtocolError) and getattr(error, "kind", "") in ("truncated", "not-utf8"):
        return GreetingError("Did not understand Greeting", fault)
    return fault


def greeting_dict(session: _core.Client) -> Optional[Dict[str, object]]:
    """What the peer said first."""
    return None if session.greeting is None else cast(Dict[str, object], loads(session.greeting))
