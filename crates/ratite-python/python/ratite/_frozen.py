"""What templates, pools and caches of both faces have in common: what does not wait."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Type, TypeVar, Union

from ratite import _core
from ratite._errors import CacheError, ConfigError, Error
from ratite._face import Face
from ratite._json import dumps
from ratite._words import StrPath, count, seconds, text

Commands = Sequence[Union[str, Tuple[str, Optional[Mapping[str, Any]]]]]

SelfMachine = TypeVar("SelfMachine", bound=Face)


class Spawning:
    """What machines that are made of a template have for themselves, and how Python's half of them is made."""

    def __init__(
        self,
        *,
        base_folder: StrPath,
        log_folder: Optional[StrPath],
        keep_folder: bool,
        commands: Commands,
        paused: bool,
        connect_timeout: float,
        command_timeout: float,
        console_timeout: float,
        kill_timeout: float,
        grace: float,
        transcript: Optional[Callable[[str, str], object]],
        name: Optional[str] = None,
        console_logs: Optional[Mapping[str, StrPath]] = None,
        vsock_cid: Optional[int] = None,
    ) -> None:
        if vsock_cid is not None and not 2 < count("vsock_cid", vsock_cid) < (1 << 32) - 1:
            raise ConfigError(f"vsock_cid takes a number from 3 to {(1 << 32) - 2}, not {vsock_cid}")
        self._keywords: Dict[str, Any] = {
            "name": name,
            "base_folder": base_folder,
            "log_folder": log_folder,
            "keep_folder": keep_folder,
            "connect_timeout": connect_timeout,
            "command_timeout": command_timeout,
            "console_timeout": console_timeout,
            "kill_timeout": kill_timeout,
            "grace": grace,
            "transcript": transcript,
        }
        # Has them checked, and holds them as a launch has them.
        described = Face(**self._keywords)
        spawn = self.spawn = _core.Spawn()
        spawn.base_folder(text("base_folder", base_folder))
        limits = (described.connect_timeout, described.command_timeout, described.console_timeout)
        spawn.timeouts(*limits, described.kill_timeout)
        if name is not None:
            spawn.name(name)
        if log_folder is not None:
            spawn.log_folder(text("log_folder", log_folder))
        if keep_folder:
            spawn.keep_folder()
        for console, path in (console_logs or {}).items():
            spawn.console_log(console, text("console_logs", path))
        if vsock_cid is not None:
            spawn.vsock_cid(vsock_cid)
        if isinstance(commands, str):
            raise TypeError(f"commands takes a sequence of commands, not {commands!r}")
        for command in commands:
            command, arguments = (command, None) if isinstance(command, str) else command
            spawn.command(command, dumps(command, arguments))
        if paused:
            spawn.paused()
        if transcript is not None:
            spawn.transcript(transcript)

    def face(self, of: Type[SelfMachine], machine: _core.Machine) -> SelfMachine:
        """The machine that came of it."""
        return of(machine.command[0], **self._keywords)._taken(machine)


class TemplateFace:
    """A machine that was frozen, of which any number of machines can be made that go on where it stopped.

    One of `Machine.freeze` is temporary: its files are removed when it is closed, when its last reference goes, and with this program
    however that ends. One that was stored stays.
    """

    def __init__(self, template: _core.Template) -> None:
        self._template = template

    def close(self) -> None:
        """Lets it go: the files of a temporary one are removed as soon as no pool needs them. Its machines go on."""
        self._template.close()

    @property
    def folder(self) -> str:
        """The folder that holds it."""
        return self._template.folder

    @property
    def ram(self) -> str:
        """How its RAM comes to the machines: ``mapped`` from a file, which is the quickest way and takes the least memory;
        ``streamed``, or ``placed``, from a file that is read whole."""
        return self._template.ram[0]

    @property
    def why_not_mapped(self) -> Optional[str]:
        """Why the RAM is not mapped, if it is not."""
        return self._template.ram[1]

    @property
    def made(self) -> float:
        """When it was made, in seconds since the epoch."""
        return self._template.made

    @property
    def qemu_version(self) -> str:
        """The version of the QEMU that made it, as that says it."""
        return self._template.qemu_version

    @property
    def consoles(self) -> List[str]:
        """The names of its consoles."""
        return self._template.consoles

    def __repr__(self) -> str:
        try:
            state = repr(self._template.folder)
        except Error as error:
            state = str(error)
        return f"<{type(self).__module__}.{type(self).__name__}: {state}>"


class PoolFace:
    """Machines that are started ahead and stand still, so that whoever takes one waits for its resume alone.

    Each that is taken is followed by another one. What was taken is the taker's; what was not ends with the pool.
    """

    def __init__(self, pool: _core.Pool, size: int) -> None:
        self._pool = pool
        self._size = size

    @property
    def size(self) -> int:
        """How many machines it holds at most."""
        return self._size

    def close(self) -> None:
        """Ends the machines that nobody has taken, without waiting for that."""
        self._pool.close()


class TemplateEntry(NamedTuple):
    """What is known of a template of a cache without opening it."""

    name: str
    path: str
    made: float
    """When it was made, in seconds since the epoch."""
    used: float
    """When it was last opened."""
    size: int
    """How much room it takes on the disk, in bytes."""
    qemu_version: str
    damage: Optional[str]
    """What is wrong with it, if something is."""


class CacheFace:
    """A folder of templates with names, which all programs of a user share.

    By default it is the user's own: ``ratite/templates`` in ``XDG_CACHE_HOME``, or in ``.cache`` of ``HOME``; ``templates`` in
    ``RATITE_CACHE``, where that is set. `patience` is how long a template is waited for that another program is making.
    """

    def __init__(self, folder: Optional[StrPath] = None, *, patience: float = 600.0) -> None:
        path = None if folder is None else os.path.abspath(text("folder", folder))
        self._cache = _core.TemplateCache(path, seconds("patience", patience))

    @property
    def folder(self) -> str:
        """Where it is."""
        return self._cache.folder


def boot_failed(launched: _core.Machine) -> CacheError:
    """What is raised from the error of the caller's own part."""
    error = CacheError("the machine did not come to where it was to be frozen")
    error.kind, error.exit = "boot", launched.exit
    try:
        error.log = launched.log()[-_LAST_WORDS:]
    except OSError:
        # It says less then, and the cause is the same.
        pass
    if launched.console is not None:
        error.tail = launched.console.tail(_LAST_WORDS)
    return error


_LAST_WORDS = 8 << 10
"""How much of the log and of the console an error carries."""
