"""Signals: whatever a handler of Python's raises ends a wait, and the machine can be used on."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import ratite
from conftest import eventually, runs

AT_ONCE = 2.0
"""ratite needs less than 0.1 s; the rest is for a busy machine."""

SOON = 0.1


class Rung(Exception):
    pass


@contextlib.contextmanager
def interrupted(kind):
    """A signal comes while the body waits, and ends it."""
    sent = []

    def send():
        sent.append(time.monotonic())
        os.kill(os.getpid(), kind)

    def ring(number, frame):
        raise Rung

    before = signal.signal(signal.SIGALRM, ring)
    timer = threading.Timer(SOON, send)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt if kind == signal.SIGINT else Rung):
            yield
        assert time.monotonic() - sent[0] < AT_ONCE
    finally:
        timer.join()
        signal.signal(signal.SIGALRM, before)


WAITS = {
    "cmd": lambda machine: machine.cmd("fake-never"),
    "qmp": lambda machine: machine.qmp("fake-never"),
    "event_wait": lambda machine: machine.event_wait("NEVER"),
    "listener": lambda machine: machine.listen().next(),
    "iteration": lambda machine: list(machine.listen("NEVER")),
    "expect": lambda machine: machine.console.expect("never"),
    "read": lambda machine: machine.console.read(),
    "wait": lambda machine: machine.wait(),
    "wait_irq": lambda machine: machine.qtest.wait_irq(1, True),
}


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGALRM], ids=["SIGINT", "SIGALRM"])
@pytest.mark.parametrize("name", WAITS)
def test_a_signal_ends_any_wait_and_leaves_the_machine_usable(fake, name, kind):
    with fake(console=True, qtest=True) as machine:
        with interrupted(kind):
            WAITS[name](machine)

        assert machine.is_running
        machine.cmd("fake-events", name="NEVER")
        machine.cmd("fake-console", text="never")
        assert machine.event_wait("NEVER")["event"] == "NEVER"
        assert machine.console.expect("never")
        assert machine.shutdown().success


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGALRM], ids=["SIGINT", "SIGALRM"])
def test_a_signal_ends_a_launch_and_nothing_is_left(fake, kind):
    machine = fake("silent")
    with interrupted(kind):
        machine.launch()

    assert not machine.is_running
    machine.args.clear()
    with machine:
        assert machine.cmd("query-status")["running"]


def test_a_shutdown_that_was_interrupted_can_be_repeated(fake):
    machine = fake("quit-delay=1000").launch()
    with interrupted(signal.SIGINT):
        machine.shutdown()

    exit = machine.shutdown()

    assert exit.success and exit is not None


def test_a_write_that_nobody_reads_is_ended_by_a_signal(guest):
    with guest("-S") as machine:
        with interrupted(signal.SIGINT):
            machine.console.write(b"x" * (8 << 20))
        assert machine.cmd("query-status")["status"] == "prelaunch"


def test_an_interrupted_end_of_the_context_ends_the_machine(fake):
    machine = fake("ignore-quit", "ignore-sigterm")
    with interrupted(signal.SIGINT):
        with machine:
            pid = machine.pid

    assert not machine.is_running and not runs(pid)


def test_a_handler_that_does_not_raise_ends_no_wait(fake):
    rung = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    try:
        with fake() as machine:
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            assert machine.cmd("fake-sleep", ms=500) is not None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rung


def test_ctrl_c_at_a_terminal_does_not_reach_qemu(fake):
    # SIGINT to the whole group of the program, as a terminal sends it.
    with fake() as machine:
        assert os.getpgid(machine.pid) != os.getpgid(0)


CONTROLLER = """
import os, signal, sys, threading
import ratite
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
machine = ratite.Machine(sys.argv[1], console=True, base_folder=sys.argv[2])
machine.launch()
"""


def controller(fake_qemu, base, program):
    """A program of its own that plays with a machine."""
    command = [sys.executable, "-W", "error", "-c", CONTROLLER + program, fake_qemu, str(base)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_program_that_dies_of_sigpipe_does_not_die_of_qemu_s_end(fake_qemu, base):
    program = """
os.kill(machine.pid, signal.SIGKILL)
for ask in (lambda: machine.cmd("stop"), lambda: machine.console.write(b"x" * 100000), machine.shutdown):
    try:
        ask()
    except ratite.Error as error:
        print(type(error).__name__)
