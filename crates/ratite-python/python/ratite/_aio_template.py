"""Templates, pools and caches for asyncio."""

from __future__ import annotations

import asyncio
import copy
from types import TracebackType
from typing import TYPE_CHECKING, Awaitable, Callable, List, Mapping, Optional, Set, Type, TypeVar

from ratite import _core
from ratite._frozen import CacheFace, Commands, PoolFace, Spawning, TemplateEntry, TemplateFace, boot_failed
from ratite._words import StrPath, count, text

if TYPE_CHECKING:
    from ratite.aio import Machine

SelfTemplate = TypeVar("SelfTemplate", bound="Template")
SelfPool = TypeVar("SelfPool", bound="Pool")


class Template(TemplateFace):
    __doc__ = TemplateFace.__doc__

    @classmethod
    async def open(cls: Type[SelfTemplate], path: StrPath) -> SelfTemplate:
        """The template that was stored there; see `ratite.Template.open`."""
        return cls(await _core.Template.open(text("path", path)))

    @classmethod
    async def cached(cls, key: str, machine: Machine, boot: Callable[[Machine], Awaitable[object]]) -> Template:
        """`TemplateCache.cached` of the user's own cache."""
        return await TemplateCache().cached(key, machine, boot)

    async def spawn(
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
        """A machine that goes on where the template was frozen; see `ratite.Template.spawn`. Cancelling leaves nothing behind."""
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
        return spawning.face(_machine(), await self._template.spawn(spawning.spawn))

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
        prepare: Optional[Callable[[Machine], Awaitable[object]]] = None,
    ) -> Pool:
        """A pool of machines that are restored ahead; see `ratite.Template.pool`. With `prepare`, a coroutine function, it is to be
        called within the event loop, in which that runs; what is under way when the pool is closed is cancelled."""
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

        preparing = None if prepare is None else _Preparing(prepare, face)
        pool = Pool(self._template.pool(count("size", size), spawning.spawn, preparing), size)
        pool._face, pool._preparing = face, preparing
        return pool

    async def store(self: SelfTemplate, path: StrPath) -> SelfTemplate:
        """Moves it to `path`, where it stays, and returns it; see `ratite.Template.store`. Once begun it is finished, even if it is
        cancelled."""
        await self._template.store(text("path", path))
        return self

    async def __aenter__(self: SelfTemplate) -> SelfTemplate:
        return self

    async def __aexit__(
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
    _preparing: Optional[_Preparing]

    @classmethod
    def of(
        cls: Type[SelfPool], machine: Machine, size: int, *, prepare: Optional[Callable[[Machine], Awaitable[object]]] = None
    ) -> SelfPool:
        """A pool of plain machines as `machine` describes them; see `ratite.Pool.of`, and `Template.pool` for `prepare`."""
        described = copy.copy(machine)

        def face(machine: _core.Machine) -> Machine:
            return copy.copy(described)._taken(machine)

        preparing = None if prepare is None else _Preparing(prepare, face)
        pool = cls(_core.Pool.of(described._config(), count("size", size), preparing), size)
        pool._face, pool._preparing = face, preparing
        return pool

    def close(self) -> None:
        """Ends the machines that nobody has taken, without waiting for that, and cancels what prepares them."""
        super().close()
        if self._preparing is not None:
            self._preparing.cancel()

    async def take(self) -> Machine:
        """A machine that runs; see `ratite.Pool.take`. One that is cancelled is not taken, or ended."""
        return self._face(await self._pool.take())

    async def filled(self) -> None:
        """Waits until the pool is full, or none of its places can be filled."""
        await self._pool.filled()

    async def __aenter__(self: SelfPool) -> SelfPool:
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Closes it."""
        self.close()


class _Preparing:
    """Prepares the machines of a pool in the event loop that runs when it is made."""

    def __init__(self, prepare: Callable[[Machine], Awaitable[object]], face: Callable[[_core.Machine], Machine]) -> None:
        self._prepare, self._face = prepare, face
        self._loop = asyncio.get_running_loop()
        self._tasks: Set[asyncio.Task[None]] = set()
        self._is_over = False

    def __call__(self, machine: _core.Machine, prepared: _core.Prepared) -> None:
        """Begins with one; called by a thread of ratite's own."""
        self._loop.call_soon_threadsafe(self._begin, machine, prepared)

    def _begin(self, machine: _core.Machine, prepared: _core.Prepared) -> None:
        if self._is_over:
            return
        task = self._loop.create_task(self._work(machine, prepared))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, machine: _core.Machine, prepared: _core.Prepared) -> None:
        try:
            await self._prepare(self._face(machine))
        except asyncio.CancelledError as error:
            prepared.failed(error)
            raise
        except Exception as error:
            prepared.failed(error)
        else:
            prepared.succeeded()

    def cancel(self) -> None:
        self._is_over = True
        for task in self._tasks:
            task.cancel()


class TemplateCache(CacheFace):
    __doc__ = CacheFace.__doc__

    async def cached(self, key: str, machine: Machine, boot: Callable[[Machine], Awaitable[object]]) -> Template:
        """The template of `key` for this very machine, there already or made now; see `ratite.TemplateCache.cached`. Cancelling ends
        the machine, and nothing is kept."""
        place = await self._cache.look(key, machine._config())
        return Template(place) if isinstance(place, _core.Template) else await _made(place, machine, boot)

    async def create(self, name: str, machine: Machine, boot: Callable[[Machine], Awaitable[object]]) -> Template:
        """Makes a template of this name, in the same way; see `ratite.TemplateCache.create`."""
        return await _made(await self._cache.reserve(name, machine._config()), machine, boot)

    async def open(self, name: str) -> Template:
        """The template of this name."""
        return Template(await self._cache.open(name))

    async def list(self) -> List[TemplateEntry]:
        """All templates, by their names."""
        return [TemplateEntry(*entry) for entry in await self._cache.list()]

    async def remove(self, name: str) -> None:
        """Removes the template of this name; see `ratite.TemplateCache.remove`."""
        await self._cache.remove(name)


async def _made(making: _core.Making, machine: Machine, boot: Callable[[Machine], Awaitable[object]]) -> Template:
    try:
        with machine._launching():
            machine._machine = launched = await making.config.launch(None)
        try:
            try:
                await boot(machine)
            except Exception as error:
                raise boot_failed(launched) from error
            return Template(await making.store(launched))
        finally:
            # It has ended if all went well.
            await launched.kill()
    finally:
        making.give_up()


def _machine() -> Type[Machine]:
    # Machines know templates, and templates machines.
    from ratite.aio import Machine

    return Machine
