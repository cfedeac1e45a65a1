"""Templates for asyncio: the same, awaited, and what is cancelled leaves nothing behind."""

import asyncio
import os

import pytest

import ratite
import ratite.aio
from conftest import begun, eventually, run, templates_in


async def to_the_prompt(machine):
    await machine.console.expect("> ")
    await machine.console.send_echoed("echo ke")


async def says(machine, rest, expected):
    await machine.console.send_line(rest)
    await machine.console.expect(f"\r\n{expected}\r\n> ")


@pytest.fixture
def play(guest):
    """Plays a coroutine with a template that was frozen behind half a line."""

    def play(scene):
        async def within():
            async with guest(module=ratite.aio, freezable=True) as machine:
                await to_the_prompt(machine)
                async with await machine.freeze() as template:
                    return await scene(template)

        return run(within())

    return play


def test_machines_are_made_all_at_once_and_none_sees_another(play, base):
    async def one(template, rest):
        async with await template.spawn(base_folder=base) as machine:
            assert type(machine) is ratite.aio.Machine
            await says(machine, rest, f"ke{rest}")

    async def scene(template):
        assert type(template) is ratite.aio.Template and template.ram == "mapped"
        await asyncio.gather(*(one(template, rest) for rest in ("pt", "eper", "g", "nnel")))

    play(scene)


def test_a_pool_serves_all_who_ask(play, base):
    async def one(pool, rest):
        async with await pool.take() as machine:
            await says(machine, rest, f"ke{rest}")

    async def scene(template):
        async with template.pool(2, base_folder=base) as pool:
            await pool.filled()
            await asyncio.gather(*(one(pool, rest) for rest in ("pt", "eper", "g")))
        with pytest.raises(ratite.SpawnError):
            await pool.take()

    play(scene)


def test_a_pool_of_plain_machines_runs_them_once_they_are_taken(guest):
    async def scene():
        async with ratite.aio.Pool.of(guest(module=ratite.aio), 1) as pool:
            async with await pool.take() as machine:
                await machine.console.expect("> ")

    run(scene())


def test_a_pool_prepares_its_machines_in_the_event_loop(play, base):
    async def finish(machine):
        assert type(machine) is ratite.aio.Machine
        await says(machine, "pt", "kept")

    async def fail(machine):
        raise ZeroDivisionError("by design")

    async def scene(template):
        async with template.pool(2, base_folder=base, prepare=finish) as pool:
            for _ in range(3):
                async with await pool.take() as machine:
                    await says(machine, "echo taken", "taken")
        async with template.pool(1, base_folder=base, prepare=fail) as pool:
            with pytest.raises(ratite.SpawnError, match="by design") as caught:
                await pool.take()
            assert caught.value.kind == "prepare" and type(caught.value.__cause__) is ZeroDivisionError

    play(scene)


def test_closing_a_pool_cancels_what_prepares_its_machines(guest):
    async def scene():
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def wait_for_ever(machine):
            begun.set()
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        async with ratite.aio.Pool.of(guest(module=ratite.aio), 1, prepare=wait_for_ever):
            await asyncio.wait_for(begun.wait(), 60)
        await asyncio.wait_for(cancelled.wait(), 60)

    run(scene())


def test_cancelling_a_freeze_leaves_the_machine_running(guest):
    async def scene():
        async with guest(module=ratite.aio, freezable=True) as machine:
            await to_the_prompt(machine)
            freezing = await begun(machine.freeze())
            await machine.event_wait("STOP")
            freezing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await freezing
            await machine.event_wait("RESUME")
            await says(machine, "pt", "kept")

    run(scene())


def test_cancelling_a_spawn_or_a_take_leaves_nothing(play, base):
    async def scene(template):
        async with template.pool(1, base_folder=base) as pool:
            for wait in (template.spawn(base_folder=base), pool.take()):
                waiting = await begun(wait)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            async with await pool.take() as machine:
                await says(machine, "pt", "kept")

    play(scene)


def is_at(template, place):
    try:
        return template.folder == str(place)
    except ratite.TemplateError:
        # It is just on its way.
        return False


def test_a_store_that_is_cancelled_is_finished(play, base):
    async def scene(template):
        storing = await begun(template.store(base / "stored"))
        storing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await storing
        eventually(lambda: is_at(template, base / "stored"), "a template at its place")
        async with await template.spawn(base_folder=base) as machine:
            await says(machine, "pt", "kept")

    play(scene)
    assert os.listdir(base) == ["stored"]


def test_a_template_is_made_at_the_first_use_and_found_afterwards(guest, base):
    booted = []

    async def boot(machine):
        booted.append(machine)
        await to_the_prompt(machine)

    async def ask():
        async with await ratite.aio.Template.cached("shell", guest(module=ratite.aio), boot) as template:
            async with await template.spawn(base_folder=base) as machine:
                await says(machine, "pt", "kept")

    async def scene():
        await asyncio.gather(*(ask() for _ in range(4)))
        (entry,) = await ratite.aio.TemplateCache().list()
        await ratite.aio.TemplateCache().remove(entry.name)

    run(scene())

    assert len(booted) == 1 and type(booted[0]) is ratite.aio.Machine


def test_what_a_boot_raises_is_the_cause_and_nothing_is_kept(guest, cache):
    async def fails(machine):
        await to_the_prompt(machine)
        raise ZeroDivisionError

    async def scene():
        with pytest.raises(ratite.CacheError) as raised:
            await ratite.aio.Template.cached("shell", guest(module=ratite.aio), fails)
        return raised.value

    error = run(scene())

    assert error.kind == "boot" and type(error.__cause__) is ZeroDivisionError and error.tail.endswith(b"> echo ke")
    assert templates_in(cache) == []


def test_cancelling_a_boot_ends_the_machine_and_lets_the_next_one_try(guest, base, cache):
    async def scene():
        booting = asyncio.Event()

        async def stuck(machine):
            booting.set()
            await machine.console.expect("never")

        machine = guest(module=ratite.aio)
        making = asyncio.ensure_future(ratite.aio.Template.cached("shell", machine, stuck))
        await booting.wait()
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert not machine.is_running and templates_in(cache) == []

        async with await ratite.aio.TemplateCache().create("named", machine, to_the_prompt):
            pass
        async with await ratite.aio.TemplateCache().open("named") as template:
            async with await template.spawn(base_folder=base) as spawned:
                await says(spawned, "pt", "kept")

    run(scene())
