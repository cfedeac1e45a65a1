"""Which accelerators a QEMU has, and which of them are of use.

`list_accel`, `kvm_available` and `tcg_available` answer as `qemu.utils` does: by what the binary lists, and whether ``/dev/kvm``
opens. That it opens does not say that guests run: `measure` runs guest code in 64-bit mode, and says how fast it was.
"""

from __future__ import annotations

import os
import platform
import subprocess
from typing import List, NamedTuple, Optional

from ratite import _core
from ratite._words import StrPath, text

__all__ = ["Measurement", "Speed", "kvm_available", "list_accel", "measure", "measure_all", "tcg_available"]

LIMIT = 5.0
"""Seconds that a binary may take to say what it has, and a measurement to run."""

_ALSO_RUNS = {"x86_64": "i386", "aarch64": "armhf", "ppc64le": "ppc64"}
"""What a host's KVM runs besides the host's own architecture."""


def list_accel(qemu_bin: str) -> List[str]:
    """The accelerators that a binary was built with; none for no binary.

    :raises FileNotFoundError: if there is no such binary.
    :raises subprocess.CalledProcessError: if it does not answer as a QEMU.
    :raises subprocess.TimeoutExpired: if it does not answer within 5 s.
    """
    if not qemu_bin:
        return []
    command = [qemu_bin, "-accel", "help"]
    answer = subprocess.run(
        command, check=True, timeout=LIMIT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, universal_newlines=True
    )
    return [line.strip() for line in answer.stdout.splitlines()[1:]]


def tcg_available(qemu_bin: str) -> bool:
    """Whether a binary was built with TCG."""
    return "tcg" in list_accel(qemu_bin)


def kvm_available(target_arch: Optional[str] = None, qemu_bin: Optional[str] = None) -> bool:
    """Whether ``/dev/kvm`` can be opened, for this architecture and by this binary, if they are named."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    host = platform.machine()
    if target_arch and target_arch not in (host, _ALSO_RUNS.get(host)):
        return False
    return not qemu_bin or "kvm" in list_accel(qemu_bin)


class Speed(NamedTuple):
    """How fast guest code ran, in 64-bit mode. What was not measured in time is None."""

    launch: float
    """Seconds from the start of QEMU to its monitor being ready."""
    boot: float
    """Seconds from there to guest code in 64-bit mode; there is no BIOS in between."""
    loops_per_second: Optional[float]
    """Loops of five instructions: plain computing."""
    cpuids_per_second: Optional[float]
    """CPUID instructions, which a hypervisor answers itself."""
    port_writes_per_second: Optional[float]
    """Writes to a port, which QEMU itself takes."""
    page_moves_per_second: Optional[float]
    """Changes of a page table."""


class Measurement(NamedTuple):
    """What became of one accelerator when it was measured."""

    accelerator: str
    listed: bool
    """Whether the binary lists it."""
    verdict: str
    """``usable``, ``unusable``, or ``not-measured``."""
    why: str
    """Why, as the end of a sentence that begins with the accelerator."""
    speed: Optional[Speed]

    @property
    def is_usable(self) -> bool:
        """Whether it ran guest code, fast enough."""
        return self.verdict == "usable"


def measure(accelerator: str, binary: StrPath = "qemu-system-x86_64", *, limit: float = LIMIT) -> Measurement:
    """Runs guest code on an accelerator, in a QEMU of its own that is gone afterwards, and tells how fast it was."""
    return _measured(binary, accelerator, limit)[0]


def measure_all(binary: StrPath = "qemu-system-x86_64", *, limit: float = LIMIT) -> List[Measurement]:
    """The same for all that the binary lists, TCG first, with which the others are compared; `limit` is for each."""
    return _measured(binary, None, limit)


def _measured(binary: StrPath, accelerator: Optional[str], limit: float) -> List[Measurement]:
    measurements = _core.measure(text("binary", binary), accelerator, limit).wait()
    return [
        Measurement(name, listed, verdict, why, None if speed is None else Speed(*speed))
        for name, listed, verdict, why, speed in measurements
    ]
