"""A guest's agent: what both faces have in common, and the blocking face."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, List, Mapping, NamedTuple, Optional, Tuple, Type, TypeVar

from ratite import _core
from ratite._core import Pending
from ratite._face import NEVER
from ratite._json import Object, dumps, hyphenated
from ratite._words import StrPath, seconds, text


class GuestOutput(NamedTuple):
    """How a program in the guest ended, and what it wrote: the first 16 MiB of each stream."""

    code: Optional[int]
    """What it exited with, unless a signal ended it."""
    signal: Optional[int]
    """The signal that ended it."""
    stdout: bytes
    stderr: bytes
    stdout_truncated: bool
    """Whether it wrote more."""
    stderr_truncated: bool

    @property
    def success(self) -> bool:
        """Whether it exited with 0."""
        return self.code == 0

    @property
    def text(self) -> str:
        """``stdout`` as text."""
        return self.stdout.decode(errors="replace")


SelfFace = TypeVar("SelfFace", bound="AgentFace")


class AgentFace:
    """A client of the agent in a guest (``qemu-guest-agent``).

    `address` is that of its channel on the host: ``./agent.sock``, ``localhost:4444``. It is connected to at the first command. One
    command is under way at a time, the others wait; one that timed out or was cancelled harms none of the following. `timeout`, in
    seconds, is what each command may take, and how long an agent that has not started yet is waited for.
    """

    def __init__(self, address: StrPath, *, timeout: float = 30.0) -> None:
        self._agent = _core.Agent.at(text("address", address))
        self.timeout = seconds("timeout", timeout)

    @classmethod
    def _over(cls: Type[SelfFace], agent: _core.Agent, timeout: float) -> SelfFace:
        """One that is connected already."""
        made = cls.__new__(cls)
        made._agent, made.timeout = agent, timeout
        return made

    def close(self) -> None:
        """Ends the connection."""
        self._agent.close()

    def _limit(self, timeout: Optional[float]) -> float:
        return self.timeout if timeout is None else seconds("timeout", timeout)

    def _execute(self, command: str, arguments: Optional[Mapping[str, Any]], timeout: Optional[float]) -> Pending[str]:
        return self._agent.execute(command, dumps(command, arguments), self._limit(timeout))

    def _exec(
        self,
        words: Tuple[str, ...],
        env: Optional[Mapping[str, str]],
        input: Optional[bytes],
        capture: bool,
        timeout: float,
    ) -> Pending[_core._GuestOutput]:
        path, *args = words
        limit = seconds("timeout", timeout)
        return self._agent.exec(path, args, list((env or {}).items()), input, capture, limit, self.timeout)


SelfAgent = TypeVar("SelfAgent", bound="Agent")


class Agent(AgentFace):
    __doc__ = AgentFace.__doc__

    def __enter__(self: SelfAgent) -> SelfAgent:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Ends the connection."""
        self.close()

    def execute(
        self,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        /,
        *,
        timeout: Optional[float] = None,
        **keywords: Any,
    ) -> Any:
        """Executes a command of the agent's, such as ``guest-get-osinfo``, and returns its value.

        :raises NoAgent: when nobody has answered in time.
        :raises CommandError: when the agent refused, does not have the command, or has it disabled.
        """
        return json.loads(self._execute(command, {**(arguments or {}), **hyphenated(keywords)}, timeout).wait())

    def ping(self, timeout: Optional[float] = None) -> None:
        """Waits until the agent has answered."""
        self.execute("guest-ping", timeout=timeout)

    def info(self) -> Object:
        """The agent's ``version`` and ``supported_commands``."""
        info: Object = self.execute("guest-info")
        return info

    def exec(
        self,
        *words: str,
        env: Optional[Mapping[str, str]] = None,
        input: Optional[bytes] = None,
        capture: bool = True,
        timeout: float = NEVER,
    ) -> GuestOutput:
        """Runs a program in the guest, by its path or name and its arguments, and waits for its end.

        With `env` it has these variables alone.

        :raises StillRuns: when `timeout` is over; the program runs on.
        """
        return GuestOutput(*self._exec(words, env, input, capture, timeout).wait())

    def read_file(self, path: StrPath) -> bytes:
        """The whole of a file of the guest."""
        return self._agent.read_file(text("path", path), self.timeout).wait()

    def write_file(self, path: StrPath, data: bytes) -> None:
        """Makes `data` the content of a file of the guest."""
        self._agent.write_file(text("path", path), data, self.timeout).wait()

    def fs_status(self) -> str:
        """``thawed`` or ``frozen``."""
        return str(self.execute("guest-fsfreeze-status"))

    def fs_freeze(self, timeout: Optional[float] = None) -> int:
        """Freezes the guest's file systems, and returns how many; until `fs_thaw` whoever writes in the guest waits."""
        return int(self.execute("guest-fsfreeze-freeze", timeout=timeout))

    def fs_thaw(self, timeout: Optional[float] = None) -> int:
        """Thaws the guest's file systems, and returns how many."""
        return int(self.execute("guest-fsfreeze-thaw", timeout=timeout))

    def fs_trim(self, minimum: int = 0, timeout: Optional[float] = None) -> List[Object]:
        """Gives free blocks back to the host: for each file system its ``path``, and ``trimmed`` bytes or an ``error``."""
        paths: List[Object] = self.execute("guest-fstrim", minimum=minimum, timeout=timeout)["paths"]
        return paths

    def shutdown(self, mode: str = "powerdown") -> None:
        """Asks the guest to go down: ``powerdown``, ``halt`` or ``reboot``. `Machine.wait` tells when it has."""
        self.execute("guest-shutdown", mode=mode)

    def suspend(self, mode: str) -> None:
        """Asks the guest to sleep: ``disk``, ``ram`` or ``hybrid``."""
        self.execute(f"guest-suspend-{mode}")

    def interfaces(self) -> List[Object]:
        """The guest's network interfaces."""
        interfaces: List[Object] = self.execute("guest-network-get-interfaces")
        return interfaces
