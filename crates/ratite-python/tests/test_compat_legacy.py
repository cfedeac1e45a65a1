"""The drop-in for `qemu.qmp`: its client that blocks. The names QC-n and D-nn are those of the notes on the original."""

import asyncio
import errno
import functools
import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from compat_peer import GREETING, Peer, blocking_session
from conftest import AT_ONCE, PATIENCE, eventually

from ratite.compat import qmp_folder
from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, QMPError, StateError
from qemu.qmp.legacy import COMMAND_LIMIT, QEMUMonitorProtocol, QMPBadPortError
from qemu.qmp.message import DeserializationError
from qemu.qmp.qmp_client import ServerParseError


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


# QC-24: how a session begins


def test_qc24_connect_returns_the_greeting(background):
    ours, theirs = socket.socketpair()
    peer, monitor = Peer(theirs), QEMUMonitorProtocol(ours)
    greeted = background.submit(peer.greet)

    assert monitor.connect() == GREETING
    assert greeted.result()["arguments"] == {"enable": ["oob"]}
    monitor.close()
    assert peer.is_hung_up()
    peer.close()


def test_qc24_connect_without_negotiation(background):
    ours, theirs = socket.socketpair()
    peer, monitor = Peer(theirs), QEMUMonitorProtocol(ours)

    assert monitor.connect(negotiate=False) is None
    answered = background.submit(peer.answer, 7)
    assert monitor.cmd("guest-sync", id=7) == 7
    assert answered.result()["arguments"] == {"id": 7}
    monitor.close()
    peer.close()


def test_qc24_connect_to_nobody(tmp_path):
    monitor = QEMUMonitorProtocol(str(tmp_path / "nobody"))
    for _ in range(2):
        with pytest.raises(ConnectError, match="Failed to establish connection: .*nobody") as failed:
            monitor.connect()
        assert isinstance(failed.value.exc, FileNotFoundError)


def test_qc24_accept(background, tmp_path):
    path = str(tmp_path / "at")
    with QEMUMonitorProtocol(path, server=True, nickname="vm") as monitor:
        theirs = socket.socket(socket.AF_UNIX)
        theirs.connect(path)
        peer = Peer(theirs)
        background.submit(peer.greet)

        assert monitor.accept() == GREETING
        background.submit(peer.answer, 1)
        assert monitor.cmd("x") == 1
    peer.close()
    # Whoever gave the path removes it, as with the original.
    os.unlink(path)


def test_qc24_accept_has_a_limit(tmp_path):
    with QEMUMonitorProtocol(str(tmp_path / "at"), server=True) as monitor:
        with pytest.raises(asyncio.TimeoutError):
            monitor.accept(timeout=0.05)
        with pytest.raises(StateError, match="idle"):
            monitor.accept()


def test_d03_accept_bounds_the_greeting_too(tmp_path):
    path = str(tmp_path / "at")
    with QEMUMonitorProtocol(path, server=True) as monitor, socket.socket(socket.AF_UNIX) as silent:
        silent.connect(path)
        with pytest.raises(asyncio.TimeoutError):
            monitor.accept(timeout=0.1)


def test_d03_connect_bounds_the_greeting(monkeypatch):
    monkeypatch.setattr("qemu.qmp.legacy.CONNECT_LIMIT", 0.1)
    ours, theirs = socket.socketpair()
    with pytest.raises(ConnectError, match="Failed to establish session") as failed:
        QEMUMonitorProtocol(ours).connect()
    assert isinstance(failed.value.exc, asyncio.TimeoutError)
    theirs.close()


def test_d09_a_live_socket_is_not_stolen(tmp_path):
    path = str(tmp_path / "at")
    with QEMUMonitorProtocol(path, server=True):
        with pytest.raises(ConnectError, match="somebody else listens"):
            QEMUMonitorProtocol(path, server=True)


def test_wrong_states_are_told(session):
    monitor = QEMUMonitorProtocol("/nowhere")
    for call in (monitor.cmd_raw, monitor.cmd, monitor.command):
        with pytest.raises(StateError, match="QMPClient is disconnected and idle."):
            call("x")
    with pytest.raises(StateError):
        monitor.accept()
    with session() as (monitor, peer):
        with pytest.raises(StateError, match="already connected and running"):
            monitor.connect()


