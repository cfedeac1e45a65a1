"""Processes that were forked off: they have a copy of a machine that leads nowhere, and may launch their own."""

import gc
import multiprocessing
import os
import pickle
import sys

import pytest

import ratite
from conftest import in_a_child, runs

# What it warns of is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_the_child_is_told_and_the_parent_goes_on(fake):
    with fake(console=True, qtest=True) as machine:
        console, qtest, listener = machine.console, machine.qtest, machine.listen()
        operations = [
            machine.launch,
            machine.shutdown,
            machine.kill,
            machine.freeze,
            machine.wait,
            machine.events,
            machine.event_wait,
            machine.listen,
            lambda: machine.__exit__(None, None, None),
            lambda: machine.cmd("quit"),
            lambda: machine.qmp("quit"),
            *(
                (lambda name: lambda: getattr(machine, name))(name)
                for name in dir(ratite.Machine)
                if isinstance(getattr(ratite.Machine, name), property) and not name.startswith("_")
            ),
            console.read,
            console.take,
            console.tail,
            lambda: console.expect("x"),
            lambda: console.write(b"x"),
            lambda: console.send_line("x"),
            lambda: console.has_ended,
            lambda: console.log_fault,
            listener.next,
            listener.take_all,
            lambda: len(listener),
            lambda: listener.dropped,
            lambda: next(iter(listener)),
            lambda: qtest.command("endianness"),
            lambda: qtest.raw("endianness"),
            lambda: qtest.irqs,
            lambda: qtest.wait_irq(1, True),
        ]

        def body():
            for number, operation in enumerate(operations):
                try:
                    operation()
                except ratite.ForkedError as error:
                    assert str(os.getppid()) in str(error)
                else:
                    raise AssertionError(f"operation {number} was done")
            assert "another process has it" in repr(machine)

        in_a_child(body)
        assert machine.cmd("query-status")["running"] and os.path.isdir(machine.work_folder)


def test_the_end_of_a_child_does_not_end_the_machine(fake):
    with fake(console=True) as machine:
        console = machine.console

        def body():
            nonlocal machine, console
            del machine, console
            gc.collect()

        in_a_child(body)
        assert machine.is_running and machine.cmd("query-status")["running"]
        assert os.path.isdir(machine.work_folder)


def test_a_child_that_exits_as_python_does_harms_nothing(fake):
    with fake() as machine:
        child = os.fork()
        if child == 0:
            # Without `os._exit`, whatever this interpreter has at its exit would run: the report of pytest.
            try:
                os.execv(sys.executable, [sys.executable, "-c", ""])
            finally:
                os._exit(1)
        os.waitpid(child, 0)
        assert machine.cmd("query-status")["running"]


def test_the_body_s_error_counts_in_a_child_too(fake):
    with fake() as machine:

        def body():
            with pytest.raises(ZeroDivisionError):
                with Body(machine):
                    raise ZeroDivisionError

        in_a_child(body)
        assert machine.is_running


class Body:
    """The end of a context that began in the parent."""

    def __init__(self, machine):
        self.machine = machine

    def __enter__(self):
        return self.machine

    def __exit__(self, *error):
        return self.machine.__exit__(*error)


def test_a_child_launches_machines_of_its_own(fake):
    with fake() as machine:
        pid = machine.pid

        def body():
            with fake(console=True) as own:
                own.cmd("fake-console", text="own")
                assert own.console.expect("own") and own.pid != pid

        in_a_child(body)
        assert machine.cmd("query-status")["running"]


def test_a_description_is_launched_on_both_sides(fake):
    machine = fake()

    def body():
        with machine:
            assert machine.cmd("query-status")["running"]

    in_a_child(body)
    body()


def test_a_wait_that_was_not_begun_belongs_to_its_process(fake):
    with fake() as machine:
        pending = machine._machine.send("query-status", None, False, [], None)

        def body():
            with pytest.raises(ratite.ForkedError):
                pending.wait()

        in_a_child(body)
        assert "running" in pending.wait()


def play(fake_qemu, base, number):
    """What a worker does."""
    with ratite.Machine(fake_qemu, base_folder=base) as machine:
        return machine.cmd("fake-echo", number=number)["number"], machine.pid, machine.shutdown()


def fail(fake_qemu, base):
    ratite.Machine(fake_qemu, "-fake", "stderr=last words", "-fake", "exit-before-monitor=3", base_folder=base).launch()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_play_with_machines_of_their_own(fake_qemu, base, method):
    context = multiprocessing.get_context(method)
    with ratite.Machine(fake_qemu, base_folder=base) as machine:
        with context.Pool(2) as pool:
            played = pool.starmap(play, [(fake_qemu, str(base), number) for number in range(6)])
            pool.close()
            pool.join()
        assert [number for number, _, _ in played] == list(range(6))
        assert all(exit.success and exit.asked == "us" for _, _, exit in played)
        assert not any(runs(pid) for _, pid, _ in played)
        assert machine.cmd("query-status")["running"]


def test_an_error_comes_through_from_a_worker_with_its_evidence(fake_qemu, base):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with pytest.raises(ratite.LaunchError) as raised:
            pool.apply(fail, (fake_qemu, str(base)))
        pool.close()
        pool.join()
    assert raised.value.kind == "exited" and raised.value.exit.code == 3 and "last words" in raised.value.output

def test_what_a_machine_tells_can_be_pickled(fake, guest):
    machine = fake("quit-status=3").launch()
    with pytest.raises(ratite.ShutdownError) as raised:
        machine.shutdown()
    again = pickle.loads(pickle.dumps(raised.value))
    assert type(again) is ratite.ShutdownError and again.exit == raised.value.exit and str(again) == str(raised.value)
    assert again.exit.status == raised.value.exit.status and hash(again.exit.status) == hash(raised.value.exit.status)

    with guest() as machine:
        match = machine.console.expect("> ")
    assert pickle.loads(pickle.dumps(match)) == match

    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(machine)
    assert pickle.loads(pickle.dumps(ratite.Machine("q", "-S"))).args == ["-S"]
