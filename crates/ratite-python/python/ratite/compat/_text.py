"""JSON from QMP peers, to any depth that they send."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Optional

from ratite import _core

_TOKEN = re.compile(
    r"[ \t\n\r,:]*(?:(?P<open>[{\[])|(?P<close>[}\]])|(?P<string>\"(?:[^\"\\]|\\.)*\")|(?P<word>[^ \t\n\r,:{}\[\]\"]+))"
)


def loads(text: str) -> Dict[str, Any]:
    """The object in `text`, which was seen to be JSON. QEMU nests deeper than Python's own reader goes."""
    message: Dict[str, Any]
    try:
        message = _core.loads(text)
    except RecursionError:
        message = _deep(text)
    return message


def _deep(text: str) -> Any:
    """The same without recursion."""
    root: List[Any] = []
    holders: List[Any] = [root]
    # For each holder, the name that waits for its value.
    names: List[Optional[str]] = [None]
    position = 0
    while True:
        token = _TOKEN.match(text, position)
        if token is None:
            return root[0]
        position = token.end()
        if token["close"]:
            holders.pop()
            names.pop()
            continue
        value: Any
        if token["open"]:
            value = {} if token["open"] == "{" else []
        else:
            value = json.loads(token["string"] or token["word"])
        holder, name = holders[-1], names[-1]
        if isinstance(holder, list):
            holder.append(value)
        elif name is None:
            names[-1] = value
            continue
        else:
            holder[name], names[-1] = value, None
        if token["open"]:
            holders.append(value)
            names.append(None)
