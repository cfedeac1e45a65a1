"""asyncio: any number of waits at once, cancelling, several loops."""

import asyncio
import gc
import inspect
import threading
import weakref

import pytest

import ratite
import ratite.aio
from conftest import AT_ONCE, begun, eventually, run, runs


@pytest.fixture
def play(fake):
    """Plays a coroutine with a machine that runs."""

    def play(scene, *words, **keywords):
        async def within():
            async with fake(*words, module=ratite.aio, console=True, **keywords) as machine:
                return await scene(machine)

        return run(within())

    return play


async def cancelled(coroutine):
    task = await begun(coroutine)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_conversation_with_a_real_guest(guest):
    async def scene():
        async with guest(module=ratite.aio) as machine:
            assert b"ready" in (await machine.console.expect("> ")).before
            await machine.console.send_line("echo hello")
            await machine.console.expect("hello\r\n> ")
            await machine.cmd("stop")
            assert (await machine.event_wait("STOP"))["event"] == "STOP"
            await machine.cmd("cont")
            await machine.console.write(b"off\n")
            return await machine.wait()

    assert run(scene()).asked == "guest"


def test_both_faces_have_the_same_names_with_the_same_parameters():
    for name in ratite.aio.__all__:
        blocking, awaited = getattr(ratite, name), getattr(ratite.aio, name)
        names = {member for member in dir(blocking) if not member.startswith("_")}
        assert names == {member for member in dir(awaited) if not member.startswith("_")}
        for member in [*names, "__init__"]:
            ours, theirs = getattr(blocking, member), getattr(awaited, member)
            assert isinstance(ours, property) == isinstance(theirs, property), member
            if not isinstance(ours, property):
                assert parameters(ours) == parameters(theirs), f"{name}.{member}"
                assert ours.__doc__ and theirs.__doc__ or member == "__init__", f"{name}.{member} is not described"
    waits = {member for member in dir(ratite.aio.Machine) if inspect.iscoroutinefunction(getattr(ratite.aio.Machine, member))}
    assert waits == {"__aenter__", "__aexit__", "cmd", "event_wait", "freeze", "human_monitor", "kill", "launch", "qmp", "shutdown", "wait"}


def parameters(function):
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


def test_many_commands_at_once_get_their_own_replies(play):
    async def scene(machine):
        return await asyncio.gather(*(machine.cmd("fake-echo", number=number) for number in range(1000)))

    assert play(scene) == [{"number": number} for number in range(1000)]


def test_a_big_reply_comes_whole(play):
    async def scene(machine):
        return await machine.cmd("fake-big", bytes=16 << 20)

    assert play(scene) == "x" * (16 << 20)


def test_cancelling_a_wait_for_an_event_loses_none(play):
    async def scene(machine):
        for number in range(50):
            await cancelled(machine.event_wait("A"))
            waiting = await begun(machine.event_wait("A"))
            await machine.cmd("fake-events", name="A", data={"number": number})
            waiting.cancel()
            try:
                event = await waiting
            except asyncio.CancelledError:
                event = await machine.event_wait("A", timeout=0)
            assert event["data"]["number"] == number
        return machine.events()

    assert play(scene) == []


def test_cancelling_a_listener_loses_no_event(play):
    async def scene(machine):
        listener = machine.listen("A")
        for number in range(50):
            waiting = await begun(listener.next())
            await machine.cmd("fake-events", name="A", data={"number": number})
            waiting.cancel()
            try:
                event = await waiting
            except asyncio.CancelledError:
                event = await listener.next(timeout=0)
            assert event["data"]["number"] == number
        return len(listener)

    assert play(scene) == 0


def test_cancelling_a_wait_for_the_console_loses_no_byte(play):
    async def scene(machine):
        console, got = machine.console, b""
        for number in range(100):
            waits = (console.read, lambda: console.expect(f"<{number}>"), lambda: console.send_echoed(f"<{number}>"))
            waiting = await begun(waits[number % 3]())
            await machine.cmd("fake-console", text=f"<{number}>")
            waiting.cancel()
            try:
                taken = await waiting
                got += taken if isinstance(taken, bytes) else taken.before + taken.matched
            except asyncio.CancelledError:
                pass
        await machine.cmd("fake-console", text="end")
        last = await console.expect("end")
        return got + last.before

    assert play(scene) == b"".join(b"<%d>" % number for number in range(100))


