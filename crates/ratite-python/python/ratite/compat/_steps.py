"""Doing one thing after the other, whatever becomes of each."""

from __future__ import annotations

import logging
from typing import Callable, Optional, Sequence


def each(log: logging.Logger, steps: Sequence[Callable[[], object]]) -> None:
    """Takes every step. What fails is told in `log`; an interruption goes on when all are done."""
    interruption: Optional[BaseException] = None
    for step in steps:
        try:
            step()
        except Exception as error:
            log.warning("Exception in %s: %s: %s", step.__name__, type(error).__name__, error)
        except BaseException as error:
            interruption = interruption or error
    if interruption is not None:
        raise interruption
