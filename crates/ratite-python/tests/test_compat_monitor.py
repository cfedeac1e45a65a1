"""The drop-in's monitor: commands, events, and what an event has to contain."""

import asyncio
import json
import logging
import math
import os
import signal
import threading
import time

import pytest
from compat import empty, faked  # noqa: F401
from conftest import AT_ONCE, eventually

from qemu.machine import QEMUMachine
from qemu.machine.machine import QEMUMachineError
from qemu.qmp import QMPError
from qemu.qmp.protocol import Runstate, StateError
from qemu.qmp.qmp_client import ExecInterruptedError, ExecuteError
from ratite.compat._monitor import Monitor


@pytest.fixture
def vm(faked):  # noqa: F811
    vm = faked()
    vm.launch()
    return vm


def tell(vm, name, **data):
    """Has the fake send an event."""
    vm.cmd("fake-events", {"count": 1, "name": name, "data": data})


# Commands.


def test_a_reply_is_whole_and_a_value_is_its_return(vm):
    assert vm.qmp("query-status")["return"] == vm.cmd("query-status") == vm.command("query-status")
    assert list(vm.qmp("query-status")) == ["return"]


def test_a_refusal_is_a_reply_or_an_error(vm):
    reply = vm.qmp("nonsense")
    with pytest.raises(ExecuteError) as caught:
        vm.cmd("nonsense", a_b=1)

    assert list(reply) == ["error"] and reply["error"]["class"] == "CommandNotFound"
    error = caught.value
    assert str(error) == error.error.error.desc == reply["error"]["desc"] and error.error_class == "CommandNotFound"
    assert dict(error.sent) == {"execute": "nonsense", "arguments": {"a-b": 1}}
    assert "id" not in error.received


def test_keywords_lose_their_underscores_and_objects_do_not(vm):
    def arguments(**keywords):
        with pytest.raises(ExecuteError) as caught:
            vm.cmd("nonsense", **keywords)
        return caught.value.sent["arguments"]

    assert arguments(a_b={"c_d": 1}) == {"a-b": {"c_d": 1}}
    assert arguments(conv_keys=False, a_b=1) == {"a_b": 1}
    assert arguments(args_dict={"a_b": 1}) == {"a_b": 1}
    # D-42
    assert arguments(cmd=1, self=2) == {"cmd": 1, "self": 2}


@pytest.mark.parametrize("more", [{"conv_keys": True}, {"a": 1}])
def test_an_object_cannot_be_combined(vm, more):
    with pytest.raises(AssertionError):
        vm.qmp("query-status", {"a": 1}, **more)


def test_the_old_command_takes_its_second_argument(vm):
    with pytest.raises(ExecuteError) as caught:
        vm.command("nonsense", False, a_b=1)

    assert caught.value.sent["arguments"] == {"a_b": 1}


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", b"bytes", {1, 2}])
def test_what_json_does_not_have_is_refused_and_nothing_is_sent(vm, value):
    # D-43
    with pytest.raises((TypeError, ValueError)):
        vm.cmd("nonsense", value=value)

    assert vm.cmd("query-status")


def test_a_command_has_a_limit_and_a_late_reply_is_nobodys(faked):
    # D-01, D-36
    vm = faked("never-answer=query-name")
    vm.launch()
    vm._qmp.settimeout(0.2)

    with pytest.raises(asyncio.TimeoutError):
        vm.qmp("query-name")

    vm._qmp.settimeout(None)
    assert "running" in vm.cmd("query-status")


def test_a_signal_handler_ends_a_command(faked):
    # D-36
    vm = faked("never-answer=query-name")
    vm.launch()

    def over(*_):
        raise ZeroDivisionError

    old = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with pytest.raises(ZeroDivisionError):
        vm.cmd("query-name")
    signal.signal(signal.SIGALRM, old)

    assert vm.cmd("query-status")


def test_threads_share_a_machine(vm):
    # D-47
    wrong = []

    def ask(number):
        for turn in range(20):
            asked = {"number": number, "turn": turn}
            if vm.cmd("fake-echo", asked) != asked:
                wrong.append(asked)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_a_running_event_loop_is_no_matter(faked):
    # D-47
    async def everything():
        vm = faked()
        vm.launch()
        assert vm.cmd("query-status")
        vm.shutdown()

    asyncio.run(everything())


def test_the_end_of_qemu_ends_a_command_and_refuses_the_next(faked):
    vm = faked("exit-on=stop")
    vm.launch()

    with pytest.raises(ExecInterruptedError, match="^Disconnected"):
        vm.cmd("stop")
    with pytest.raises(StateError) as caught:
        vm.cmd("query-status")

    assert (caught.value.state, caught.value.required) == (Runstate.DISCONNECTING, Runstate.RUNNING)
    vm.wait()
    with pytest.raises(QEMUMachineError, match="Attempt to access QMP with no connection"):
        vm.cmd("query-status")


