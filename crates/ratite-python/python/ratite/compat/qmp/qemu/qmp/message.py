"""One QMP message: a JSON object."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, Mapping, MutableMapping, Optional, Union

from ratite.compat._text import loads

from .error import ProtocolError


class Message(MutableMapping[str, object]):
    """A mapping that is also its JSON text: ``bytes(message)`` is compact, ``str(message)`` is indented.

    :param value: the text, or another mapping, of which it becomes a copy.
    :param eager: False leaves errors in `value` to the first use.
    """

    def __init__(self, value: Union[bytes, Mapping[str, object]] = b"{}", *, eager: bool = True) -> None:
        self._text: Optional[bytes] = None
        self._members: Optional[Dict[str, object]] = None
        if isinstance(value, bytes):
            self._text = value
            if eager:
                self._members = _parsed(value)
        else:
            self._members = dict(value)
            if eager:
                self._text = _written(self._members)

    @property
    def _object(self) -> Dict[str, object]:
        if self._members is None:
            self._members = _parsed(self._text or b"{}")
        return self._members

    def __getitem__(self, key: str) -> object:
        return self._object[key]

    def __setitem__(self, key: str, value: object) -> None:
        self._object[key] = value
        self._text = None

    def __delitem__(self, key: str) -> None:
        del self._object[key]
        self._text = None

    def __iter__(self) -> Iterator[str]:
        return iter(self._object)

    def __len__(self) -> int:
        return len(self._object)

    def __repr__(self) -> str:
        return f"Message({self._text!r})" if self._members is None else f"Message({self._members!r})"

    def __str__(self) -> str:
        try:
            return json.dumps(self._object, indent=2)
        except RecursionError:
            return repr(self._text)

    def __bytes__(self) -> bytes:
        if self._text is None:
            self._text = _written(self._object)
        return self._text


def _written(members: Mapping[str, object]) -> bytes:
    # JSON has no NaN; QEMU would not understand it.
    return json.dumps(members, separators=(",", ":"), allow_nan=False).encode()


def _parsed(text: bytes) -> Dict[str, object]:
    try:
        value: Any = loads(text.decode())
    except ValueError as error:
        raise DeserializationError("Failed to read a QMP message.", text) from error
    if not isinstance(value, dict):
        raise UnexpectedTypeError("A QMP message is not a JSON object.", value)
    return value


class DeserializationError(ProtocolError):
    """What a peer sent is no JSON; `raw` is what it sent, or the beginning of it."""

    def __init__(self, error_message: str, raw: bytes, *args: object) -> None:
        super().__init__(error_message, raw, *args)
        self.raw: bytes = raw

    def __str__(self) -> str:
        return f"{self.error_message}\n  it was: {self.raw!r}"


class UnexpectedTypeError(ProtocolError):
    """What a peer sent is JSON, but no object; `value` is what it is."""

    def __init__(self, error_message: str, value: object, *args: object) -> None:
        super().__init__(error_message, value, *args)
        self.value: object = value

    def __str__(self) -> str:
        return f"{self.error_message}\n  it was: {json.dumps(self.value)}"
