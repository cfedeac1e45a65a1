"""Screens, keys and mice of a real QEMU, and its monitor for people."""

import asyncio
import pickle
import re
import struct

import pytest

import ratite
import ratite.aio
from conftest import PATIENCE, REPOSITORY

SHOWN = REPOSITORY / "crates/ratite-tests/guest/screen.bin"
CURSOR = (7 * 9, 12 * 16, 9, 16)
GREY, WHITE, BLUE, BLACK = (168, 168, 168), (255, 255, 255), (0, 0, 168), (0, 0, 0)


@pytest.fixture
def shown(base):
    """Makes machines whose guest shows what is known, and tells what keyboard and mouse send."""

    def make(*args, module=ratite, **keywords):
        drive = f"file={SHOWN},format=raw,if=floppy,readonly=on"
        args = ("-nodefaults", "-device", "VGA,id=card", "-drive", drive, *args)
        return module.Machine("qemu-system-x86_64", *args, accel="tcg", console=True, base_folder=base, **keywords)

    return make


def test_a_screen_is_seen_and_read(shown, tmp_path):
    with shown() as machine:
        text = machine.screen.wait_text("login: ")
        assert text.size == (80, 25) and text.unknown == 0 and text.cursor in (None, (7, 12))
        assert text.lines[0] == "   ratite screen guest" and str(text).endswith("\nlogin:\n")
        assert text.cell(3, 0) == ("r", WHITE, BLUE) and text.cell(0, 12) == ("l", GREY, BLACK)
        assert text.cell(80, 0) is None and repr(text) == "<ScreenText of 80 x 25 characters>"

        picture = machine.screen.screenshot()
        assert picture.size == (720, 400) and len(picture.rgb) == 720 * 400 * 3
        assert picture.pixel(3 * 9, 0) == BLUE and picture.pixel(720, 0) is None
        assert picture.text().lines == text.lines and repr(picture) == "<Picture of 720 x 400 pixels>"
        assert ratite.Picture.from_png(picture.png) == picture == pickle.loads(pickle.dumps(picture))
        picture.save(tmp_path / "screen.png")
        assert struct.unpack(">II", (tmp_path / "screen.png").read_bytes()[16:24]) == (720, 400)
        assert ratite.Picture.from_png(machine.screen.of("card").png()).size == (720, 400)


def test_what_is_to_be_seen_is_waited_for(shown):
    with shown() as machine:
        screen = machine.screen.every(0.02)
        screen.wait_text(re.compile("^login: ", re.MULTILINE))
        before = screen.still(0.2, ignoring=[CURSOR])
        assert screen.looks_like(before, ignoring=[CURSOR]).difference(before, ignoring=[CURSOR]) is None
        with pytest.raises(ratite.TimedOut, match="no change of the screen within 0.2 s: no pixel differs") as timed_out:
            screen.changed_from(before, 0.2, ignoring=[CURSOR])
        assert timed_out.value.picture.size == (720, 400) and timed_out.value.limit == 0.2

        machine.console.expect("ready")
        machine.input.send_key("f5")
        after = screen.changed_from(before, ignoring=[CURSOR])
        assert "pixels differ" in after.difference(before, ignoring=[CURSOR])
        assert after.difference(before, share=0.01) is None


def test_keys_and_the_mouse_reach_the_guest(shown):
    with shown() as machine:
        machine.console.expect("ready")
        machine.input.send_key("ctrl-alt-del")
        machine.console.expect("k1d k38 ke0 k53 ke0 kd3 kb8 k9d")
        machine.input.hold(0.005).type_text("Zü", "de")
        machine.console.expect("k2a k15 k95 kaa k1a k9a")
        machine.input.move_by(5, 7)
        machine.console.expect("m28 m05 mf9")
        machine.input.click("right")
        machine.console.expect("m0a m00 m00 m08 m00 m00")
        machine.input.press_button()
        machine.input.release_button()
        machine.console.expect("m09 m00 m00 m08 m00 m00")
        machine.input.scroll(1)


def test_what_cannot_be_seen_or_pressed_is_told(shown, guest):
    with guest() as machine:
        with pytest.raises(ratite.ScreenError, match="the machine has no screen.*There is no console") as error:
            machine.screen.screenshot()
        assert error.value.picture is None
    with shown("-usb", "-device", "usb-tablet") as machine:
        with pytest.raises(ratite.CommandError, match="Device 'nosuch' not found"):
            machine.screen.of("nosuch", 1).screenshot()
        with pytest.raises(ratite.InputError, match="no key is called `altt`, perhaps `alt`"):
            machine.input.send_key("ctrl-altt")
        with pytest.raises(ratite.InputError, match="could not type 'ü', character 2 of the text"):
            machine.input.type_text("gü")
        with pytest.raises(ratite.InputError, match="1.5, 0 is not on it"):
            machine.input.move_to(1.5, 0)
        machine.input.move_to(0.5, 0.5)
        machine.cmd("stop")
        with pytest.raises(ratite.InputError, match="it is `paused`"):
            machine.input.send_key("a")
        for wrong in (lambda: machine.input.type_text("a", "xx"), lambda: machine.input.click("up")):
            with pytest.raises(ratite.ConfigError):
                wrong()
        with pytest.raises(ratite.PatternError):
            machine.screen.wait_text(re.compile("(?=a)"))
    for wrong in (lambda: ratite.Picture(1, 1, b"12"), lambda: ratite.Picture.from_png(b"x")):
        with pytest.raises(ratite.ConfigError):
            wrong()


def test_the_monitor_for_people(guest):
    with guest() as machine:
        assert machine.human_monitor("info status") == "VM status: running\r\n"
        assert machine.human_monitor("nosuch") == "unknown command: 'nosuch'\r\n"
        assert "IP=" in machine.human_monitor("info registers", cpu=0)
        with pytest.raises(ratite.CommandError):
            machine.human_monitor("info registers", cpu=9)


def test_asyncio_sees_and_presses_the_same(shown):
    async def scenario():
        async with shown(module=ratite.aio) as machine:
            screen, devices = machine.screen.every(0.02), machine.input.hold(0.005)
            text = await screen.wait_text("login: ")
            assert (await screen.text()).lines == text.lines
            before = await screen.still(0.1, ignoring=[CURSOR])
            assert (await screen.looks_like(before, ignoring=[CURSOR])).size == (720, 400)
            assert (await machine.screen.of("card").screenshot()).size == (720, 400)
            assert (await screen.png()).startswith(b"\x89PNG")

            changed = asyncio.ensure_future(screen.changed_from(before, ignoring=[CURSOR]))
            await machine.console.expect("ready")
            await devices.send_key("f5")
            assert (await asyncio.wait_for(changed, PATIENCE)) != before
            await machine.console.expect("kbf")
            await devices.type_text("a")
            await machine.console.expect("k1e k9e")
            await devices.move_by(1, 0)
            await devices.click()
            await devices.press_button("middle")
            await devices.release_button("middle")
            await machine.console.expect("m0c m00 m00 m08 m00 m00")
            await devices.scroll(-1)
            with pytest.raises(ratite.InputError, match="usb-tablet"):
                await devices.move_to(0, 0)
            assert await machine.human_monitor("info status") == "VM status: running\r\n"

            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(devices.hold(0.5).send_key("b"), 0.1)
            await machine.console.expect("kb0")

    asyncio.run(scenario())
