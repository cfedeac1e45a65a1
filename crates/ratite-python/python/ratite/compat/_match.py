"""What an event has to contain."""

from __future__ import annotations

from typing import Any


def event_match(event: Any, match: Any) -> bool:
    """Whether `event` has all that `match` asks for: objects in part, with None for any value; everything else exactly.

    A number is never equal to a truth value.
    """
    if match is None:
        return True
    if not isinstance(match, dict):
        return _equal(event, match)
    if not match:
        return True
    if not isinstance(event, dict):
        return False
    return all(key in event and event_match(event[key], wanted) for key, wanted in match.items())


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