def test_messages_are_shown_to_the_original_logger(faked, caplog):
    caplog.set_level(logging.DEBUG, "qemu.qmp.qmp_client")
    vm = faked(name="m")
    vm.launch()

    vm.cmd("query-status")

    shown = [record for record in caplog.records if record.name == "qemu.qmp.qmp_client.m"]
    assert shown[0].getMessage().startswith("--> {") and shown[1].getMessage().startswith("<-- {")


def test_the_monitor_serves_both_generations(vm):
    monitor = vm._qmp

    assert monitor.cmd_raw("query-status") == {"return": monitor.cmd("query-status")}
    assert monitor.command("query-status") == monitor.cmd("query-status")
    assert monitor.cmd_obj({"execute": "query-status", "id": "x"})["id"] == "x"
    assert "id" not in monitor.cmd_obj({"exec-oob": "query-status"})
    with pytest.raises(ValueError):
        monitor.cmd_obj({"arguments": {}})


# Descriptors.


def test_a_descriptor_is_sent_with_the_next_command(empty, tmp_path):  # noqa: F811
    vm = empty()
    vm.launch()
    (tmp_path / "file").write_text("x")

    assert vm.send_fd_scm(file_path=str(tmp_path / "file")) == 0
    vm.cmd("getfd", fdname="a")
    reader, writer = os.pipe()
    vm.send_fd_scm(fd=reader)
    vm.cmd("getfd", fdname="b")

    vm.cmd("closefd", fdname="a")
    vm.cmd("closefd", fdname="b")
    os.close(reader)
    os.close(writer)


def test_a_descriptor_that_cannot_be_sent_is_refused(faked, vm):
    with pytest.raises(AssertionError):
        vm.send_fd_scm()
    with pytest.raises(AssertionError):
        vm.send_fd_scm(fd=0, file_path="/dev/null")
    with pytest.raises(OSError):
        vm.send_fd_scm(fd=1 << 20)
    over_tcp = faked(monitor_address=("127.0.0.1", 0))
    over_tcp.launch()
    with pytest.raises(QMPError):
        over_tcp.send_fd_scm(fd=0)
    vm._popen.kill()
    eventually(lambda: not vm._qmp.is_alive, "the end of the session")
    with pytest.raises(BrokenPipeError):
        vm.send_fd_scm(fd=0)


def test_a_descriptor_that_was_not_fetched_is_closed(vm):
    reader, writer = os.pipe()
    vm.send_fd_scm(fd=reader)
    vm.send_fd_scm(fd=reader)
    os.close(reader)

    vm.shutdown()

    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")
    os.close(writer)


# Events.


def test_events_come_in_their_order_and_stay_when_they_are_passed_over(vm):
    # D-38
    for name in "ABCDE":
        tell(vm, name)

    assert vm.event_wait("C")["event"] == "C"
    assert [event["event"] for event in vm.get_qmp_events()] == ["A", "B", "D", "E"]
    assert vm.get_qmp_events() == []


def test_one_event_is_taken_after_the_other(vm):
    tell(vm, "A")
    tell(vm, "B")

    assert vm.get_qmp_event(wait=True)["event"] == "A"
    assert vm.get_qmp_event(wait=1)["event"] == "B"
    assert vm.get_qmp_event() is None


def test_the_first_that_any_pair_wants_is_taken(vm):
    tell(vm, "A", x=1)
    tell(vm, "B", x=2)

    found = vm.events_wait([("B", None), ("A", {"data": {"x": 2}}), ("A", {"data": {"x": 1}})])

    assert found["event"] == "A" and {"event", "data", "timestamp"} <= set(found)


@pytest.mark.parametrize("wait", [False, 0, 0.0, None, ""])
def test_no_wait_is_none(vm, wait):
    assert vm.get_qmp_event(wait) is None
    assert vm.get_qmp_events(wait) == []
    assert vm.events_wait([("A", None)], wait) is None


@pytest.mark.parametrize("wait", [0.2, -1, math.nan])
def test_a_wait_has_an_end(vm, wait):
    for waiting in (
        lambda: vm.get_qmp_event(wait),
        lambda: vm.get_qmp_events(wait),
        lambda: vm.event_wait("A", wait),
        lambda: vm.events_wait([], wait),
    ):
        start = time.monotonic()
        with pytest.raises(asyncio.TimeoutError):
            waiting()
        assert time.monotonic() - start < AT_ONCE


def test_a_whole_number_is_a_limit_too(vm):
    # D-21
    start = time.monotonic()

    with pytest.raises(asyncio.TimeoutError):
        vm.event_wait("A", timeout=1)

    assert 0.9 < time.monotonic() - start < AT_ONCE


def test_the_limit_is_for_the_whole_wait(faked):
    # D-18
    vm = faked("event-flood=0")
    vm.launch()
    start = time.monotonic()

    with pytest.raises(asyncio.TimeoutError):
        vm.event_wait("A", timeout=0.5)

    assert time.monotonic() - start < AT_ONCE


