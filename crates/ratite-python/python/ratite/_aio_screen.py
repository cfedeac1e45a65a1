"""A machine's screen, keyboard and mouse for asyncio."""

from __future__ import annotations

from typing import Sequence

from ratite import _core
from ratite._core import Picture, ScreenText
from ratite._words import Part, Pattern, pattern, seconds


class Screen:
    """A machine's screen; see `ratite.Screen`."""

    def __init__(self, screen: _core.Screen) -> None:
        self._screen = screen

    def of(self, device: str, head: int = 0) -> Screen:
        """The screen of the card with this ``id``, and which of its screens."""
        return Screen(self._screen.of(device, head))

    def every(self, pause: float) -> Screen:
        """The same, looked at every `pause` seconds while something is waited for."""
        return Screen(self._screen.every(seconds("pause", pause)))

    async def screenshot(self, timeout: float = 60.0) -> Picture:
        """Takes a picture."""
        return await self._screen.screenshot(seconds("timeout", timeout))

    async def png(self, timeout: float = 60.0) -> bytes:
        """Takes a picture as a PNG: QEMU's own where it writes one, converted where not."""
        return await self._screen.png(seconds("timeout", timeout))

    async def changed_from(
        self,
        before: Picture,
        timeout: float = 60.0,
        *,
        channel: int = 0,
        share: float = 0.0,
        ignoring: Sequence[Part] = (),
    ) -> Picture:
        """Waits until the screen no longer looks like `before`."""
        within, limit = (channel, share, list(ignoring)), seconds("timeout", timeout)
        return await self._screen.changed_from(before, within, limit)

    async def looks_like(
        self,
        reference: Picture,
        timeout: float = 60.0,
        *,
        channel: int = 0,
        share: float = 0.0,
        ignoring: Sequence[Part] = (),
    ) -> Picture:
        """Waits until the screen looks like `reference`."""
        within, limit = (channel, share, list(ignoring)), seconds("timeout", timeout)
        return await self._screen.looks_like(reference, within, limit)

    async def still(
        self,
        time: float,
        timeout: float = 60.0,
        *,
        channel: int = 0,
        share: float = 0.0,
        ignoring: Sequence[Part] = (),
    ) -> Picture:
        """Waits until the screen has stayed as it is for `time` seconds."""
        within, limit = (channel, share, list(ignoring)), seconds("timeout", timeout)
        return await self._screen.still(seconds("time", time), within, limit)

    async def text(self, timeout: float = 60.0) -> ScreenText:
        """Reads the text on the screen by its glyphs."""
        return await self._screen.text(seconds("timeout", timeout))

    async def wait_text(self, what: Pattern, timeout: float = 60.0) -> ScreenText:
        """Waits until `what` is on the screen: a text, bytes, or a compiled expression."""
        wanted, regex = pattern(what)
        return await self._screen.wait_text(wanted, regex, seconds("timeout", timeout))


class Input:
    """A machine's keyboard and mouse; see `ratite.Input`. Cancelling a call leaves nothing pressed."""

    def __init__(self, devices: _core.Input) -> None:
        self._input = devices

    def hold(self, time: float) -> Input:
        """The same, with keys and buttons held for `time` seconds: 0.04 by default, from 0.001 to 10."""
        return Input(self._input.hold(seconds("time", time)))

    async def send_key(self, keys: str) -> None:
        """Presses and releases a key, or several joined by ``-``, such as ``ctrl-alt-delete``."""
        await self._input.send_key(keys)

    async def type_text(self, text: str, layout: str = "us") -> None:
        """Types a text as on a keyboard of this layout, which has to be the guest's: us, uk, de or fr."""
        await self._input.type_text(text, layout)

    async def move_to(self, x: float, y: float) -> None:
        """Moves the pointer to a place, from 0.0, 0.0 at the upper left to 1.0, 1.0 at the lower right."""
        await self._input.move_to(x, y)

    async def move_by(self, right: int, down: int) -> None:
        """Moves the pointer by a way."""
        await self._input.move_by(right, down)

    async def click(self, button: str = "left") -> None:
        """Presses and releases a button: left, middle, right, side or extra."""
        await self._input.click(button)

    async def press_button(self, button: str = "left") -> None:
        """Presses a button and leaves it pressed, to drag something."""
        await self._input.press_button(button)

    async def release_button(self, button: str = "left") -> None:
        """Releases a button."""
        await self._input.release_button(button)

    async def scroll(self, steps: int) -> None:
        """Turns the wheel away from oneself, or the other way with a negative number."""
        await self._input.scroll(steps)
