"""What the tests of `QMPClient` share."""

import asyncio
import functools
import subprocess

import pytest
from conftest import AT_ONCE, PATIENCE


def within_a_loop(test):
    """Runs a test that is a coroutine, and sees that it leaves no task behind."""

    @functools.wraps(test)
    def run(*args, **keywords):
        async def bounded():
            await asyncio.wait_for(test(*args, **keywords), PATIENCE)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                # Cancelled watchers take a turn to end.
                await asyncio.wait(others, timeout=AT_ONCE)
            assert not asyncio.all_tasks() - {asyncio.current_task()}

        asyncio.run(bounded())

    return run


async def events_of(client, count):
    return [dict(await client.events.get()) for _ in range(count)]


@pytest.fixture
def qemu_at(tmp_path):
    """Starts the real QEMU with these monitor options; it is ended after the test."""
    started = []

    def start(*options, **keywords):
        words = ["-machine", "none", "-accel", "tcg", "-nodefaults", "-display", "none", *options]
        started.append(subprocess.Popen(["qemu-system-x86_64", *words], **keywords))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
