"""A QMP session for blocking callers, as `qemu.machine` has it.

Any number of threads may use one at once, and it does not matter whether an event loop runs in any of them. Every command bears an
id of its own, so that a reply that comes too late is nobody else's. All that arrives is read in the background.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import threading
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from ratite import _core, _errors
from ratite.compat import _errors as raised
from ratite.compat._text import loads
from ratite.compat._waits import Deadline, Wait, at_most, seconds

Message = Dict[str, Any]
Address = Union[str, "os.PathLike[str]", Tuple[str, int], socket.socket]
Wanted = Sequence[Tuple[Optional[str], Optional[Mapping[str, Any]]]]

ANY: Wanted = [(None, None)]


class Monitor:
    """A monitor, which is connected to by `connect`, or, as a server, connects by itself and is taken by `accept`.

    A server listens from here on: at a path that is free or a dead socket, or at a port, where 0 is any.
    """

    def __init__(self, address: Address, server: bool = False, nickname: Optional[str] = None) -> None:
        self._address = address
        self._server: Optional[_core.Server] = None
        self._client: Optional[_core.Client] = None
        self._passing: List[int] = []
        self._lock = threading.Lock()
        self._limit: Optional[float] = None
        name = "qemu.qmp.qmp_client"
        self._log = logging.getLogger(f"{name}.{nickname}" if nickname else name)
        if server:
            try:
                self._server = _core.Server.bind(_spelled(address)).wait()
            except _errors.Error as error:
                raise raised.no_session(error) from error

    @property
    def address(self) -> Address:
        """Where a server is to be connected to: an absolute path, or a host and the port that was found."""
        if self._server is None:
            return self._address
        text = self._server.address
        if not isinstance(self._address, tuple):
            return text[len("unix:") :]
        return self._address[0], int(text.rpartition(":")[2])

    def connect(self, negotiate: bool = True, timeout: Optional[float] = None) -> Optional[Message]:
        """Begins a session with a server, and returns its greeting."""
        if isinstance(self._address, socket.socket):
            pending = _core.Client.over(self._address.fileno(), negotiate, at_most(timeout), math.inf)
        else:
            pending = _core.Client.connect(_spelled(self._address), negotiate, at_most(timeout), math.inf)
        return self._begin(pending)

    def accept(self, timeout: Optional[float] = 15.0) -> Optional[Message]:
        """Waits for a peer, begins a session with it, and listens no more."""
        if self._server is None:
            raise raised.not_running(ended=False)
        return self._begin(self._server.accept(True, at_most(timeout), math.inf))

    def begin(self, machine: _core.Machine, timeout: Optional[float]) -> Optional[Message]:
        """Begins the session with a machine that was started to be at the other end; its end ends the wait."""
        if self._server is not None:
            return self._begin(machine.accept(self._server, True, at_most(timeout), math.inf))
        assert isinstance(self._address, socket.socket)
        return self._begin(machine.connect(self._address.fileno(), True, at_most(timeout), math.inf))

    def _begin(self, pending: _core.Pending[_core.Client]) -> Optional[Message]:
        try:
            self._client = pending.wait()
        except (_errors.Error, OSError) as error:
            raise raised.no_session(error) from error
        finally:
            self._stop_listening()
        self._client.set_command_limit(at_most(self._limit))
        greeting = self._client.greeting
        return None if greeting is None else loads(greeting)

    def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    @property
    def is_alive(self) -> bool:
        """Whether there is a session that goes on."""
        return self._client is not None and self._client.ended is None

    def settimeout(self, timeout: Optional[float]) -> None:
        """Bounds each command from now on; None is no limit."""
        self._limit = timeout
        if self._client is not None:
            self._client.set_command_limit(at_most(timeout))

    def cmd_raw(self, name: str, args: Optional[Mapping[str, Any]] = None) -> Message:
        """Executes a command and returns the whole reply, be it a value or a refusal."""
        return self._execute({"execute": name, **({"arguments": args} if args else {})})

    def cmd(self, cmd: str, /, **kwds: Any) -> Any:
        """Executes a command and returns its value."""
        return self.cmd_with(cmd, kwds)

    command = cmd

    def cmd_with(self, name: str, arguments: Mapping[str, Any], timeout: Optional[float] = None) -> Any:
        """The same with the arguments in one object, and a limit of its own, in seconds."""
        sent = {"execute": name, "arguments": arguments}
        reply = self._execute(sent, timeout)
        if "error" in reply:
            raise raised.refused(sent, reply)
        return reply["return"]

    def quit(self, timeout: float) -> bool:
        """Asks the peer to quit, and says whether it answered; a refusal is an answer.

        :raises asyncio.TimeoutError: if it neither answered nor closed in time.
        """
        if not self.is_alive:
            return False
        try:
            reply = self._execute({"execute": "quit"}, timeout)
        except raised.qmp_error() as error:
            self._log.debug("no answer to `quit`: %s", error)
            return False
        if "error" in reply:
            self._log.debug("`quit` was refused: %s", reply["error"])
        return True

    def cmd_obj(self, qmp_cmd: Mapping[str, Any]) -> Message:
        """Sends a command as the object that it is, and returns the whole reply, with the id if one was given."""
        reply = self._execute(dict(qmp_cmd))
        if "id" in qmp_cmd:
            reply["id"] = qmp_cmd["id"]
        return reply

    def _execute(self, sent: Message, timeout: Optional[float] = None) -> Message:
        oob = "exec-oob" in sent
        name = sent.get("exec-oob" if oob else "execute")
        if not isinstance(name, str):
            raise ValueError("a QMP command has a member 'execute' or 'exec-oob' with its name")
        arguments = None if "arguments" not in sent else _json(name, sent["arguments"])
        client = self._client
        if client is None or client.ended is not None:
            raise raised.not_running(ended=client is not None)
        self._show("-->", sent)
        with self._lock:
            fds, self._passing = self._passing, []
        try:
            pending = client.send(name, arguments, oob, fds, timeout)
        finally:
            for fd in fds:
                os.close(fd)
        try:
            text = pending.wait()
        except _errors.TimedOut as error:
            raise raised.timed_out(error) from error
        except _errors.ArgumentsError:
            raise
        except _errors.ProtocolError as error:
            if client.ended is None:
                raise raised.bad_reply(sent, str(error)) from error
            raise raised.interrupted(str(error)) from error
        except (_errors.Disconnected, _errors.MachineExited) as error:
            raise raised.interrupted(str(error)) from error
        reply: Message = loads(text)
        # It is ratite's, and no caller knows of it.
        reply.pop("id", None)
        self._show("<--", reply)
        return reply

    def _show(self, arrow: str, message: Message) -> None:
        if self._log.isEnabledFor(logging.DEBUG):
            self._log.debug("%s %s", arrow, json.dumps(message, indent=2, default=repr))

    def send_fd_scm(self, fd: int) -> None:
        """Sends a copy of `fd` with the next command, which is to be ``getfd``."""
        if isinstance(self._address, tuple):
            raise raised.qmp_error()("a descriptor cannot be sent over TCP")
        copy = os.dup(fd)
        if not self.is_alive:
            os.close(copy)
            raise BrokenPipeError("the monitor's connection has ended")
        with self._lock:
            # As on the wire: of several in a row, QEMU keeps the last.
            stale, self._passing = self._passing, [copy]
        for number in stale:
            os.close(number)

    def take(self, wanted: Wanted, limit: Optional[float]) -> Optional[Message]:
        """Takes the oldest event that is wanted, waiting for it `limit` seconds in all; None is no wait. Others stay.

        :raises asyncio.TimeoutError: at the end of the limit.
        :raises ExecInterruptedError: when the connection has ended without it.
        """
        if self._client is None:
            raise raised.not_running(ended=False)
        events = self._client.events
        filters = [(name, None if match is None else json.dumps(match)) for name, match in wanted]
        deadline = Deadline(limit or 0.0)
        while True:
            try:
                event = events.try_next(filters)
                if event is not None:
                    return self._event(event)
                if limit is None:
                    return None
                events.ready(filters, deadline.left).wait()
            except _errors.Lagged as error:
                self._log.warning("%s", error)
            except _errors.TimedOut as error:
                raise raised.timed_out(error) from error
            except (_errors.Disconnected, _errors.ProtocolError) as error:
                if limit is None:
                    return None
                raise raised.interrupted(str(error)) from error

    def take_all(self) -> List[Message]:
        """Takes all events that are there, oldest first. Works after the end, too."""
        return [] if self._client is None else [self._event(event) for event in self._client.events.take_all()]

    def _event(self, text: str) -> Message:
        event: Message = loads(text)
        self._show("<--", event)
        return event

    def pull_event(self, wait: Wait = False) -> Optional[Message]:
        """Takes the oldest event."""
        return self.take(ANY, seconds(wait))

    def get_events(self, wait: Wait = False) -> List[Message]:
        """Takes all events, and waits for one if there is none."""
        events = self.take_all()
        limit = seconds(wait)
        if events or limit is None:
            return events
        first = self.take(ANY, limit)
        return ([] if first is None else [first]) + self.take_all()

    def clear_events(self) -> None:
        """Drops all events that are there."""
        self.take_all()

    def close(self) -> None:
        """Ends the session, or the listening. May be called again; events that have arrived can still be read."""
        self._stop_listening()
        with self._lock:
            stale, self._passing = self._passing, []
        for fd in stale:
            os.close(fd)
        if self._client is not None:
            self._client.close().wait()

    def ended(self, limit: float) -> None:
        """Waits a while for the peer to close, so that everything that it said has arrived."""
        if self._client is None:
            return
        deadline = Deadline(limit)
        while self._client.ended is None:
            try:
                # Nothing can be equal to it: this waits for the end alone.
                self._client.events.ready([], deadline.left).wait()
            except _errors.Lagged:
                continue
            except _errors.Error:
                return

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _spelled(address: Address) -> str:
    if isinstance(address, tuple):
        host, port = address[:2]
        if not isinstance(port, int):
            raise TypeError(f"a port is a number, not {port!r}")
        return f"[{host}]:{port}" if ":" in host else f"tcp:{host}:{port}"
    if isinstance(address, socket.socket):
        return f"fd:{address.fileno()}"
    return f"unix:{os.fsdecode(address)}"


def _json(name: str, arguments: Any) -> str:
    """The JSON text of `arguments`, or the reason why there is none; QEMU would only drop the connection."""
    try:
        text = json.dumps(arguments, allow_nan=False, separators=(",", ":"))
        if "\\ud" in text:
            json.dumps(arguments, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"could not send the arguments of `{name}`: {error}") from error
    return text