def test_the_end_of_qemu_ends_a_wait_and_is_told(faked):
    # D-18
    vm = faked("exit-after=300")
    vm.launch()
    start = time.monotonic()

    with pytest.raises(ExecInterruptedError):
        vm.event_wait("A", timeout=60)

    assert time.monotonic() - start < AT_ONCE


def test_what_came_before_the_end_is_still_delivered(vm):
    tell(vm, "A")
    tell(vm, "B")
    vm.cmd("quit")
    vm._popen.wait()

    assert vm.event_wait("B")["event"] == "B"
    vm.shutdown()
    assert vm.events_wait([("A", None)])["event"] == "A"
    assert {event["event"] for event in vm.get_qmp_events(wait=True)} == {"SHUTDOWN"}
    with pytest.raises(QEMUMachineError):
        vm.get_qmp_event()


def test_a_new_run_has_no_old_events(vm):
    # D-40
    tell(vm, "A")
    vm.shutdown()

    vm.launch()

    assert vm.get_qmp_events() == []


def test_an_interrupted_wait_loses_no_event(vm):
    # D-57
    def over(*_):
        raise ZeroDivisionError

    old = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with pytest.raises(ZeroDivisionError):
        vm.event_wait("A")
    signal.signal(signal.SIGALRM, old)
    tell(vm, "A")

    assert vm.event_wait("A")


def test_two_threads_wait_for_their_own(vm):
    found = {}
    threads = [
        threading.Thread(target=lambda name=name: found.update({name: vm.event_wait(name)["event"]})) for name in "AB"
    ]
    for thread in threads:
        thread.start()
    tell(vm, "B")
    tell(vm, "A")
    for thread in threads:
        thread.join()

    assert found == {"A": "A", "B": "B"}


def test_a_machine_answers_events_while_it_is_waited_for(faked):
    # D-35
    vm = faked("guest-shutdown-after=300")
    vm.launch()

    vm.wait()

    assert vm.event_wait("SHUTDOWN")["data"]["reason"] == "guest-shutdown"


MATCHES = [
    (5, None, True),
    ({"foo": {"bar": 1}}, {"foo": None}, True),
    ({"foo": None}, {"foo": None}, True),
    ({}, {"foo": None}, False),
    ({"foo": {"bar": 1}}, {"foo": {"abc": None}}, False),
    ({"foo": {"bar": 1, "rab": 2}}, {"foo": {"rab": 2}}, True),
    ({"data": {"device": "d0", "len": 3}}, {"data": {"device": "d0"}}, True),
    ({"event": "E"}, {"data": {"device": "d0"}}, False),
    ({"a": 5}, {}, True),
    ({"a": 5}, {"a": {}}, True),
    ({"a": 5}, {"a": []}, False),
    ({"a": "x"}, {"a": ""}, False),
    ({"a": "abc"}, {"a": "abc"}, True),
    ({"a": "abcd"}, {"a": "abc"}, False),
    ({"a": 5}, {"a": "5"}, False),
    ({"a": 1}, {"a": 1.0}, True),
    ({"a": 1}, {"a": True}, False),
    ({"a": True}, {"a": True}, True),
    ({"a": [1, 2]}, {"a": [1, 2]}, True),
    ({"a": [1]}, {"a": [1]}, True),
    ({"a": [0, 1]}, {"a": [0]}, False),
    ({"a": [0]}, {"a": [0, 0]}, False),
    ({"a": [0, 1]}, {"a": [1, 0]}, False),
    ({"a": ["x", "y"]}, {"a": ["x"]}, False),
    ({"a": [{"b": 1}]}, {"a": [{"b": 1}]}, True),
    ({"a": [{"b": 1}]}, {"a": [{"b": None}]}, False),
    ({"a": "xyz"}, {"a": {"x": None}}, False),
    ({"a": None}, {"a": 5}, False),
    ({"a": None}, {"a": {"x": 1}}, False),
    ({"a": {"x": 1}}, {"a": ["x"]}, False),
]


@pytest.mark.parametrize("event, match, expected", MATCHES, ids=lambda value: json.dumps(value))
def test_a_match_asks_for_objects_in_part_and_for_the_rest_exactly(event, match, expected):
    # D-37
    assert QEMUMachine.event_match(event, match) is expected


def test_waits_match_as_the_public_function_does(vm):
    cases = [case for case in MATCHES if isinstance(case[0], dict) and "event" not in case[0]]
    for number, (event, match, expected) in enumerate(cases):
        tell(vm, f"E{number}", **event)
        taken = vm.event_wait(f"E{number}", timeout=0, match={"data": match})
        assert (taken is not None) is expected, (event, match)


def test_a_monitor_can_stand_alone(tmp_path):
    where = str(tmp_path / "sock")
    server = Monitor(where, server=True)
    with pytest.raises(asyncio.TimeoutError):
        server.accept(timeout=0.1)
    with pytest.raises(StateError):
        server.accept()
    with pytest.raises(StateError):
        server.cmd("query-status")
    server.close()
    server.close()
    assert not os.path.exists(where)
