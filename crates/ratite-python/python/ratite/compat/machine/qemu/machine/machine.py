"""One QEMU process and what belongs to it: a monitor, a console, a folder, a log.

A machine is described first, then launched, and may be launched again once it has been shut down. Subclasses step in at `_pre_launch`,
`_base_args`, `_post_launch` and `_post_shutdown`. All limits are in seconds.

How an end is judged: a process that exits with status 0 has ended well, whoever asked for it. So has one that was told to ``quit``,
whatever its status is; `exitcode` tells. What a signal of somebody else's ended, or had to be killed, was an abnormal shutdown; but
`wait`, a machine without a monitor, and a shutdown behind a ``quit`` of the caller's own take every end in time.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shlex
import signal
import socket
import subprocess
import threading
from types import TracebackType
from typing import Any, BinaryIO, List, Optional, Sequence, Set, Tuple, Type, TypeVar, cast

from ratite import _core, _errors
from ratite.compat import _command_line as words
from ratite.compat._described import SocketAddrT, told_by_system, unique_name
from ratite.compat._machine_errors import (
    AbnormalShutdown,
    QEMUMachineAddDeviceError,
    QEMUMachineError,
    VMLaunchFailure,
)
from ratite.compat._monitor import Monitor
from ratite.compat._process import Process
from ratite.compat._speaking import QMPMessage, Speaking
from ratite.compat._steps import each
from ratite.compat._waits import Deadline, at_most

from .console_socket import HISTORY, WRITE_LIMIT, ConsoleSocket, widen

__all__ = [
    "AbnormalShutdown",
    "QEMUMachine",
    "QEMUMachineAddDeviceError",
    "QEMUMachineError",
    "QMPMessage",
    "QMPReturnValue",
    "SocketAddrT",
    "VMLaunchFailure",
]

QMPReturnValue = object
_T = TypeVar("_T", bound="QEMUMachine")

LOG = logging.getLogger(__name__)

COMMAND_LIMIT = 300.0
"""How many seconds a QMP command may take. ``vm._qmp.settimeout`` sets another limit; a machine whose `qmp_timer` is None, as for QEMU
under a debugger, has none."""


class QEMUMachine(Speaking):
    """A QEMU machine.

    :param monitor_address: where the monitor is to connect to, a path or a host and a port (0: any); by default a pair of sockets.
    :param drain_console: reads of the console wait for `READ_LIMIT` seconds at most. It is read in the background in any case.
    :param console_log: a file that gets everything that the console brings.
    :param qmp_timer: how long it may take until the monitor is ready; None is no limit.
    :param sock_dir: QEMU 7.2's; nothing is put there.
    """

    def __init__(
        self,
        binary: str,
        args: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        name: Optional[str] = None,
        base_temp_dir: str = "/var/tmp",
        monitor_address: Optional[SocketAddrT] = None,
        *positional: Any,
        sock_dir: Optional[str] = None,
        drain_console: bool = False,
        console_log: Optional[str] = None,
        log_dir: Optional[str] = None,
        qmp_timer: Optional[float] = 30,
    ) -> None:
        more = words.by_position(positional)
        self._binary = binary
        self._args = words.words("args", args)
        words.words("wrapper", wrapper)
        self._wrapper = wrapper
        self._name = name or unique_name()
        self._base_temp_dir = base_temp_dir
        self._monitor_address = monitor_address
        self._sock_dir = more.get("sock_dir", sock_dir)
        self._console_log_path = more.get("console_log", console_log)
        self._drain_console = bool(self._console_log_path or more.get("drain_console", drain_console))
        self._log_dir = more.get("log_dir", log_dir)
        self._qmp_timer = more.get("qmp_timer", qmp_timer)
        self._added_fds = set()
        self._events = []
        self._qemu_log_path: Optional[str] = None
        self._qemu_log_file: Optional[str] = None
        self._qemu_full_args: Tuple[str, ...] = ()
        self._console: Optional[_core.Console] = None
        self._console_socket: Optional[ConsoleSocket] = None
        self._console_file: Optional[BinaryIO] = None
        self._remove_files: List[str] = []
        self._popen: Optional[Process] = None
        self._iolog: Optional[str] = None
        self._launched = False
        self._user_killed = False
        self._signals_sent: Set[int] = set()
        # Held from the beginning of a launch, or of an end, to its own end.
        self._changing = threading.RLock()

    def __enter__(self: _T) -> _T:
        return self

    def __exit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc_val: Optional[BaseException],
        exc_tb: Optional[TracebackType],
    ) -> None:
        """Shuts it down. What the body raised counts more than an abnormal shutdown."""
        try:
            self.shutdown()
        except Exception as error:
            if exc_val is None:
                raise
            LOG.debug("after an exception: %s", error)

    def launch(self) -> None:
        """Starts QEMU and returns once its monitor answers.

        :raises VMLaunchFailure: with QEMU's exit code and output.
        """
        with self._changing:
            if self._launched:
                raise QEMUMachineError("VM already launched")
            self._forget_last_run()
            try:
                self._launch()
            except BaseException as error:
                self._give_up(error)
                if not isinstance(error, Exception):
                    raise
                command = shlex.join(map(str, self._qemu_full_args))
                raise VMLaunchFailure(self.exitcode(), command, self._iolog) from error

    def _forget_last_run(self) -> None:
        self._popen = None
        self._iolog = None
        self._console = None
        self._events.clear()
        self._qemu_full_args = ()
        self._quit_issued = self._user_killed = False
        self._signals_sent.clear()

    def _launch(self) -> None:
        self._pre_launch()
        given = itertools.chain(self._wrapper, [self._binary], self._base_args, self._args)
        self._qemu_full_args = words.texts(given)
        LOG.debug("VM launch command: '%s'", shlex.join(self._qemu_full_args))
        self._popen = self._start()
        self._launched = True
        self._post_launch()

    def _pre_launch(self) -> None:
        if self._qmp_set:
            if self._monitor_address is None:
                self._sock_pair = socket.socketpair()
                self._qmp_connection = Monitor(self._sock_pair[1], nickname=self._name)
            else:
                self._qmp_connection = Monitor(self._monitor_address, server=True, nickname=self._name)
            self._qmp_connection.settimeout(None if self._qmp_timer is None else COMMAND_LIMIT)
        if self._console_set:
            self._cons_sock_pair = socket.socketpair()
            widen(self._cons_sock_pair[0])
            log = os.path.abspath(self._console_log_path) if self._console_log_path else None
            ours = self._cons_sock_pair[1].fileno()
            self._console = _core.Console.over(ours, HISTORY, log, WRITE_LIMIT)
        self._qemu_log_path = os.path.join(self.log_dir, f"{self._name}.log")
        self._qemu_log_file = self._qemu_log_path

    def _start(self) -> Process:
        wrapper = words.texts(self._wrapper)
        arguments = self._qemu_full_args[len(wrapper) + 1 :]
        numbers = {number: number for number in words.named_descriptors(self._qemu_full_args, self._handed_over)}
        if self._qemu_log_file is None:
            # Closed ahead: a subclass wants QEMU to write to where this program writes.
            redirection = words.to_the_terminal(numbers)
            if redirection is not None:
                shell, ours = redirection
                wrapper = (*shell, *wrapper)
                numbers.update(ours)
        config = _core.Config(os.fsdecode(self._binary))
        config.with_screen()
        config.without_monitor()
        config.wrapper(wrapper)
        config.args(arguments)
        config.name(self._name)
        config.log_folder(self.log_dir)
        for number, fd in numbers.items():
            config.fd(fd, number)
        _ = self.temp_dir
        try:
            return Process(config.launch(self._work_folder).wait(), self._qemu_full_args)
        except _errors.LaunchError as error:
            raise told_by_system(error) from error

    def _post_launch(self) -> None:
        pairs = [pair for pair in (self._sock_pair, self._cons_sock_pair) if pair is not None]
        for theirs, _ in pairs:
            theirs.close()
        machine = self._subp.machine
        if self._qmp_connection is not None and machine is not None:
            self._qmp_connection.begin(machine, self._qmp_timer)
        # Whoever reads and writes has a copy of it.
        for _, ours in pairs:
            ours.close()

    def _give_up(self, error: BaseException) -> None:
        """Undoes as much of a launch as was done. A process whose monitor has closed may be about to say why."""
        process = self._popen
        if process is not None and isinstance(getattr(error, "exc", None), (EOFError, ConnectionError)):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(AFTER_CLOSE)
        self._user_killed = True
        kill = [] if process is None else [process.kill]
        each(LOG, [*kill, self._early_cleanup, self._clean_up])

    # While it runs.

    @property
    def _subp(self) -> Process:
        if self._popen is None:
            raise QEMUMachineError("Subprocess pipe not present")
        return self._popen

    def is_running(self) -> bool:
        """Whether its process runs."""
        return self._popen is not None and self._popen.poll() is None

    def exitcode(self) -> Optional[int]:
        """The exit status of the last process, or the negative number of the signal that ended it."""
        return None if self._popen is None else self._popen.poll()

    def get_pid(self) -> Optional[int]:
        """The process that was started: QEMU, or the wrapper if there is one."""
        return self._subp.pid if self.is_running() else None

    def get_log(self) -> Optional[str]:
        """What QEMU has written to stdout and stderr, in this run or the last."""
        if self._iolog is not None or self._popen is None:
            return self._iolog
        return self._popen.log().decode(errors="replace")

    @property
    def console_socket(self) -> ConsoleSocket:
        """The console as a socket, the same one until the machine has ended."""
        if self._console_socket is None:
            if self._console is None or not self._launched:
                raise QEMUMachineError("Attempt to access console socket with no connection")
            self._console_socket = ConsoleSocket.over(self._console, self._drain_console)
        return self._console_socket

    @property
    def console_file(self) -> BinaryIO:
        """The same as a file."""
        if self._console_file is None:
            self._console_file = cast(BinaryIO, self.console_socket.makefile("rb", buffering=0))
        return self._console_file

    # The end.

    def shutdown(self, hard: bool = False, timeout: Optional[float] = 30) -> None:
        """Ends the machine: asks it to quit (SIGTERM without a monitor), and kills it once `timeout` is over.

        Does nothing to one that was not launched. May be called again, if it was interrupted too.

        :raises AbnormalShutdown: when it had to be killed, or ended by itself otherwise than with status 0.
        """
        process = self._popen
        if hard and self._launched and process is not None:
            # Before anything else, and also while another thread waits for a softer end.
            self._user_killed = True
            process.kill()
        with self._changing:
            if not self._launched:
                return
            try:
                if hard:
                    self._hard_shutdown()
                else:
                    self._do_shutdown(timeout)
            finally:
                # One that still runs, since this was interrupted, can be ended by the next call.
                if not self.is_running():
                    self._clean_up()

    def kill(self) -> None:
        """Ends the machine by force."""
        self.shutdown(hard=True)

    def wait(self, timeout: Optional[float] = 30) -> None:
        """Waits until the machine ends by itself, however it does; kills it once `timeout` is over.

        :raises AbnormalShutdown: when it had to be killed.
        """
        if self._launched:
            self._quit_issued = True
        self.shutdown(timeout=timeout)

    def _hard_shutdown(self) -> None:
        LOG.debug("Performing hard shutdown")
        self._signals_sent.add(signal.SIGKILL)
        self._subp.kill()
        self._early_cleanup()

    def _do_shutdown(self, timeout: Optional[float]) -> None:
        try:
            self._soft_shutdown(timeout)
        except Exception as error:
            self._hard_shutdown()
            raise AbnormalShutdown(f"Could not perform graceful shutdown: {_told(error)}") from error

    def _soft_shutdown(self, timeout: Optional[float]) -> None:
        LOG.debug("Attempting graceful termination")
        self._early_cleanup()
        process, deadline = self._subp, Deadline(at_most(timeout))
        machine = process.machine
        if self._quit_issued or machine is None:
            process.wait(deadline.left)
            return
        is_asked = process.is_running and self._ask_to_quit(machine, deadline)
        if is_asked:
            process.wait(deadline.left)
        elif process.is_running:
            LOG.debug("Sending SIGTERM")
            self._signals_sent.add(signal.SIGTERM)
            try:
                machine.shutdown(deadline.left).wait()
            except _errors.ShutdownError as error:
                if error.kind != "unclean":
                    self._signals_sent.add(signal.SIGKILL)
                    raise
        if self._qmp_connection is None:
            return
        code = process.returncode or 0
        if code < 0 and -code not in self._signals_sent or code > 0 and not is_asked:
            raise QEMUMachineError(f"QEMU {machine.exit}")

    def _ask_to_quit(self, machine: _core.Machine, deadline: Deadline) -> bool:
        """Whether there was somebody to ask."""
        monitor = self._qmp_connection
        if monitor is None:
            return False
        if monitor.quit(deadline.left):
            return True
        # The monitor closes a moment before its process is gone.
        with contextlib.suppress(_errors.TimedOut):
            machine.exited(min(AFTER_CLOSE, deadline.left)).wait()
        return False

    def _early_cleanup(self) -> None:
        """Closes what the caller has of the console; the console itself is read until its end."""
        file, self._console_file = self._console_file, None
        made, self._console_socket = self._console_socket, None
        pair = self._cons_sock_pair or ()
        each(LOG, [open_one.close for open_one in (file, made, *pair) if open_one is not None])

    def _clean_up(self) -> None:
        try:
            self._post_shutdown()
        finally:
            # Whatever a subclass does: this machine can be launched again.
            self._launched = False

    def _post_shutdown(self) -> None:
        steps = [
            self._close_console,
            self._close_qmp_connection,
            self._close_sockets,
            self._close_qemu_log_file,
            self._finish_process,
            self._load_io_log,
            self._remove_temp_dir,
            self._remove_registered_files,
            self._warn_of_signal,
        ]
        each(LOG, steps)
        self._quit_issued = self._user_killed = False
        self._launched = False

    def _close_console(self) -> None:
        console, self._console = self._console, None
        if console is None:
            return
        deadline = Deadline(STREAM_END)
        # What it has said before its end still goes into its log.
        while not console.has_ended and deadline.left:
            try:
                console.take()
                console.ready(deadline.left).wait()
            except (_errors.Lagged, _errors.TimedOut):
                continue
        if console.log_fault is not None:
            LOG.warning("The console's log is incomplete: %s", console.log_fault)

    def _close_qmp_connection(self) -> None:
        monitor, self._qmp_connection = self._qmp_connection, None
        if monitor is None:
            return
        try:
            monitor.ended(STREAM_END)
            self._events.extend(monitor.take_all())
        finally:
            monitor.close()

    def _close_sockets(self) -> None:
        pairs = (self._sock_pair, self._cons_sock_pair)
        self._sock_pair = self._cons_sock_pair = None
        each(LOG, [end.close for pair in pairs if pair is not None for end in pair])

    def _close_qemu_log_file(self) -> None:
        """Before a launch: QEMU writes to where this program writes, and there is no log."""
        self._qemu_log_file = None

    def _finish_process(self) -> None:
        if self._popen is not None:
            self._popen.finish()

    def _load_io_log(self) -> None:
        if self._popen is not None:
            self._iolog = self._popen.log().decode(errors="replace")

    def _remove_temp_dir(self) -> None:
        folder, self._work_folder = self._work_folder, None
        if folder is not None:
            folder.remove()

    def _remove_registered_files(self) -> None:
        while self._remove_files:
            try:
                os.remove(self._remove_files.pop())
            except FileNotFoundError:
                pass

    def _warn_of_signal(self) -> None:
        code = self.exitcode()
        if code is None or code >= 0 or -code in self._signals_sent:
            return
        if not (self._user_killed and code == -signal.SIGKILL):
            LOG.warning('qemu received signal %i; command: "%s"', -code, shlex.join(self._qemu_full_args))


AFTER_CLOSE = 0.5
"""How many seconds a process may live on behind the end of its monitor before it is killed for it."""

STREAM_END = 1.0
"""How many seconds the end of a stream is waited for once its process is gone."""

def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
