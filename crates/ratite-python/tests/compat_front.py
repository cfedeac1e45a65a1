"""What the tests of `QEMUMonitorProtocol` share."""

import functools
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from compat_peer import blocking_session
from conftest import AT_ONCE


@pytest.fixture
def background():
    """Does something meanwhile."""
    with ThreadPoolExecutor() as pool:
        yield pool


@pytest.fixture
def session(background):
    """Makes a session with a peer that the test drives."""
    return functools.partial(blocking_session, background)


@pytest.fixture
def qemu_at():
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


def path_of(*folders):
    """A ``PYTHONPATH`` with these in front."""
    return os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)


def at_once(since):
    assert time.monotonic() - since < AT_ONCE
