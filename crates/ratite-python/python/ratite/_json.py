"""JSON, as QMP has it."""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, Optional

from ratite import _core
from ratite._errors import ArgumentsError

Object = Dict[str, Any]


def dumps(name: str, arguments: Optional[Mapping[str, Any]]) -> Optional[str]:
    """The arguments of the command `name`; nothing for none."""
    if not arguments:
        return None
    try:
        return json.dumps(arguments, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise ArgumentsError(f"could not send the arguments of `{name}`: {error}") from error
    except TypeError as error:
        raise TypeError(f"could not send the arguments of `{name}`: {error}") from error


def sent(name: str, arguments: Optional[Mapping[str, Any]], keywords: Mapping[str, Any]) -> Optional[str]:
    """The arguments of the command `name`, of which `keywords` are the rest."""
    if not arguments and not keywords:
        return None
    return dumps(name, {**(arguments or {}), **hyphenated(keywords)})


def loads(text: str) -> Object:
    """A message."""
    message: Object = _core.loads(text)
    return message


def hyphenated(arguments: Mapping[str, Any]) -> Object:
    """Keywords as QMP's names: Python has no `-` in them."""
    return {name.replace("_", "-"): value for name, value in arguments.items()}
