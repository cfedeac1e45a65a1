"""Queues of events, each with its own idea of what belongs into it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import contextmanager
from typing import AsyncIterator, Callable, Deque, Iterable, Iterator, List, Optional, Set, Tuple, Union

from .error import QMPError
from .message import Message

EventNames = Union[str, Iterable[str], None]
EventFilter = Callable[[Message], bool]

MOST_UNREAD = 16384
"""How many events a listener keeps for its reader. The oldest goes when there are more, and is counted."""

MOST_HISTORY = 1024
"""How many of the last events `EventListener.history` has."""


class ListenerError(QMPError):
    """A listener that is registered already, or must not be removed."""


class EventListener:
    """A queue of the events that it accepts, from when it is registered with a client.

    :param names: the events' name or names; none for all.
    :param event_filter: looks at what has such a name, and has the last word.
    """

    def __init__(self, names: EventNames = None, event_filter: Optional[EventFilter] = None) -> None:
        self.names: Set[str] = {names} if isinstance(names, str) else set(names or ())
        self.event_filter: Optional[EventFilter] = event_filter
        self.dropped = 0
        """How many events were dropped because nobody read them."""
        self._unread: Deque[Message] = deque()
        self._history: Deque[Message] = deque(maxlen=MOST_HISTORY)
        self._readers: List[asyncio.Future[None]] = []

    @property
    def history(self) -> Tuple[Message, ...]:
        """The last events that were accepted, read or not, oldest first: at most 1024 (`MOST_HISTORY`)."""
        return tuple(self._history)

    def accept(self, event: Message) -> bool:
        """Whether `event` belongs here. A subclass may decide anew."""
        if self.names and event["event"] not in self.names:
            return False
        return self.event_filter is None or self.event_filter(event)

    async def put(self, event: Message) -> None:
        """Queues `event` if it is accepted. For clients."""
        self._offer(event)

    def _offer(self, event: Message) -> None:
        if not self.accept(event):
            return
        self._history.append(event)
        self._unread.append(event)
        if len(self._unread) > MOST_UNREAD:
            self._unread.popleft()
            self.dropped += 1
        for reader in self._readers:
            if not reader.done():
                reader.set_result(None)

    async def get(self) -> Message:
        """Takes the oldest event, and waits for one. Cancelling takes none."""
        while not self._unread:
            reader: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            try:
                await reader
            finally:
                self._readers.remove(reader)
        return self._unread.popleft()

    def empty(self) -> bool:
        """Whether there is no event to take."""
        return not self._unread

    def clear(self) -> List[Message]:
        """Takes all events that are there."""
        events = list(self._unread)
        self._unread.clear()
        return events

    def __aiter__(self) -> AsyncIterator[Message]:
        """Iterating waits for the next event, for ever: it goes on over disconnects."""
        return self

    async def __anext__(self) -> Message:
        return await self.get()


class Events:
    """What a client has of listeners."""

    logger: logging.Logger

    def __init__(self) -> None:
        self._listeners: List[EventListener] = []
        self.events: EventListener = EventListener()
        """A listener of everything, which is always there."""
        self.register_listener(self.events)

    def _event_dispatch(self, event: Message) -> None:
        for listener in tuple(self._listeners):
            dropped = listener.dropped
            listener._offer(event)
            if listener.dropped == 1 and dropped == 0:
                self.logger.warning("Nobody reads %s: the oldest of %d events go.", listener, MOST_UNREAD)

    def register_listener(self, listener: EventListener) -> None:
        """Lets `listener` have the events from now on.

        :raises ListenerError: if it is registered.
        """
        if listener in self._listeners:
            raise ListenerError("Attempted to re-register existing listener")
        self.logger.debug("Registering %s.", listener)
        self._listeners.append(listener)

    def remove_listener(self, listener: EventListener) -> None:
        """Lets `listener` have no more events, and clears it.

        :raises ListenerError: for the default listener.
        :raises ValueError: if it is not registered.
        """
        if listener is self.events:
            raise ListenerError("Cannot remove the default listener.")
        self.logger.debug("Removing %s.", listener)
        self._listeners.remove(listener)
        listener.clear()

    @contextmanager
    def listen(self, *listeners: EventListener) -> Iterator[None]:
        """Registers `listeners` for the length of a block."""
        added: List[EventListener] = []
        try:
            for listener in listeners:
                self.register_listener(listener)
                added.append(listener)
            yield
        finally:
            for listener in added:
                self.remove_listener(listener)

    @contextmanager
    def listener(
        self, names: EventNames = (), event_filter: Optional[EventFilter] = None
    ) -> Iterator[EventListener]:
        """A new listener for the length of a block."""
        listener = EventListener(names, event_filter)
        with self.listen(listener):
            yield listener
