"""A drop-in for QEMU's own Python packages, for test suites that use those: the folders to put first on ``PYTHONPATH``.

The folders hold packages `qemu.machine` and `qemu.qmp`, with the names, the constructor arguments and the behaviour of both QEMU 7.2's
and QEMU 10's.
"""

from __future__ import annotations

import os

__all__ = ["machine_folder", "qmp_folder"]


def machine_folder() -> str:
    """The folder with `qemu.machine`. It takes the errors of `qemu.qmp` from wherever that is found."""
    return os.path.join(_HERE, "machine")


def qmp_folder() -> str:
    """The folder with `qemu.qmp`."""
    return os.path.join(_HERE, "qmp")


_HERE = os.path.dirname(os.path.abspath(__file__))
