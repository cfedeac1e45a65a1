"""Templates, pools and caches of the blocking face."""

from __future__ import annotations

import copy
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Callable, List, Mapping, Optional, Type, TypeVar

from ratite import _core
from ratite._frozen import CacheFace, Commands, PoolFace, Spawning, TemplateEntry, TemplateFace, boot_failed
from ratite._words import StrPath, count, text

if TYPE_CHECKING:
    from ratite._machine import Machine

SelfTemplate = TypeVar("SelfTemplate", bound="Template")
SelfPool = TypeVar("SelfPool", bound="Pool")


class Template(TemplateFace):
    __doc__ = TemplateFace.__doc__

    @classmethod
    def open(cls: Type[SelfTemplate], path: StrPath) -> SelfTemplate:
        """The template that was stored there, whole and of the QEMU that made it.

        :raises TemplateError: with the file that is missing or damaged.
        """
        return cls(_core.Template.open(text("path", path)).wait())

    @classmethod
    def cached(cls, key: str, machine: Machine, boot: Callable[[Machine], object]) -> Template:
        """`TemplateCache.cached` of the user's own cache."""
        return TemplateCache().cached(key, machine, boot)

    def spawn(
        self,
        *,
        name: Optional[str] = None,
        base_folder: StrPath = "/var/tmp",
        log_folder: Optional[StrPath] = None,
        keep_folder: bool = False,
        console_logs: Optional[Mapping[str, StrPath]] = None,
        vsock_cid: Optional[int] = None,
        commands: Commands = (),
        paused: bool = False,
        connect_timeout: float = 30.0,
        command_timeout: float = 60.0,
        console_timeout: float = 30.0,
        kill_timeout: float = 60.0,
        grace: float = 30.0,
        transcript: Optional[Callable[[str, str], object]] = None,
    ) -> Machine:
        """A machine that goes on where the template was frozen, independent of it and of all others.

        Its consoles, its monitor and its log are new. `console_logs` are files that get every byte of the consoles of these names.
        `vsock_cid` is the context id of its vsock device, by default one that was drawn for it. `commands` are QMP commands, names or
        pairs of a name and arguments, that are executed before it runs. A `paused` one stands still until somebody sends ``cont``. The
        other keywords are those of `Machine`.

        :raises TemplateError: when the template is not as it was; QEMU was not started.
        :raises LaunchError: when QEMU did not start.
        :raises SpawnError: when it did not take the template's state, or refused a command.
        """
        spawning = Spawning(
            name=name,
            base_folder=base_folder,
            log_folder=log_folder,
            keep_folder=keep_folder,
            console_logs=console_logs,
            vsock_cid=vsock_cid,
            commands=commands,
            paused=paused,
            connect_timeout=connect_timeout,
            command_timeout=command_timeout,
            console_timeout=console_timeout,
            kill_timeout=kill_timeout,
            grace=grace,
            transcript=transcript,
        )
        return spawning.face(_machine(), self._template.spawn(spawning.spawn).wait())

    def pool(
        self,
        size: int,
        *,
        base_folder: StrPath = "/var/tmp",
        log_folder: Optional[StrPath] = None,
        keep_folder: bool = False,
        commands: Commands = (),
        paused: bool = False,
        connect_timeout: float = 30.0,
        command_timeout: float = 60.0,
        console_timeout: float = 30.0,
        kill_timeout: float = 60.0,
        grace: float = 30.0,
        transcript: Optional[Callable[[str, str], object]] = None,
        prepare: Optional[Callable[[Machine], object]] = None,
    ) -> Pool:
        """A pool of machines that are restored ahead, of which `size` stand ready. The keywords are those of `spawn`, but for what no
        two machines can have in common. What is wrong with the template is told by `Pool.take`.

        With `prepare`, each machine runs ahead, until ``prepare(machine)`` returns, and stands still again until it is taken: what all
        takers would do first is done by then. It runs in a thread of its own, as many at once as there are processors. What it was
        given is not what the taker gets: nothing noted on it stays, and its machine ends with the pool or with the taker. Events that
        come meanwhile, and what is read of a console, are the preparation's. When the pool is closed, the machine ends under it."""
        spawning = Spawning(
            base_folder=base_folder,
            log_folder=log_folder,
            keep_folder=keep_folder,
            commands=commands,
            paused=paused,
            connect_timeout=connect_timeout,
            command_timeout=command_timeout,
            console_timeout=console_timeout,
            kill_timeout=kill_timeout,
            grace=grace,
            transcript=transcript,
        )

        def face(machine: _core.Machine) -> Machine:
            return spawning.face(_machine(), machine)

        pool = Pool(self._template.pool(count("size", size), spawning.spawn, _beginning(prepare, face)), size)
        pool._face = face
        return pool

    def store(self: SelfTemplate, path: StrPath) -> SelfTemplate:
        """Moves it to `path`, where it stays when this program is gone, and returns it.

        `path` must not be there, and be on the file system of `folder`, which is that of the machine's ``base_folder``.

        :raises StoreError: when a pool or a spawn under way holds it, or something is there; it is as it was then.
        """
        self._template.store(text("path", path)).wait()
        return self

    def __enter__(self: SelfTemplate) -> SelfTemplate:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Closes it."""
        self.close()


class Pool(PoolFace):
    __doc__ = PoolFace.__doc__

    _face: Callable[[_core.Machine], Machine]

    @classmethod
    def of(
        cls: Type[SelfPool], machine: Machine, size: int, *, prepare: Optional[Callable[[Machine], object]] = None
    ) -> SelfPool:
        """A pool of plain machines as `machine` describes them, started ahead with ``-S``; each runs once it is taken, unless the
        description has ``-S`` itself. What is wrong with the description is told by `take`. With `prepare`, which boots it, say, each
        runs ahead; see `Template.pool`."""
        described = copy.copy(machine)

        def face(machine: _core.Machine) -> Machine:
            return copy.copy(described)._taken(machine)

        pool = cls(_core.Pool.of(described._config(), count("size", size), _beginning(prepare, face)), size)
        pool._face = face
        return pool

    def take(self) -> Machine:
        """A machine that runs: one that stood ready, or the next one that does. Whoever asks first is served first.

        :raises Error: why the machine that was to come could not be made, as `Template.spawn` and `Machine.launch` tell it; the next one
            is tried after that.
        """
        return self._face(self._pool.take().wait())

    def filled(self) -> None:
        """Waits until the pool is full, or none of its places can be filled."""
        self._pool.filled().wait()

    def __enter__(self: SelfPool) -> SelfPool:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Closes it."""
        self.close()


