"""Many threads, one machine; many machines, many threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import ratite


def test_a_wait_lets_other_threads_run(fake):
    with fake(console=True) as machine:
        counted = []

        def count():
            counted.extend(range(100_000))
            machine.cmd("fake-events", name="COUNTED")

        # Given the GIL by nobody, this thread would never send what is waited for.
        thread = threading.Thread(target=count)
        thread.start()
        machine.event_wait("COUNTED")
        thread.join()
        assert len(counted) == 100_000


@pytest.mark.parametrize("wait", ["cmd", "expect", "read", "next", "launch", "shutdown"])
def test_every_wait_releases_the_interpreter(fake, wait):
    go = threading.Event()
    with fake(console=True) as machine:
        listener = machine.listen("GO")

        def push():
            go.wait()
            machine.cmd("fake-console", text="GO")
            machine.cmd("fake-events", name="GO")

        thread = threading.Thread(target=push)
        thread.start()
        go.set()
        if wait == "cmd":
            machine.cmd("fake-sleep", ms=100)
        elif wait == "expect":
            machine.console.expect("GO")
        elif wait == "read":
            machine.console.read()
        elif wait == "next":
            listener.next()
        elif wait == "launch":
            fake("greeting-delay=100").launch().kill()
        elif wait == "shutdown":
            fake("quit-delay=100").launch().shutdown()
        thread.join()


def test_commands_of_many_threads_get_their_own_replies(fake):
    with fake() as machine:

        def ask(number):
            return machine.cmd("fake-echo", number=number)["number"]

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(ask, range(800))) == list(range(800))


def test_each_event_goes_to_one_of_many_threads(fake):
    with fake() as machine:

        def take(_):
            return machine.event_wait("A")["data"]["seq"]

        with ThreadPoolExecutor(8) as pool:
            taken = pool.map(take, range(200))
            machine.cmd("fake-events", name="A", count=200)
            assert sorted(taken) == list(range(200))


def test_threads_that_expect_share_a_console(fake):
    with fake(console=True) as machine:

        def expect(_):
            return machine.console.expect("GO").matched

        with ThreadPoolExecutor(8) as pool:
            found = [pool.submit(expect, number) for number in range(8)]
            machine.cmd("fake-console", text="GO" * 8)
            assert [match.result() for match in found] == [b"GO"] * 8


def test_the_end_wakes_every_thread(fake):
    machine = fake(console=True).launch()

    def wait(how):
        with pytest.raises((ratite.MachineExited, ratite.ConsoleEnded)):
            how()
        return True

    with ThreadPoolExecutor(8) as pool:
        waits = [lambda: machine.cmd("fake-never"), lambda: machine.event_wait("A"), lambda: machine.console.expect("A")]
        woken = [pool.submit(wait, how) for how in waits]
        machine.kill()
        assert all(wait.result() for wait in woken)


def test_every_thread_gets_the_same_exit(fake):
    machine = fake().launch()
    with ThreadPoolExecutor(8) as pool:
        exits = list(pool.map(lambda _: machine.shutdown(), range(16)))
    assert all(exit == exits[0] for exit in exits)


def test_machines_are_launched_by_many_threads_at_once(fake):
    def play(number):
        with fake(name=f"machine-{number}") as machine:
            return machine.cmd("fake-echo", number=number)["number"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(play, range(24))) == list(range(24))


def test_a_machine_is_launched_by_one_thread_alone(fake):
    machine, refused = fake("greeting-delay=200"), []

    def launch(_):
        try:
            machine.launch()
        except ratite.Error as error:
            refused.append(str(error))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(launch, range(4)))

    assert len(refused) == 3 and all("already" in error for error in refused)
    assert machine.shutdown().success
