"""How long to wait, as callers of QEMU's package say it."""

from __future__ import annotations

import math
import time
from typing import Optional, Union

Wait = Union[bool, int, float, str, None]


def seconds(wait: Wait) -> Optional[float]:
    """The limit that `wait` stands for: True is for ever; None, False and 0 are no wait at all, which is None here."""
    if wait is True:
        return math.inf
    if not wait:
        return None
    limit = float(wait)
    return limit if limit > 0 else 0.0


def at_most(timeout: Optional[float]) -> float:
    """The limit that `timeout` stands for where None is no limit."""
    if timeout is None:
        return math.inf
    return timeout if timeout > 0 else 0.0


class Deadline:
    """The end of a wait that is done in several parts."""

    def __init__(self, limit: float) -> None:
        self._end = time.monotonic() + limit

    @property
    def left(self) -> float:
        """How many seconds are left."""
        return max(0.0, self._end - time.monotonic())
