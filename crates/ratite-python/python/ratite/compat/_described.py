"""What is said of a machine before it is launched."""

from __future__ import annotations

import itertools
import os
import re
import secrets
import socket
from typing import List, Optional, Sequence, Set, Tuple, TypeVar, Union, cast

from ratite import _core, _errors
from ratite.compat import _command_line as words
from ratite.compat._monitor import Monitor

SocketAddrT = Union[Tuple[str, int], str, "os.PathLike[str]"]
Pair = Tuple[socket.socket, socket.socket]
_T = TypeVar("_T", bound="Described")


class Described:
    """The description of a machine, and the command line that it makes."""

    _binary: str
    _args: List[str]
    _wrapper: Sequence[str]
    _name: str
    _base_temp_dir: str
    _monitor_address: Optional[SocketAddrT]
    _sock_dir: Optional[str]
    _log_dir: Optional[str]
    _machine: Optional[str] = None
    _qmp_set: bool = True
    _console_set: bool = False
    _console_device_type: Optional[str] = None
    _console_index: int = 0
    _added_fds: Set[int]

    _work_folder: Optional[_core.WorkFolder] = None
    # The first of each pair is QEMU's.
    _sock_pair: Optional[Pair] = None
    _cons_sock_pair: Optional[Pair] = None
    _qmp_connection: Optional[Monitor] = None

    @property
    def args(self) -> List[str]:
        """The caller's arguments; changes apply to the next launch."""
        return self._args

    @property
    def binary(self) -> str:
        """What is run."""
        return self._binary

    def add_args(self, *args: str) -> None:
        """Adds arguments."""
        self._args.extend(args)

    def add_monitor_null(self) -> None:
        """Leaves out the human monitor."""
        self._args.extend(["-monitor", "null"])

    def add_fd(self: _T, fd: int, fdset: int, opaque: str, opts: str = "") -> _T:
        """Puts a copy of a descriptor into a set of QEMU's, under the same number; here it stays as it is."""
        os.fstat(fd)
        option = f"fd={fd},set={fdset},opaque={words.doubled(opaque)}"
        self._args.extend(["-add-fd", f"{option},{opts}" if opts else option])
        self._added_fds.add(fd)
        return self

    def set_machine(self, machine_type: str) -> None:
        """Sets the machine type, with its options if there are any."""
        self._machine = machine_type

    def set_qmp_monitor(self, enabled: bool = True) -> None:
        """Sets whether there is a monitor."""
        self._qmp_set = enabled

    def set_console(self, device_type: Optional[str] = None, console_index: int = 0) -> None:
        """Adds a console: a serial port behind `console_index` others, or a device."""
        self._console_set = True
        self._console_device_type = device_type
        self._console_index = console_index

    @property
    def temp_dir(self) -> str:
        """The machine's own folder, made at the first look and removed when the machine has ended."""
        if self._work_folder is None:
            try:
                self._work_folder = _core.WorkFolder(os.fsdecode(self._base_temp_dir))
            except _errors.LaunchError as error:
                raise told_by_system(error) from error
        return self._work_folder.path

    @property
    def _temp_dir(self) -> Optional[str]:
        return None if self._work_folder is None else self._work_folder.path

    @property
    def sock_dir(self) -> str:
        """A folder for sockets: the caller's, or the machine's own."""
        return self._sock_dir or self.temp_dir

    @property
    def log_dir(self) -> str:
        """Where the log is."""
        return self._log_dir or self.temp_dir

    @property
    def _base_args(self) -> List[str]:
        args = ["-display", "none", "-vga", "none"]
        if self._qmp_set:
            args += ["-chardev", f"socket,id=mon,{self._monitor_end()}", "-mon", "chardev=mon,mode=control"]
        if self._machine is not None:
            args += ["-machine", self._machine]
        args += ["-serial", "null"] * self._console_index
        if self._console_set:
            number = self._cons_sock_pair[0].fileno() if self._cons_sock_pair else -1
            args += ["-chardev", f"socket,id=console,fd={number}"]
            if self._console_device_type is None:
                args += ["-serial", "chardev:console"]
            else:
                args += ["-device", f"{self._console_device_type},chardev=console"]
        return args

    def _monitor_end(self) -> str:
        if self._sock_pair is not None:
            return f"fd={self._sock_pair[0].fileno()}"
        address = self._monitor_address if self._qmp_connection is None else self._qmp_connection.address
        if isinstance(address, tuple):
            host, port = address[:2]
            return f"host={words.doubled(host)},port={port}"
        return f"path={words.doubled(os.fsdecode(cast(str, address or '')))}"

    @property
    def _handed_over(self) -> Set[int]:
        pairs = (self._sock_pair, self._cons_sock_pair)
        return self._added_fds | {pair[0].fileno() for pair in pairs if pair is not None}


_COUNT = itertools.count()


def unique_name() -> str:
    return f"qemu-{os.getpid()}-{next(_COUNT)}-{secrets.token_hex(4)}"


def told_by_system(error: _errors.LaunchError) -> Exception:
    """What the system said, as the error that `subprocess` would have raised."""
    said = _SAID.search(error.reason)
    number = error.errno if said is None else int(said[1])
    return error if number is None else OSError(number, _SAID.sub("", error.reason))


_SAID = re.compile(r" \(os error ([0-9]+)\)")