def test_the_forms_of_72(background):
    for arguments, keywords in [
        (lambda s: (None, s, True, "name"), {}),
        (lambda s: (None, s), {}),
        (lambda s: (), {"server": True}),
        (lambda s: (s, False, "name"), {}),
    ]:
        ours, theirs = socket.socketpair()
        given = arguments(ours)
        monitor = QEMUMonitorProtocol(*given, **keywords, **({} if given else {"sock": ours}))
        peer = Peer(theirs)
        background.submit(peer.greet)
        assert monitor.accept(5.0) == GREETING
        monitor.close()
        peer.close()
    with pytest.raises(ValueError, match="address or a socket"):
        QEMUMonitorProtocol()
    with socket.socket() as some, pytest.raises(ValueError, match="server argument should be False"):
        QEMUMonitorProtocol(some, server=True)


# commands


def test_qc24_the_ways_to_send_a_command(session, background):
    with session() as (monitor, peer):

        def heard(call, *args, **keywords):
            answered = background.submit(peer.answer, {"b": 1, "a": 2})
            got, sent = call(*args, **keywords), answered.result()
            sent.pop("id")
            return json.dumps(got), sent

        value, whole = '{"b": 1, "a": 2}', '{"return": {"b": 1, "a": 2}}'
        assert heard(monitor.cmd, "x", a_b=1) == (value, {"execute": "x", "arguments": {"a_b": 1}})
        assert heard(monitor.command, "x") == (value, {"execute": "x"})
        assert heard(monitor.cmd_raw, "x", {"a": 1}) == (whole, {"execute": "x", "arguments": {"a": 1}})
        assert heard(monitor.cmd_raw, "x") == (whole, {"execute": "x"})
        assert heard(monitor.cmd_obj, {"exec-oob": "x"}) == (whole, {"exec-oob": "x"})
        mine = {"execute": "x", "id": "mine"}
        assert heard(monitor.cmd_obj, mine) == ('{"return": {"b": 1, "a": 2}, "id": "mine"}', {"execute": "x"})
        # QEMU 7.2's `cmd`.
        assert heard(monitor.cmd, "x", {"a": 1}) == (whole, {"execute": "x", "arguments": {"a": 1}})
        assert heard(monitor.cmd, "x", args={"a": 1}) == (whole, {"execute": "x", "arguments": {"a": 1}})
        assert heard(monitor.cmd, "x", args=None) == (whole, {"execute": "x"})
        assert heard(monitor.cmd, "x", None) == (whole, {"execute": "x"})
        assert heard(monitor.cmd, "x", None, "own")[0] == '{"return": {"b": 1, "a": 2}, "id": "own"}'


@pytest.mark.parametrize(
    ("version", "original", "printed"),
    [
        ("7.2.22", None, "{'return': 1}"),
        ("8.1.0", None, "{'return': 1}"),
        ("10.0.13", None, "1"),
        ("7.2.22", "def cmd_raw", "1"),
        (None, "def command", "{'return': 1}"),
        (None, None, "1"),
    ],
)
def test_cmd_means_what_it_does_in_the_tree_that_imports_it(background, tmp_path, version, original, printed):
    portion = tmp_path / "tree" / "python" / "qemu"
    (portion / "qmp").mkdir(parents=True)
    if version is not None:
        (tmp_path / "tree" / "VERSION").write_text(version + "\n")
    if original is not None:
        (portion / "qmp" / "legacy.py").write_text(original)
    ours, theirs = socket.socketpair()
    peer = Peer(theirs)

    def serve():
        peer.greet()
        peer.answer(1)

    served = background.submit(serve)
    script = f"""
from qemu.qmp.legacy import QEMUMonitorProtocol
with QEMUMonitorProtocol(QEMUMonitorProtocol.parse_address("fd:{ours.fileno()}")) as monitor:
    monitor.connect()
    print(monitor.cmd("x"))
"""
    told = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path_of(qmp_folder(), portion.parent)},
        pass_fds=[ours.fileno()],
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )
    served.result()
    ours.close()
    peer.close()

    assert told.stdout.strip() == printed


