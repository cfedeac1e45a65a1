"""What `qemu.machine` raises of its own."""

from __future__ import annotations

from typing import Optional


class QEMUMachineError(Exception):
    """Anything that a machine raises of its own."""


class QEMUMachineAddDeviceError(QEMUMachineError):
    """A device that cannot be added."""


class VMLaunchFailure(QEMUMachineError):
    """A machine that did not start; its cause says why. Nothing is left of it."""

    def __init__(self, exitcode: Optional[int], command: str, output: Optional[str]) -> None:
        super().__init__(exitcode, command, output)
        self.exitcode = exitcode
        self.command = command
        self.output = output

    def __str__(self) -> str:
        """The cause, and what is known of the process: of a long output, the end."""
        cause = self.__cause__
        kind = "" if cause is None else type(cause).__name__
        text = "" if cause is None else str(cause)
        output = self.output
        if output is not None and len(output) > SHOWN:
            output = f"[{len(output) - SHOWN} characters before] {output[-SHOWN:]}"
        lines = [f"{kind}: {text}" if text else kind]
        if self.exitcode is not None:
            lines.append(f"\tExit code: {self.exitcode}")
        lines += [f"\tCommand: {self.command}", f"\tOutput: {output}"]
        return "\n".join(lines) + "\n"


SHOWN = 16 << 10


class AbnormalShutdown(QEMUMachineError):
    """A machine that did not end as it should; its cause says why. It is down."""

# They are known by where callers find them.
for _error in (QEMUMachineError, QEMUMachineAddDeviceError, VMLaunchFailure, AbnormalShutdown):
    _error.__module__ = "qemu.machine.machine"
