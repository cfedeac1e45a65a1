"""Events of the drop-in `QMPClient`, what it logs and carries, and the real QEMU."""

import asyncio
import errno
import json
import logging
import os
import socket
import stat

import pytest
from compat_client import events_of, qemu_at, within_a_loop
from compat_peer import session
from conftest import PATIENCE

import qemu.qmp
from qemu.qmp import (
    ConnectError,
    EventListener,
    ExecInterruptedError,
    ExecuteError,
    ListenerError,
    Message,
    ProtocolError,
    QMPClient,
    QMPError,
    Runstate,
    StateError,
)
from qemu.qmp.events import MOST_HISTORY, MOST_UNREAD
from qemu.qmp.message import DeserializationError, UnexpectedTypeError
from qemu.qmp.qmp_client import BadReplyError, GreetingError, NegotiationError


# QC-21, QC-22: events


@within_a_loop
async def test_qc21_each_listener_has_each_event_that_it_accepts_once():
    class Odd(EventListener):
        def accept(self, event):
            return super().accept(event) and event["data"]["n"] % 2 == 1

    async with session() as (client, peer):
        named, several, odd = EventListener("B"), EventListener(("A", "B")), Odd()
        filtered = EventListener("A", lambda event: event["data"]["n"] > 1)
        with client.listen(named, several, odd, filtered), client.listener("C") as c:
            command = asyncio.create_task(client.execute("x"))
            heard = await peer.hear()
            peer.say(*({"event": name, "data": {"n": n}} for n, name in enumerate("ABAB")))
            peer.say({"return": {}, "id": heard["id"]})
            await command

            def numbers(listener):
                return [event["data"]["n"] for event in listener.clear()]

            assert [e["data"]["n"] for e in named.history] == [1, 3]
            assert numbers(named) == [1, 3]
            assert (await several.get())["data"]["n"] == 0
            assert numbers(several) == [1, 2, 3]
            assert numbers(odd) == [1, 3]
            assert numbers(filtered) == [2]
            assert c.empty()
            assert len(named.history) == 2 and named.empty()
        assert numbers(client.events) == [0, 1, 2, 3]


@within_a_loop
async def test_qc21_listeners_come_and_go():
    client, listener = QMPClient(), EventListener()
    client.register_listener(listener)
    with pytest.raises(ListenerError):
        client.register_listener(listener)
    await listener.put(Message({"event": "E"}))
    client.remove_listener(listener)
    assert listener.empty()
    with pytest.raises(ValueError):
        client.remove_listener(listener)
    with pytest.raises(ListenerError):
        client.remove_listener(client.events)
    with pytest.raises(ListenerError), client.listen(listener, listener):
        pass
    client.register_listener(listener)


@within_a_loop
async def test_qc21_iterating_waits_for_what_comes():
    async with session() as (client, peer):
        seen = []

        async def iterate():
            async for event in client.events:
                seen.append(event["event"])
                if event["event"] == "LAST":
                    return

        iterating = asyncio.create_task(iterate())
        await asyncio.sleep(0)
        peer.say({"event": "FIRST"}, {"event": "LAST"}, {"event": "LEFT"})
        await iterating

        assert seen == ["FIRST", "LAST"]
        assert await events_of(client, 1) == [{"event": "LEFT"}]


@within_a_loop
async def test_d57_a_cancelled_wait_takes_no_event():
    listener = EventListener()
    waiting = asyncio.create_task(listener.get())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await listener.put(Message({"event": "A"}))

    assert (await listener.get())["event"] == "A"


@within_a_loop
async def test_d39_what_nobody_reads_is_bounded():
    listener = EventListener()
    for number in range(MOST_UNREAD + 5):
        await listener.put(Message({"event": "E", "n": number}, eager=False))

    assert listener.dropped == 5
    assert (await listener.get())["n"] == 5
    assert len(listener.history) == MOST_HISTORY
    assert listener.history[-1]["n"] == MOST_UNREAD + 4


@within_a_loop
async def test_qc22_a_filter_that_fails_ends_the_session():
    def fail(event):
        raise LookupError("the filter's own")

    async with session() as (client, peer):
        client.register_listener(EventListener(event_filter=fail))
        peer.say({"event": "E"})
        assert await client.runstate_changed() is Runstate.DISCONNECTING

        with pytest.raises(LookupError, match="the filter's own"):
            await client.disconnect()


# QC-23 and descriptors, servers' paths, names


@within_a_loop
async def test_qc23_what_is_logged(caplog):
    assert QMPClient().logger.name == "qemu.qmp.qmp_client"
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("qemu.qmp").handlers)
    with caplog.at_level(logging.DEBUG, "qemu.qmp"):
        async with session(QMPClient("vm7")) as (client, peer):
            command = asyncio.create_task(client.execute("x"))
            heard = await peer.hear()
            peer.say({"event": "E"}, {"return": 1, "id": heard["id"]})
            await command

    lines = [record.getMessage() for record in caplog.records if record.name == "qemu.qmp.qmp_client.vm7"]
    wanted = [
        '--> {\n  "execute": "x",\n  "id": "__qmp#00000"\n}',
        '<-- {\n  "event": "E"\n}',
        '<-- {\n  "return": 1,\n  "id": "__qmp#00000"\n}',
    ]
    assert [line for line in lines if line in wanted] == wanted


