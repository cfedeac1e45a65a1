"""Machines under qtest: their registers and memory are read and written from outside.

Interrupts that QEMU tells of are kept apart from its answers.
"""

from __future__ import annotations

import os
import socket
from typing import Any, List, Mapping, Optional, Sequence, Set, Tuple, Union, cast

from ratite import _core, _errors
from ratite.compat._waits import at_most

from .machine import COMMAND_LIMIT, QEMUMachine, QEMUMachineError, SocketAddrT, VMLaunchFailure

__all__ = ["QEMUQtestMachine", "QEMUQtestProtocol"]


class QEMUQtestProtocol:
    """A qtest connection, over a socket that is connected, or to an address.

    A server listens there from here on, and takes a peer by `accept`; otherwise it is connected to by `connect`. The arguments of QEMU
    7.2, ``(address, server)``, are taken too.
    """

    def __init__(
        self,
        address: Optional[SocketAddrT] = None,
        sock: Union[socket.socket, bool, None] = None,
        server: bool = False,
    ) -> None:
        if isinstance(sock, bool):
            server, sock = sock, None
        if (address is None) == (sock is None):
            raise ValueError("a qtest connection takes either an address or a socket")
        if sock is not None and server:
            raise ValueError("a socket that is connected cannot be a server")
        self._address = address
        self._qtest: Optional[_core.Qtest] = None
        self._limit = COMMAND_LIMIT
        self._sock = sock if sock is not None else _socket_for(cast(SocketAddrT, address))
        if server:
            try:
                self._sock.bind(_plain(address))
                self._sock.listen(1)
            except BaseException:
                self._sock.close()
                raise

    def connect(self) -> None:
        """Connects to the address; a socket that is connected is used as it is."""
        if self._address is not None:
            self._sock.connect(_plain(self._address))
        self._begin(self._sock)

    def accept(self) -> None:
        """Waits for a peer."""
        peer, _ = self._sock.accept()
        with peer:
            self._begin(peer)

    def _begin(self, sock: socket.socket) -> None:
        # Bounded here, where the limit can be changed.
        self._qtest = _core.Qtest.over(sock.fileno(), float("inf"))

    def cmd(self, qtest_cmd: str) -> str:
        """Sends a command and returns its answer, one line with its end.

        :raises ValueError: for none, or several at once; QEMU would abort, or answer twice.
        """
        if not qtest_cmd.strip() or set(qtest_cmd) & set("\n\r\0"):
            raise ValueError(f"{qtest_cmd!r} is not one qtest command")
        qtest = self._connected
        try:
            return qtest.raw(qtest_cmd, self._limit).wait() + "\n"
        except _errors.TimedOut as error:
            raise socket.timeout(str(error)) from error
        except _errors.Disconnected as error:
            raise BrokenPipeError(str(error)) from error

    @property
    def irqs(self) -> Mapping[int, bool]:
        """The levels of the interrupt lines that were intercepted and have changed."""
        return self._connected.irqs()

    def wait_irq(self, number: int, level: bool, timeout: float = 60.0) -> None:
        """Waits until an interrupt line is at `level`."""
        try:
            self._connected.wait_irq(number, level, timeout).wait()
        except _errors.TimedOut as error:
            raise socket.timeout(str(error)) from error

    @property
    def _connected(self) -> _core.Qtest:
        if self._qtest is None:
            raise BrokenPipeError("qtest is not connected")
        return self._qtest

    def close(self) -> None:
        """Closes everything. May be called again."""
        self._qtest = None
        self._sock.close()

    def settimeout(self, timeout: Optional[float]) -> None:
        """Bounds connecting, and each command from now on; None is no limit."""
        self._sock.settimeout(timeout)
        self._limit = at_most(timeout)


class QEMUQtestMachine(QEMUMachine):
    """A machine under qtest.

    Takes the arguments of QEMU 7.2, which has `sock_dir` behind `base_temp_dir`, and of QEMU 10; and by name everything that
    `QEMUMachine` takes. `accel` is for a QEMU that lacks the accelerator `qtest`: with ``tcg`` the machine runs, and can be looked into.
    """

    def __init__(
        self,
        binary: str,
        args: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        name: Optional[str] = None,
        base_temp_dir: str = "/var/tmp",
        *positional: Any,
        qmp_timer: Optional[float] = None,
        accel: str = "qtest",
        **more: Any,
    ) -> None:
        names = ("sock_dir", "qmp_timer") if _is_old(positional) else ("qmp_timer",)
        if len(positional) > len(names):
            raise TypeError(f"{len(positional) - len(names)} positional arguments too many")
        named = {"qmp_timer": qmp_timer, **more, **dict(zip(names, positional))}
        name = name or f"qemu-{os.getpid()}"
        super().__init__(binary, args, wrapper, name, base_temp_dir, **named)
        self._accel = accel
        self._qtest: Optional[QEMUQtestProtocol] = None
        self._qtest_sock_pair: Optional[Tuple[socket.socket, socket.socket]] = None

    @property
    def _base_args(self) -> List[str]:
        number = self._qtest_sock_pair[0].fileno() if self._qtest_sock_pair else -1
        args = super()._base_args
        args += ["-chardev", f"socket,id=qtest,fd={number}", "-qtest", "chardev:qtest", "-accel", self._accel]
        return args

    @property
    def _handed_over(self) -> Set[int]:
        ours = {self._qtest_sock_pair[0].fileno()} if self._qtest_sock_pair else set()
        return super()._handed_over | ours

    def launch(self) -> None:
        """Starts QEMU and returns once its monitor answers, and qtest can be spoken."""
        try:
            super().launch()
        except VMLaunchFailure as failure:
            if "invalid accelerator qtest" not in (failure.output or ""):
                raise
            why = QEMUMachineError(f"{self._binary} has no accelerator `qtest`: install it, or take another, such as accel='tcg'")
            why.__cause__ = failure.__cause__
            raise VMLaunchFailure(failure.exitcode, failure.command, failure.output) from why

    def _pre_launch(self) -> None:
        self._qtest_sock_pair = socket.socketpair()
        super()._pre_launch()

    def _post_launch(self) -> None:
        super()._post_launch()
        assert self._qtest_sock_pair is not None
        theirs, ours = self._qtest_sock_pair
        theirs.close()
        self._qtest = QEMUQtestProtocol(sock=ours)
        self._qtest.connect()

    def _post_shutdown(self) -> None:
        pair, self._qtest_sock_pair = self._qtest_sock_pair, None
        for end in pair or ():
            end.close()
        qtest, self._qtest = self._qtest, None
        if qtest is not None:
            qtest.close()
        super()._post_shutdown()

    def qtest(self, cmd: str) -> str:
        """Sends a qtest command and returns its answer, one line with its end."""
        if self._qtest is None:
            raise RuntimeError("qtest socket not available")
        return self._qtest.cmd(cmd)


def _is_old(positional: Sequence[Any]) -> bool:
    return len(positional) == 2 or bool(positional) and isinstance(positional[0], (str, os.PathLike))


def _socket_for(address: SocketAddrT) -> socket.socket:
    return socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX, socket.SOCK_STREAM)


def _plain(address: Any) -> Any:
    return address if isinstance(address, tuple) else os.fspath(address)