def test_what_is_not_here_comes_from_an_original_behind_us(tmp_path):
    behind = tmp_path / "qemu" / "qmp"
    behind.mkdir(parents=True)
    (behind / "__init__.py").write_text("raise AssertionError('ours comes first')")
    (behind / "qmp_shell.py").write_text("from .legacy import QEMUMonitorProtocol\nprint(QEMUMonitorProtocol.__doc__)")
    told = subprocess.run(
        [sys.executable, "-c", "import qemu.qmp.qmp_shell"],
        env={**os.environ, "PYTHONPATH": path_of(qmp_folder(), tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )

    assert told.stdout.startswith("A QMP session that blocks.")


def test_d42_any_name_may_be_an_argument(session, background):
    with session() as (monitor, peer):
        answered = background.submit(peer.answer, 1)
        monitor.cmd("x", cmd="a", self="b", args="c", name="d")

        assert answered.result()["arguments"] == {"cmd": "a", "self": "b", "args": "c", "name": "d"}


def test_a_refusal(session, background):
    with session() as (monitor, peer):

        def refuse():
            heard = peer.hear()
            peer.say({"id": heard["id"], "error": {"class": "GenericError", "desc": "no"}})

        background.submit(refuse)
        with pytest.raises(ExecuteError, match="no") as refused:
            monitor.cmd("x", a=1)
        assert refused.value.error.error.class_ == refused.value.error_class == "GenericError"
        assert dict(refused.value.sent) == {"execute": "x", "arguments": {"a": 1}, "id": "__qmp#00000"}
        background.submit(refuse)
        assert monitor.cmd_raw("x") == {"error": {"class": "GenericError", "desc": "no"}}


@pytest.mark.parametrize("own", [5, "__qmp#3", [1]])
def test_qc14_an_id_that_cannot_be_used(session, own):
    with session() as (monitor, peer):
        with pytest.raises((TypeError, ValueError)):
            monitor.cmd_obj({"execute": "x", "id": own})


def test_qc16_an_error_without_id(session, background):
    with session() as (monitor, peer):

        def refuse():
            peer.hear()
            peer.say({"error": {"class": "GenericError", "desc": "Invalid JSON"}})

        background.submit(refuse)
        assert monitor.cmd_raw("x") == {"error": {"class": "GenericError", "desc": "Invalid JSON"}}
        background.submit(refuse)
        with pytest.raises(ServerParseError, match="Invalid JSON"):
            monitor.cmd("x")
        background.submit(peer.answer, 1)
        assert monitor.cmd("x") == 1


def test_d01_d36_a_command_is_bounded_and_its_late_reply_is_nobodys(session, background):
    assert COMMAND_LIMIT == 300.0
    with session() as (monitor, peer):
        monitor.settimeout(0.05)
        with pytest.raises(asyncio.TimeoutError):
            monitor.cmd_raw("first")
        late = peer.hear()
        monitor.settimeout(None)

        def both():
            peer.say({"return": "first", "id": late["id"]})
            peer.answer("second")

        background.submit(both)
        assert monitor.cmd_raw("second") == {"return": "second"}


def test_d01_closing_does_not_wait_for_a_peer_that_does_not_read(session):
    with session() as (monitor, peer):
        monitor.settimeout(0.05)
        with pytest.raises(asyncio.TimeoutError):
            monitor.cmd("x", a="x" * (5 << 20))
        begun = time.monotonic()
        monitor.close()
        at_once(begun)


def test_d36_an_interrupted_command_leaves_the_session_usable(session, background):
    with session() as (monitor, peer):

        class Interrupted(Exception):
            pass

        def interrupt(*_):
            raise Interrupted

        before = signal.signal(signal.SIGUSR1, interrupt)
        try:

            def poke():
                heard = peer.hear()
                os.kill(os.getpid(), signal.SIGUSR1)
                return heard

            poked = background.submit(poke)
            with pytest.raises(Interrupted):
                monitor.cmd("first")
        finally:
            signal.signal(signal.SIGUSR1, before)
        peer.say({"return": "first", "id": poked.result()["id"]})
        background.submit(peer.answer, "second")
        assert monitor.cmd("second") == "second"


@pytest.mark.parametrize("value", [float("nan"), "\ud800", b"bytes"])
def test_d43_what_json_cannot_hold_is_refused_before_it_is_sent(session, background, value):
    with session() as (monitor, peer):
        with pytest.raises((ValueError, TypeError)):
            monitor.cmd("x", a=value)
        background.submit(peer.answer, 1)
        assert monitor.cmd("y") == 1


def test_d45_odd_messages_leave_the_session_usable(session, background):
    with session() as (monitor, peer):
        peer.say({"return": 1, "id": [1]}, {"return": 1, "id": {"a": 1}}, {"return": 1}, {"event": 5})
        background.submit(peer.answer, 1)
        assert monitor.cmd("y") == 1
        assert monitor.get_events() == [{"event": 5}]


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