def test_cancelling_a_command_leaves_the_others_intact(play):
    async def scene(machine):
        kept = await begun(machine.cmd("fake-sleep", ms=100))
        for number in range(20):
            await cancelled(machine.cmd("fake-never"))
            assert await machine.cmd("fake-echo", number=number) == {"number": number}
        return await kept

    assert play(scene) is not None


def test_a_wait_for_can_give_up(play):
    async def scene(machine):
        for wait in (machine.event_wait("A"), machine.console.read(), machine.cmd("fake-never"), machine.wait()):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(wait, 0.05)
        return machine.is_running

    assert play(scene) is True


def test_cancelling_a_launch_leaves_nothing(fake):
    async def scene():
        machine = fake("silent", module=ratite.aio)
        await cancelled(machine.launch())
        assert not machine.is_running
        task = await begun(machine.launch())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(task, 0.1)
        machine.args.clear()
        async with machine:
            return await machine.cmd("query-status")

    assert run(scene())["running"]


def test_a_machine_is_launched_once_at_a_time(fake):
    async def scene():
        machine = fake("greeting-delay=100", module=ratite.aio)
        outcomes = await asyncio.gather(*(machine.launch() for _ in range(3)), return_exceptions=True)
        await machine.shutdown()
        return [type(outcome) for outcome in outcomes]

    assert run(scene()) == [ratite.aio.Machine, ratite.Error, ratite.Error]


def test_cancelling_a_shutdown_leaves_the_machine_to_be_shut_down(play):
    async def scene(machine):
        await cancelled(machine.shutdown())
        task = await begun(machine.shutdown())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(task, 0.05)
        return await machine.shutdown()

    assert play(scene, "quit-delay=500").success


def test_cancelling_the_end_of_a_context_ends_the_machine(fake):
    async def scene():
        machine = fake("ignore-quit", "ignore-sigterm", module=ratite.aio)
        entered = asyncio.Event()

        async def body():
            async with machine:
                entered.set()

        task = asyncio.ensure_future(body())
        await entered.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not machine.is_running

    run(scene())


def test_cancelling_the_body_shuts_the_machine_down(fake):
    async def scene():
        machine = fake(module=ratite.aio)
        entered = asyncio.Event()

        async def body():
            async with machine:
                entered.set()
                await machine.cmd("fake-never")

        task = asyncio.ensure_future(body())
        await entered.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return machine.exit

    assert run(scene()).code == 0


def test_the_body_s_error_counts_more_than_an_unclean_end(play):
    async def scene(machine):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        play(scene, "quit-status=3")

    async def well(machine):
        pass

    with pytest.raises(ratite.ShutdownError):
        play(well, "quit-status=3")


def test_the_end_wakes_every_wait(play):
    async def scene(machine):
        waits = [machine.cmd("fake-never"), machine.event_wait("A"), machine.console.expect("A"), machine.qmp("fake-never")]
        tasks = [await begun(wait) for wait in waits]
        await machine.kill()
        return [type(outcome) for outcome in await asyncio.gather(*tasks, return_exceptions=True)]

    exited = ratite.MachineExited
    assert play(scene) == [exited, exited, ratite.ConsoleEnded, exited]


def test_a_limit_that_is_over_is_told_as_it_was_given(play):
    async def scene(machine):
        for wait in (machine.event_wait("A", timeout=0.05), machine.console.read(timeout=0.05), machine.listen().next(timeout=0.05)):
            with pytest.raises(ratite.TimedOut) as raised:
                await wait
            assert raised.value.limit == 0.05
        for limit in (-1, float("nan")):
            with pytest.raises(ValueError, match="timeout takes seconds from 0 on"):
                await machine.event_wait("A", timeout=limit)
        with pytest.raises(TypeError, match="timeout takes seconds"):
            await machine.console.expect("A", timeout=None)

    play(scene)


def test_reads_take_no_more_than_asked_for(play):
    async def scene(machine):
        await machine.cmd("fake-console", text="0123456789")
        assert (await machine.console.expect("01")).matched == b"01"
        assert await machine.console.read(3) == b"234" and machine.console.take(2) == b"56"
        assert await machine.console.read() == b"789" and await machine.console.read(0) == b""
        await machine.shutdown()
        assert await machine.console.read() == b"" and machine.console.has_ended

    play(scene)


def test_a_listener_is_iterated_until_the_end(play):
    async def scene(machine):
        listener = machine.listen("A")
        await machine.cmd("fake-events", name="A", count=3)
        await machine.shutdown()
        return [event["data"]["seq"] async for event in listener]

    assert play(scene) == [0, 1, 2]