def _beginning(
    prepare: Optional[Callable[[Machine], object]], face: Callable[[_core.Machine], Machine]
) -> Optional[Callable[[_core.Machine, _core.Prepared], None]]:
    """What begins a preparation: ratite's own threads must not be blocked."""
    if prepare is None:
        return None
    whole = prepare

    def work(machine: _core.Machine, prepared: _core.Prepared) -> None:
        try:
            whole(face(machine))
        except BaseException as error:
            prepared.failed(error)
        else:
            prepared.succeeded()

    return lambda *of: Thread(target=work, args=of, name="ratite-prepare").start()


class TemplateCache(CacheFace):
    __doc__ = CacheFace.__doc__

    def cached(self, key: str, machine: Machine, boot: Callable[[Machine], object]) -> Template:
        """The template of `key` for this very machine: the one that is there, or else one that is made now.

        To make it, `machine`, a description, is launched, as one that can be frozen and with its work folder in the cache; ``boot(machine)``
        brings it to where it is to be frozen; and it is frozen, which ends it. It is "this very" machine if QEMU's binary,
        the description and the contents of all files that it names are the same. What `boot` does is not seen: a change of it
        wants another `key`.

        Many threads and programs may ask at once: one makes it, and the others wait for that. Of each key the last four are kept.

        :raises CacheError: of the kind ``boot``, from what `boot` has raised. Nothing is kept of a template that was not finished.
        """
        place = self._cache.look(key, machine._config()).wait()
        return Template(place) if isinstance(place, _core.Template) else _made(place, machine, boot)

    def create(self, name: str, machine: Machine, boot: Callable[[Machine], object]) -> Template:
        """Makes a template of this name, in the same way.

        :raises CacheError: of the kind ``taken`` if there is one.
        """
        return _made(self._cache.reserve(name, machine._config()).wait(), machine, boot)

    def open(self, name: str) -> Template:
        """The template of this name."""
        return Template(self._cache.open(name).wait())

    def list(self) -> List[TemplateEntry]:
        """All templates, by their names."""
        return [TemplateEntry(*entry) for entry in self._cache.list().wait()]

    def remove(self, name: str) -> None:
        """Removes the template of this name. Machines that were made of it go on.

        :raises CacheError: of the kind ``in-use`` while some program holds it or is making it.
        """
        self._cache.remove(name).wait()


def _made(making: _core.Making, machine: Machine, boot: Callable[[Machine], object]) -> Template:
    try:
        with machine._launching():
            machine._machine = launched = making.config.launch(None).wait()
        try:
            try:
                boot(machine)
            except Exception as error:
                raise boot_failed(launched) from error
            return Template(making.store(launched).wait())
        finally:
            # It has ended if all went well.
            launched.kill().wait()
    finally:
        making.give_up()


def _machine() -> Type[Machine]:
    # Machines know templates, and templates machines.
    from ratite._machine import Machine

    return Machine
