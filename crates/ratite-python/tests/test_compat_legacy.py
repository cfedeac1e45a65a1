"""The drop-in for `qemu.qmp`: its client that blocks. The names QC-n and D-nn are those of the notes on the original."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from compat_front import at_once, background, path_of, session
from compat_peer import GREETING, Peer
from conftest import PATIENCE

from qemu.qmp import ConnectError, ExecuteError, StateError
from qemu.qmp.legacy import COMMAND_LIMIT, QEMUMonitorProtocol
from qemu.qmp.qmp_client import ServerParseError
from ratite.compat import qmp_folder


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
