"""The process of a machine, as `subprocess.Popen` has it."""

from __future__ import annotations

import math
import os
import shlex
import signal
import subprocess
from typing import List, Optional, Sequence

from ratite import _core, _errors


class Process:
    """A process that was started, and what is left of it. Whoever lets go of the last reference ends it by force."""

    stdin = None
    stdout = None
    stderr = None

    def __init__(self, machine: _core.Machine, args: Sequence[str]) -> None:
        self._machine: Optional[_core.Machine] = machine
        self._returncode: Optional[int] = None
        self._log = b""
        self.pid = machine.pid
        self.args: List[str] = list(args)

    @property
    def machine(self) -> Optional[_core.Machine]:
        """The machine, until it has ended and everything is known of it."""
        return self._machine

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        machine = self._machine
        return machine is not None and machine.is_running

    @property
    def returncode(self) -> Optional[int]:
        """The exit status, or the negative number of a signal; None while it runs."""
        machine = self._machine
        if machine is None or machine.exit is None:
            return self._returncode
        # As `subprocess` has it for a status that somebody else has taken.
        return machine.exit.returncode or 0

    def poll(self) -> Optional[int]:
        """The same."""
        return self.returncode

    def wait(self, timeout: Optional[float] = None) -> int:
        """Waits until it has ended; ends nothing.

        :raises subprocess.TimeoutExpired: after `timeout` seconds.
        """
        machine = self._machine
        if machine is not None:
            try:
                machine.exited(math.inf if timeout is None else max(0.0, timeout)).wait()
            except _errors.TimedOut as error:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from error
        return self.returncode or 0

    def send_signal(self, sig: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.is_running:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it by force, with everything that it has started."""
        machine = self._machine
        if machine is not None:
            try:
                machine.kill().wait()
            except _errors.ShutdownError as error:
                raise subprocess.TimeoutExpired(self.args, KILL_LIMIT) from error

    def log(self) -> bytes:
        """What it has written to stdout and stderr so far."""
        machine = self._machine
        return self._log if machine is None else machine.log()

    def finish(self) -> None:
        """Keeps what is to be known of a process that has ended, and gives back everything else."""
        machine = self._machine
        if machine is None:
            return
        try:
            # Its end alone does not remove the folder; this does, and ends what may have been left of its group.
            machine.wait(0.0).wait()
            self._log = machine.log()
        finally:
            self._returncode, self._machine = self.returncode, None

    def __repr__(self) -> str:
        return f"<Process {self.pid}: {shlex.join(self.args)}>"


KILL_LIMIT = 60.0
