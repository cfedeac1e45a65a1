"""Runs QEMU machines: QEMU's `qemu.machine`, done by ratite."""

from __future__ import annotations

from .machine import QEMUMachine
from .qtest import QEMUQtestMachine, QEMUQtestProtocol

__all__ = ["QEMUMachine", "QEMUQtestMachine", "QEMUQtestProtocol"]
