"""How sessions of the drop-in `QEMUMonitorProtocol` end; its events, addresses, threads and logs."""

import asyncio
import errno
import gc
import json
import logging
import os
import socket
import threading
import time

import pytest
from compat_front import at_once, background, qemu_at, session
from compat_peer import GREETING, Peer, blocking_session
from conftest import PATIENCE, eventually

from qemu.qmp import ExecInterruptedError, QMPError, StateError
from qemu.qmp.legacy import QEMUMonitorProtocol, QMPBadPortError
from qemu.qmp.message import DeserializationError


# the end


def test_a_hang_up_interrupts_and_is_delivered_by_close(session, background):
    with session() as (monitor, peer):

        def hang_up():
            peer.hear()
            peer.close()

        background.submit(hang_up)
        with pytest.raises(ExecInterruptedError, match="Disconnected"):
            monitor.cmd("x")
        with pytest.raises(StateError, match="QMPClient is disconnecting."):
            monitor.cmd("x")
        with pytest.raises(EOFError):
            monitor.close()
        monitor.close()


def test_a_hang_up_that_no_call_met_with_is_not_delivered(session, background):
    with session() as (monitor, peer):
        peer.say({"event": "SHUTDOWN"})
        peer.close()
        assert monitor.pull_event(wait=PATIENCE) == {"event": "SHUTDOWN"}
        monitor.close()


def test_a_message_that_is_none_is_delivered_by_close(session):
    with session() as (monitor, peer):
        peer.raw(b"nonsense\n")
        with pytest.raises(ExecInterruptedError):
            monitor.pull_event(wait=True)
        with pytest.raises(DeserializationError, match="nonsense"):
            monitor.close()


def test_d29_what_the_body_raises_counts_more(session, background):
    with session() as (monitor, peer):
        with pytest.raises(ExecInterruptedError), monitor:
            peer.close()
            monitor.cmd("x")


def test_qc26_one_that_was_not_closed_is_closed_and_told(background, caplog):
    ours, theirs = socket.socketpair()
    peer, monitor = Peer(theirs), QEMUMonitorProtocol(ours, nickname="lost")
    background.submit(peer.greet)
    monitor.connect()
    with caplog.at_level(logging.WARNING):
        del monitor
        gc.collect()

    assert [record.name for record in caplog.records] == ["qemu.qmp.qmp_client.lost"]
    assert "without a prior call to close()" in caplog.text
    assert peer.is_hung_up()
    peer.close()


def test_it_connects_again(background, tmp_path):
    path = str(tmp_path / "at")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    monitor = QEMUMonitorProtocol(path)

    def serve():
        peer = Peer(listening.accept()[0])
        peer.greet()
        peer.say({"event": "HELLO"})
        peer.answer({})
        peer.close()

    for _ in range(2):
        served = background.submit(serve)
        monitor.connect()
        monitor.cmd("x")
        # D-40: not those of the session before.
        assert monitor.get_events() == [{"event": "HELLO"}]
        served.result()
        monitor.close()
    listening.close()


# events


def test_events_in_their_order(session):
    with session() as (monitor, peer):
        assert monitor.pull_event() is None
        assert monitor.get_events() == []
        peer.say({"event": "A"}, {"event": "B"}, {"event": "C"})
        assert monitor.pull_event(wait=True)["event"] == "A"
        eventually(lambda: len(monitor._monitor_events) == 2)
        assert [event["event"] for event in monitor.get_events(wait=True)] == ["B", "C"]
        peer.say({"event": "D"})
        eventually(lambda: len(monitor._monitor_events) == 1)
        monitor.clear_events()
        assert monitor.get_events() == []


@pytest.mark.parametrize("wait", [0.05, -1.0, float("nan")])
def test_ev3_a_wait_ends_at_its_limit(session, wait):
    with session() as (monitor, peer):
        for call in (monitor.pull_event, monitor.get_events):
            begun = time.monotonic()
            with pytest.raises(asyncio.TimeoutError):
                call(wait=wait)
            at_once(begun)


def test_d21_whole_seconds_are_seconds(session):
    with session() as (monitor, peer):
        begun = time.monotonic()
        with pytest.raises(asyncio.TimeoutError):
            monitor.pull_event(wait=1)
        at_once(begun)
        for nothing in (False, 0, 0.0, None):
            assert monitor.pull_event(wait=nothing) is None
            assert monitor.get_events(wait=nothing) == []


def test_d18_the_end_wakes_who_waits_for_events(session, background):
    with session() as (monitor, peer):
        waiting = background.submit(monitor.pull_event, True)
        peer.say({"event": "LAST"})
        assert waiting.result(PATIENCE) == {"event": "LAST"}
        waiting = background.submit(monitor.get_events, 1000)
        peer.close()
        with pytest.raises(ExecInterruptedError, match="Disconnected"):
            waiting.result(PATIENCE)
        assert monitor.pull_event() is None


def test_events_can_be_taken_after_the_end(session):
    with session() as (monitor, peer):
        peer.say({"event": "E"})
        eventually(lambda: len(monitor._monitor_events) == 1)
        monitor.close()
        assert monitor.get_events() == [{"event": "E"}]


# QC-25: addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host:5", ("host", 5)),
        ("tcp:host:5", ("host", 5)),
        ("[::1]:5", ("::1", 5)),
        ("/a/path", "/a/path"),
        ("relative", "relative"),
        ("unix:/a/path", "/a/path"),
        ("a:b:c", "a:b:c"),
        ("/with:5:colons", "/with:5:colons"),
    ],
)
def test_qc25_d46_addresses(text, address):
    assert QEMUMonitorProtocol.parse_address(text) == address