def test_a_listener_says_once_that_it_was_read_too_slowly(play):
    async def scene(machine):
        listener = machine.listen("A")
        await machine.cmd("fake-events", name="A", count=16384 + 1)
        with pytest.raises(ratite.Lagged):
            await listener.next()
        return (await listener.next())["data"]["seq"]

    assert play(scene) == 1


def test_qtest_is_awaited(play):
    async def scene(machine):
        assert await machine.qtest.command("writel 0x1000 5") == ""
        assert (await machine.qtest.raw("readl 0x1000")).startswith("OK")
        await machine.qtest.wait_irq(8, True)
        return machine.qtest.irqs

    assert play(scene, "qtest-irq", qtest=True) == {8: True}


def test_two_loops_in_two_threads_share_a_machine(fake):
    machine = fake(module=ratite.aio)
    run(machine.launch())
    outcomes = []

    async def ask(first):
        return [(await machine.cmd("fake-echo", number=number))["number"] for number in range(first, first + 200)]

    threads = [threading.Thread(target=lambda first=first: outcomes.append(run(ask(first)))) for first in (0, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == [list(range(200)), list(range(1000, 1200))]
    assert run(machine.shutdown()).success


def test_a_machine_outlives_the_loop_that_launched_it(fake):
    machine = fake(module=ratite.aio, console=True)
    run(machine.launch())
    assert run(machine.cmd("query-status"))["running"]
    run(machine.cmd("fake-events", name="A"))
    assert run(machine.event_wait("A"))["event"] == "A"
    assert run(machine.shutdown()).success


def test_a_loop_that_closes_with_a_wait_pending_harms_nothing(fake, capfd):
    machine = fake(module=ratite.aio, console=True)
    run(machine.launch())
    loop = asyncio.new_event_loop()
    task = loop.create_task(machine.event_wait("A"))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    run(machine.cmd("fake-events", name="A"))

    assert run(machine.event_wait("A"))["event"] == "A"
    assert run(machine.shutdown()).success
    # What asyncio itself says of a task that is dropped unfinished is asyncio's.
    task._log_destroy_pending = False
    task.get_coro().close()
    del task
    gc.collect()
    assert capfd.readouterr().err == ""


def test_a_wait_begins_with_its_loop(fake):
    async def scene():
        pid = None
        async with fake(module=ratite.aio) as machine:
            pid = machine.pid
            wait = machine._machine.send("query-status", None, False, [], None)
            assert "running" in await wait
            with pytest.raises(RuntimeError, match="waited for already"):
                await wait
        return pid

    assert not runs(run(scene()))


def test_an_async_machine_that_nobody_ends_is_ended(fake):
    async def scene():
        machine = await fake(module=ratite.aio).launch()
        return await asyncio.wait_for(machine.cmd("query-status"), AT_ONCE)

    assert run(scene())["running"]


def test_what_ends_a_machine_goes_on_while_the_loop_computes(fake):
    async def scene():
        machine = await fake("ignore-quit", "ignore-sigterm", module=ratite.aio).launch()
        pid = machine.pid
        task = await begun(machine.shutdown(0.05))
        # Nothing of asyncio runs meanwhile.
        eventually(lambda: not runs(pid), "the end of the process")
        with pytest.raises(ratite.ShutdownError):
            await task

    run(scene())


def test_a_wait_of_a_loop_that_is_gone_is_collected(fake):
    with fake() as machine:
        same = ratite.aio.Machine("fake")
        same._machine = machine._machine
        loop = asyncio.new_event_loop()
        task = loop.create_task(same.event_wait("A"))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        task._log_destroy_pending = False
        collected = weakref.ref(task)
        del task, loop
        gc.collect()
        assert collected() is None
        # Nobody waits for it any more.
        machine.cmd("fake-events", name="A")
        assert machine.event_wait("A")["event"] == "A"


def test_what_is_there_is_had_without_a_turn_of_the_loop(play):
    async def scene(machine):
        await machine.cmd("fake-events", name="A", count=3)
        wait = machine._machine.event_ready([("A", None)], 0.0).__await__()
        with pytest.raises(StopIteration):
            next(wait)
        return [(await machine.event_wait("A"))["data"]["seq"] for _ in range(3)]

    assert play(scene) == [0, 1, 2]
