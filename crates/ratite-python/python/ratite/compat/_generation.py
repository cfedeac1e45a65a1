"""Which QEMU the scripts are written for that import us: a name means one thing in 7.2 and another in 10."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Optional


@lru_cache(maxsize=None)
def cmd_is_raw() -> bool:
    """Whether `QEMUMonitorProtocol.cmd()` returns the whole reply, as it did before QEMU 8.2.

    Told by what is behind us on the path: an original `qemu.qmp`, or a QEMU tree.
    """
    for portion in map(Path, sys.modules["qemu"].__path__):
        found = _told_by(portion)
        if found is not None:
            return found
    return False


def _told_by(portion: Path) -> Optional[bool]:
    if portion.parent.parent == Path(__file__).parent:
        return None
    try:
        original = (portion / "qmp" / "legacy.py").read_text(encoding="utf-8")
        return "def cmd_raw" not in original
    except OSError:
        pass
    try:
        version = (portion.parent.parent / "VERSION").read_text(encoding="utf-8")
    except OSError:
        return None
    numbers = re.match(r"(\d+)\.(\d+)\.\d+\s*$", version)
    return None if numbers is None else (int(numbers[1]), int(numbers[2])) < (8, 2)