"""
    with controller(fake_qemu, base, program) as process:
        said, complaints = process.communicate(timeout=60)
    assert process.returncode == 0 and complaints == ""
    assert said.split()[0] == "MachineExited" and said.split()[-1] == "ShutdownError"


@pytest.mark.parametrize(
    "program",
    [
        "",
        "sys.exit(0)",
        "keep = machine; machine.self = machine",
        "sys.modules['__main__'].cycle = [machine]; cycle.append(cycle)",
        "threading.Thread(target=machine.cmd, args=['fake-never'], daemon=True).start()",
        "threading.Thread(target=machine.wait, daemon=True).start()",
        "listener = machine.listen(); threading.Thread(target=lambda: list(listener), daemon=True).start()",
        "import asyncio; loop = asyncio.new_event_loop(); loop.run_until_complete(asyncio.sleep(0)); loop.close()",
        "os._exit(0)",
    ],
)
def test_a_program_that_ends_leaves_nothing_and_says_nothing(fake_qemu, base, program):
    with controller(fake_qemu, base, program) as process:
        said, complaints = process.communicate(timeout=60)
    assert (process.returncode, said, complaints) == (0, "", "")
    eventually(lambda: list(base.iterdir()) == [], "the end of the work folder")


NOISY = """
import asyncio, ratite.aio
noisy = ["-fake", "event-flood=0"]
"""


@pytest.mark.parametrize(
    "program",
    [
        """
noisy = ratite.Machine(sys.argv[1], *noisy, base_folder=sys.argv[2], transcript=lambda way, text: len(text))
noisy.launch()
noisy.event_wait(timeout=30)
""",
        """
noisy = ratite.aio.Machine(sys.argv[1], *noisy, base_folder=sys.argv[2])
asyncio.run(noisy.launch())
begun = threading.Barrier(4)
async def take():
    await noisy.event_wait()
    begun.wait()
    while True:
        await noisy.event_wait()
for _ in range(3):
    threading.Thread(target=lambda: asyncio.run(take()), daemon=True).start()
begun.wait()
""",
    ],
    ids=["transcript", "loops"],
)
def test_a_program_that_ends_while_python_is_called_all_the_time_says_nothing(fake_qemu, base, program):
    # What this is about, a thread that the interpreter ends in the midst of Rust, is met in one program of five or so.
    programs = [controller(fake_qemu, base, NOISY + program) for _ in range(10)]
    for process in programs:
        with process:
            said, complaints = process.communicate(timeout=60)
        assert (process.returncode, said, complaints) == (0, "", "")
    eventually(lambda: list(base.iterdir()) == [], "the end of the work folders")


def test_what_is_awaited_while_the_interpreter_ends_is_refused(fake_qemu, base):
    program = """
import asyncio, atexit, sys
def ask(machine):
    try:
        print(asyncio.run(machine.cmd("query-status"))["running"])
    except RuntimeError as error:
        print(error)
late = []
# The last one that is registered is the first one that is called: this one comes behind ratite's own.
atexit.register(lambda: ask(*late))
import ratite.aio
machine = ratite.aio.Machine(sys.argv[1], base_folder=sys.argv[2])
asyncio.run(machine.launch())
late.append(machine)
atexit.register(ask, machine)
"""
    command = [sys.executable, "-W", "error", "-c", program, fake_qemu, str(base)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said, complaints = process.communicate(timeout=60)
    # A coroutine that was refused is one that was awaited.
    assert (process.returncode, complaints) == (0, "")
    assert said == "True\nthe interpreter is ending: nothing can be awaited any more\n"


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_program_that_is_killed_leaves_no_qemu_though_a_forked_child_lives(fake_qemu, base, kind):
    program = """
import time, warnings
warnings.simplefilter("ignore")
child = os.fork()
if child == 0:
    os.close(1); os.close(2)
    sys.stdin.read()
    os._exit(0)
print(machine.pid, child, flush=True)
machine.wait()
"""
    with controller(fake_qemu, base, program) as process:
        qemu, child = map(int, process.stdout.readline().split())
        os.kill(process.pid, kind)
        assert process.wait(timeout=60) == -kind
        eventually(lambda: not runs(qemu), "the end of QEMU")
        eventually(lambda: list(base.iterdir()) == [], "the end of the work folder")
        assert runs(child)
        process.stdin.close()
        eventually(lambda: not runs(child), "the end of the child")
