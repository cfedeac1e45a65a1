"""What the tests share: machines to play with, and the proof after each test that nothing of them is left."""

import asyncio
import gc
import os
import select
import sys
import time
import traceback
import uuid
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

import ratite

REPOSITORY = Path(__file__).resolve().parents[3]

GUEST = REPOSITORY / "crates/ratite/guest/boot.bin"

PATIENCE = 30.0
"""How long a test waits for what is bound to come."""

AT_ONCE = 5.0
"""How soon something comes that must come at once: far above any hiccup, far below every limit of the library."""


def eventually(fact, what="a fact"):
    """Waits until `fact()` is true, for facts that nobody announces."""
    end = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < end, f"not within {PATIENCE} s: {what}"
        select.select([], [], [], 0.005)


def raised_by(action):
    with pytest.raises(Exception) as raised:
        action()
    return raised.value


def in_a_child(body):
    """Runs `body` in a forked process; what it raises is told here."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            body()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def run(coroutine):
    """A loop of its own, and a limit on all of it."""

    async def limited():
        return await asyncio.wait_for(coroutine, PATIENCE)

    return asyncio.run(limited())


async def begun(coroutine):
    """A task that has come to its first wait."""
    task = asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)
    return task


def forget_the_last_error():
    """pytest keeps it for debuggers, and its traceback holds the machines."""
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            delattr(sys, name)


@pytest.fixture
def base(tmp_path):
    """The folder in which the test's machines have their work folders."""
    folder = tmp_path / "base"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def fake_qemu():
    """A program that behaves like QEMU, and misbehaves on demand (`crates/ratite-tests/src/bin/fake-qemu`)."""
    told = os.environ.get("RATITE_FAKE_QEMU")
    path = Path(told) if told else REPOSITORY / "target/debug/fake-qemu"
    assert path.exists(), f"{path} is missing: `cargo build --package ratite-tests --bins` makes it"
    return str(path)


@pytest.fixture
def fake(fake_qemu, base):
    """Makes machines of the fake QEMU, which misbehave as the words say."""

    def make(*words, module=ratite, **keywords):
        keywords.setdefault("base_folder", base)
        args = [arg for word in words for arg in ("-fake", word)]
        return module.Machine(fake_qemu, *args, **keywords)

    return make


@pytest.fixture
def real(base):
    """Makes machines of the real QEMU, without a processor."""

    def make(*args, module=ratite, **keywords):
        keywords.setdefault("base_folder", base)
        return module.Machine("qemu-system-x86_64", *args, machine="none", accel="tcg", **keywords)

    return make


@pytest.fixture
def guest(base):
    """Makes machines of the real QEMU that boot ratite's guest."""

    def make(*args, module=ratite, **keywords):
        keywords.setdefault("base_folder", base)
        drive = f"file={GUEST},format=raw,if=floppy,readonly=on"
        args = ("-nodefaults", "-drive", drive, *args)
        return module.Machine("qemu-system-x86_64", *args, accel="tcg", console=True, **keywords)

    return make


@pytest.fixture
def frozen(guest, base):
    """Makes templates of the guest, frozen at its prompt, behind what `typed` has put there."""
    made = []

    def make(*args, typed="", **keywords):
        with guest(*args, freezable=True, **keywords) as machine:
            machine.console.expect("> ")
            if typed:
                machine.console.send_echoed(typed)
            made.append(machine.freeze())
            return made[-1]

    yield make
    for template in made:
        template.close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of what is the user's cache elsewhere."""
    monkeypatch.setenv("RATITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/templates"


def templates_in(cache):
    """The folders of templates, and whatever else looks like one."""
    return [path.name for path in cache.iterdir() if path.is_dir() and not path.name.startswith(".")]


@pytest.fixture(scope="session", autouse=True)
def what_stays(fake_qemu):
    """Starts what is kept for the whole program: ratite's threads and its guard, and what multiprocessing has of its own."""
    resource_tracker.ensure_running()
    with ratite.Machine(fake_qemu):
        pass


@pytest.fixture(autouse=True)
def nothing_left(request, what_stays, base, cache, monkeypatch):
    """Proves that after a test no process, no work folder and no descriptor is left."""
    mark = f"RATITE_TEST={uuid.uuid4()}"
    monkeypatch.setenv(*mark.split("="))
    before, descriptors = children(), open_descriptors()
    yield
    # Machines that have ended hold their logs, and fixtures and tracebacks hold machines.
    request.node.funcargs.clear()
    if request.node.stash.get(FAILED, False):
        return

    def left():
        gc.collect()
        return [
            *(f"child {pid}: {name}" for pid, name in children().items() if pid not in before),
            *(f"process {pid}: {name}" for pid, name in marked(mark).items()),
            *(f"descriptor {fd}: {what}" for fd, what in open_descriptors().items() if descriptors.get(fd) != what),
            *(f"folder {folder}" for place in (base, cache) for folder in place.glob("qemu-machine-*")),
        ]

    end = time.monotonic() + AT_ONCE
    while left():
        assert time.monotonic() < end, "left behind:\n" + "\n".join(left())
        select.select([], [], [], 0.005)


FAILED = pytest.StashKey()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed


def runs(pid):
    """Whether a process runs, or waits to be reaped by nobody of ours."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def processes():
    """The folders of all processes. Each may be gone when it is looked into."""
    return [Path("/proc", name) for name in os.listdir("/proc") if name.isdigit()]


def children():
    """The processes that are ours."""
    found = {}
    for folder in processes():
        try:
            name, fields = (folder / "stat").read_text(errors="replace").rsplit(")", 1)
        except OSError:
            continue
        if int(fields.split()[1]) == os.getpid():
            found[int(folder.name)] = name
    return found


def marked(mark):
    """The processes with this in the environment that they were started with."""
    found = {}
    for folder in processes():
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "comm").read_text().strip()
        except OSError:
            continue
    return found


def open_descriptors():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            # The one that lists the folder.
            continue
    return found