@pytest.mark.parametrize("text", ["host:abc", "h:-1", "h:1_0", "h:99999", "h: 5", "h:", "[::1]:x", "fd:x", "fd:"])
def test_qc25_d46_bad_ports(text):
    with pytest.raises(QMPBadPortError) as bad:
        QEMUMonitorProtocol.parse_address(text)
    assert isinstance(bad.value, QMPError)
    if text == "host:abc":
        assert str(bad.value) == "Bad port: 'abc' in 'host:abc'."


def test_d46_a_descriptor_is_an_address(background):
    ours, theirs = socket.socketpair()
    monitor = QEMUMonitorProtocol(QEMUMonitorProtocol.parse_address(f"fd:{ours.fileno()}"))
    peer = Peer(theirs)
    background.submit(peer.greet)
    assert monitor.connect() == GREETING
    monitor.close()
    assert ours.fileno() >= 0
    ours.close()
    peer.close()


# QC-27: threads and loops


def test_d47_it_works_inside_a_running_loop(session, background):
    with session() as (monitor, peer):

        async def inside():
            background.submit(peer.answer, 1)
            assert monitor.cmd("x") == 1
            with pytest.raises(asyncio.TimeoutError):
                monitor.pull_event(wait=0.01)

        asyncio.run(inside())


def test_d47_threads_have_their_own_replies(session, background):
    with session() as (monitor, peer):

        def serve():
            for _ in range(200):
                heard = peer.hear()
                peer.say({"return": heard["arguments"], "id": heard["id"]})

        served = background.submit(serve)
        wrong = []

        def ask(thread):
            for number in range(25):
                if monitor.cmd("x", thread=thread, number=number) != {"thread": thread, "number": number}:
                    wrong.append((thread, number))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        served.result()

        assert wrong == []


def test_a_close_interrupts_another_threads_command(session, background):
    with session() as (monitor, peer):
        waiting = background.submit(monitor.cmd, "x")
        peer.hear()
        monitor.close()
        with pytest.raises(ExecInterruptedError):
            waiting.result(PATIENCE)


def test_a_forked_child_leaves_the_session_alone(session, background):
    with session() as (monitor, peer):
        child = os.fork()
        if child == 0:
            try:
                monitor.close()
                os._exit(0)
            except BaseException:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        background.submit(peer.answer, 1)
        assert monitor.cmd("x") == 1


# descriptors, logs, the real QEMU


def test_qmp12_a_descriptor_goes_with_the_next_command(session, background):
    with session() as (monitor, peer):
        with open("/dev/null") as file:
            monitor.send_fd_scm(file.fileno())
        with pytest.raises(OSError) as bad:
            monitor.send_fd_scm(10**6)
        assert bad.value.errno == errno.EBADF

        def receive():
            data, fds, _, _ = socket.recv_fds(peer.end, 65536, 4)
            peer.say({"return": {}, "id": json.loads(data)["id"]})
            return fds

        received = background.submit(receive)
        monitor.cmd("getfd", fdname="x")
        (fd,) = received.result()
        assert os.readlink(f"/proc/self/fd/{fd}") == "/dev/null"
        os.close(fd)
        peer.close()
        eventually(lambda: monitor._monitor_session.ended is not None)
        with pytest.raises(BrokenPipeError):
            monitor.send_fd_scm(0)


def test_qc23_the_log(background, caplog):
    with caplog.at_level(logging.DEBUG, "qemu.qmp"), blocking_session(background, nickname="n") as (monitor, peer):
        background.submit(peer.answer, 1)
        monitor.cmd_raw("x")

    lines = [record.getMessage() for record in caplog.records if record.name == "qemu.qmp.qmp_client.n"]
    assert lines[-2:] == ['--> {\n  "execute": "x"\n}', '<-- {\n  "return": 1\n}']


def test_the_real_qemu(qemu_at, tmp_path):
    path = str(tmp_path / "qmp")
    with QEMUMonitorProtocol(path, server=True) as monitor:
        process = qemu_at("-S", "-qmp", f"unix:{path}")
        assert monitor.accept()["QMP"]["version"]["qemu"]["major"] == 7
        assert monitor.cmd("query-status")["status"] == "prelaunch"
        assert monitor.cmd_raw("nonsense") == {
            "error": {"class": "CommandNotFound", "desc": "The command nonsense has not been found"}
        }
        monitor.cmd("cont")
        assert monitor.pull_event(wait=PATIENCE)["event"] == "RESUME"
        with open("/dev/null") as file:
            monitor.send_fd_scm(file.fileno())
        assert monitor.cmd_raw("getfd", {"fdname": "null"}) == {"return": {}}
        assert monitor.cmd("quit") == {}
        process.wait(PATIENCE)
        assert monitor.pull_event(wait=PATIENCE)["event"] == "SHUTDOWN"


def test_the_real_qemu_over_tcp_carries_no_descriptor(qemu_at):
    with QEMUMonitorProtocol(("127.0.0.1", 0), server=True) as monitor:
        port = monitor._monitor_listening.name[1]
        qemu_at("-qmp", f"tcp:127.0.0.1:{port}")
        monitor.accept()
        with pytest.raises(QMPError, match="requires a UNIX socket"):
            monitor.send_fd_scm(0)