@within_a_loop
async def test_the_hooks_see_each_message():
    class Hooked(QMPClient):
        def _cb_inbound(self, msg):
            if "return" in msg:
                msg["return"] = "changed"
            return super()._cb_inbound(msg)

        def _cb_outbound(self, msg):
            msg["arguments"] = {"added": True}
            return super()._cb_outbound(msg)

    async with session(Hooked()) as (client, peer):
        value, heard = await asyncio.gather(client.execute("x"), peer.answer(1))

        assert (value, heard["arguments"]) == ("changed", {"added": True})


@within_a_loop
async def test_a_descriptor_goes_with_the_next_command():
    async with session() as (client, peer):
        with open("/dev/null") as file:
            client.send_fd_scm(file.fileno())
        with pytest.raises(OSError) as bad:
            client.send_fd_scm(10**6)
        assert bad.value.errno == errno.EBADF
        command = asyncio.create_task(client.execute("getfd", {"fdname": "x"}))
        data, fds, _, _ = await asyncio.get_running_loop().run_in_executor(
            None, socket.recv_fds, peer.peer.end, 65536, 4
        )
        heard = json.loads(data)
        peer.say({"return": {}, "id": heard["id"]})
        await command

        assert heard["execute"] == "getfd"
        assert [os.readlink(f"/proc/self/fd/{fd}") for fd in fds] == ["/dev/null"]
        for fd in fds:
            os.close(fd)


@within_a_loop
async def test_a_descriptor_that_no_command_followed_is_closed():
    async with session() as (client, peer):
        with open("/dev/null") as file:
            client.send_fd_scm(file.fileno())


@within_a_loop
async def test_d08_a_file_in_the_way_is_left_alone(tmp_path):
    path = tmp_path / "precious"
    path.write_text("kept")
    with pytest.raises(ConnectError, match="no socket"):
        await QMPClient().start_server(str(path))
    assert path.read_text() == "kept"


@within_a_loop
async def test_d09_d10_a_dead_socket_is_replaced_and_a_live_one_is_not(tmp_path):
    path = str(tmp_path / "at")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()
    client = QMPClient()
    await client.start_server(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600

    with pytest.raises(ConnectError, match="somebody else listens"):
        await QMPClient().start_server(path)

    await client.disconnect()


def test_the_public_names_are_there():
    for name in qemu.qmp.__all__:
        assert hasattr(qemu.qmp, name), name
    assert repr(QMPClient("x")) == "<QMPClient name='x' runstate=IDLE>"
    for kind in (ConnectError, StateError, ExecuteError, ExecInterruptedError, ListenerError, ProtocolError):
        assert issubclass(kind, QMPError)
    for kind in (DeserializationError, UnexpectedTypeError, GreetingError, NegotiationError, BadReplyError):
        assert issubclass(kind, ProtocolError)
    assert len(qemu.qmp.__path__) >= 1


# the real QEMU


@within_a_loop
async def test_the_real_qemu_over_a_path(qemu_at, tmp_path):
    path, client = str(tmp_path / "qmp"), QMPClient("real")
    await client.start_server(path)
    process = qemu_at("-S", "-qmp", f"unix:{path}")
    await client.accept()

    assert client.greeting.QMP.version["qemu"]["major"] == 7
    assert (await client.execute("query-status"))["status"] == "prelaunch"
    with pytest.raises(ExecuteError, match="The command nonsense has not been found") as refused:
        await client.execute("nonsense")
    assert refused.value.error_class == "CommandNotFound"
    await client.execute("cont")
    assert (await client.events.get())["event"] == "RESUME"
    assert await client.execute("query-name", oob=False) == {}
    with open("/dev/null") as file:
        client.send_fd_scm(file.fileno())
    assert await client.execute("getfd", {"fdname": "null"}) == {}
    assert await client.execute("quit") == {}
    process.wait(PATIENCE)
    if client.runstate is Runstate.RUNNING:
        await client.runstate_changed()
    with pytest.raises(EOFError):
        await client.disconnect()


@within_a_loop
async def test_the_real_qemu_over_tcp_carries_no_descriptor(qemu_at):
    client = QMPClient()
    await client.start_server(("127.0.0.1", 0))
    port = client._listening.name[1]
    qemu_at("-qmp", f"tcp:127.0.0.1:{port}")
    await client.accept()

    with pytest.raises(QMPError, match="requires a UNIX socket"):
        client.send_fd_scm(0)
    assert await client.execute("query-version")
    await client.disconnect()
