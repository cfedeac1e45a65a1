"""The objects that the QMP specification defines, checked.

Making one raises `KeyError` for a member that is missing, and `TypeError` for one that is of another type.
"""

from __future__ import annotations

import copy
from collections import abc
from typing import Any, Dict, Mapping, Optional, Sequence


class Model:
    """An object of the protocol; `raw` is what arrived."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw

    def _member(self, key: str, kind: type, name: str) -> Any:
        owner = type(self).__name__
        if key not in self._raw:
            raise KeyError(f"'{owner}' object requires '{key}' member")
        value = self._raw[key]
        # A text is a sequence, too, but no array.
        if not isinstance(value, kind) or (isinstance(value, str) and kind is not str):
            raise TypeError(f"'{owner}' member '{key}' must be a {name}")
        return value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._raw!r})"


class Greeting(Model):
    """What a QMP server says first."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        super().__init__(raw)
        self.QMP: QMPGreeting = QMPGreeting(self._member("QMP", abc.Mapping, "JSON object"))

    def _asdict(self) -> Dict[str, object]:
        return dict(copy.deepcopy(self._raw))


class QMPGreeting(Model):
    """The server's version and what it can negotiate."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        super().__init__(raw)
        self.version: Mapping[str, object] = self._member("version", abc.Mapping, "JSON object")
        self.capabilities: Sequence[object] = self._member("capabilities", abc.Sequence, "JSON array")


class ErrorResponse(Model):
    """A reply that refuses a command."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        super().__init__(raw)
        self.error: ErrorInfo = ErrorInfo(self._member("error", abc.Mapping, "JSON object"))
        self.id: Optional[object] = raw.get("id")


class ErrorInfo(Model):
    """Why: QEMU's error class, and its words."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        super().__init__(raw)
        self.class_: str = self._member("class", str, "string")
        self.desc: str = self._member("desc", str, "string")
