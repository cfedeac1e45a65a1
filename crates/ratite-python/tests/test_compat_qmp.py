"""The drop-in for `qemu.qmp`: its client for asyncio. The names QC-n and D-nn are those of the notes on the original."""

import asyncio
import errno
import functools
import json
import logging
import os
import socket
import ssl
import stat
import subprocess

import pytest
from compat_peer import GREETING, AsyncPeer, pair, session
from conftest import AT_ONCE, PATIENCE

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
from qemu.qmp.models import ErrorInfo, ErrorResponse, Greeting
from qemu.qmp.qmp_client import BadReplyError, GreetingError, NegotiationError, ServerParseError


def within_a_loop(test):
    """Runs a test that is a coroutine, and sees that it leaves no task behind."""

    @functools.wraps(test)
    def run(*args, **keywords):
        async def bounded():
            await asyncio.wait_for(test(*args, **keywords), PATIENCE)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                # Cancelled watchers take a turn to end.
                await asyncio.wait(others, timeout=AT_ONCE)
            assert not asyncio.all_tasks() - {asyncio.current_task()}

        asyncio.run(bounded())

    return run


async def events_of(client, count):
    return [dict(await client.events.get()) for _ in range(count)]


@pytest.fixture
def qemu_at(tmp_path):
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


# QC-1 to QC-6: the life of a connection


@within_a_loop
async def test_qc1_the_runstates_of_a_session():
    async with pair() as (client, ours, peer):
        seen = []

        async def watch():
            while len(seen) < 4:
                seen.append(await client.runstate_changed())

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        assert client.runstate is Runstate.IDLE

        await asyncio.gather(client.connect(ours), peer.greet())
        await client.disconnect()
        await watching

        assert seen == [Runstate.CONNECTING, Runstate.RUNNING, Runstate.DISCONNECTING, Runstate.IDLE]


@within_a_loop
async def test_qc1_the_runstates_of_a_failure(tmp_path):
    client, seen = QMPClient(), []

    async def watch():
        while len(seen) < 3:
            seen.append(await client.runstate_changed())

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    with pytest.raises(ConnectError):
        await client.connect(str(tmp_path / "nobody"))
    await watching

    assert seen == [Runstate.CONNECTING, Runstate.DISCONNECTING, Runstate.IDLE]


@within_a_loop
async def test_qc2_a_wrong_state_is_told():
    client = QMPClient()
    with pytest.raises(StateError) as idle:
        await client.execute("x")
    assert str(idle.value) == idle.value.error_message == "QMPClient is disconnected and idle."
    assert (idle.value.state, idle.value.required) == (Runstate.IDLE, Runstate.RUNNING)

    async with session(client) as (client, peer):
        with pytest.raises(StateError, match="QMPClient is already connected and running."):
            await client.connect("/nowhere")
        peer.close()
        await client.runstate_changed()
        with pytest.raises(StateError) as leaving:
            await client.execute("x")
        assert str(leaving.value) == (
            "QMPClient is disconnecting. Call disconnect() to return to IDLE state."
        )


@within_a_loop
async def test_qc2_the_server_waits_at_a_path(tmp_path):
    path, client = str(tmp_path / "at"), QMPClient()
    await client.start_server(path)
    assert client.runstate is Runstate.CONNECTING
    with pytest.raises(StateError, match="QMPClient is currently connecting."):
        await client.start_server(path)
    theirs = socket.socket(socket.AF_UNIX)
    theirs.connect(path)
    peer = AsyncPeer(theirs)

    await asyncio.gather(client.accept(), peer.greet())

    assert await asyncio.gather(client.execute("x"), peer.answer(5)) == [5, {"execute": "x", "id": 1}]
    await client.disconnect()
    # Whoever gave the path removes it, as with the original.
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    peer.close()


@within_a_loop
async def test_qc2_the_server_waits_at_every_address_of_a_host():
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    client = QMPClient()
    accepted = asyncio.create_task(client.start_server_and_accept(("localhost", port)))
    while client._listening is None:
        await asyncio.sleep(0)
    peer = AsyncPeer(socket.create_connection(("127.0.0.1", port)))

    await asyncio.gather(accepted, peer.greet())

    assert client.runstate is Runstate.RUNNING
    await client.disconnect()
    peer.close()


@within_a_loop
async def test_qc2_the_socket_that_is_given_is_taken_over():
    async with session() as (client, peer):
        await client.disconnect()

        assert await peer.is_hung_up()


@within_a_loop
async def test_qc3_accept_needs_a_server():
    with pytest.raises(StateError, match="idle"):
        await QMPClient().accept()


@within_a_loop
async def test_qc4_a_connection_that_fails(tmp_path):
    client, nobody = QMPClient(), str(tmp_path / "nobody")

    with pytest.raises(ConnectError) as failed:
        await client.connect(nobody)

    assert failed.value.error_message == "Failed to establish connection"
    assert isinstance(failed.value.exc, FileNotFoundError)
    assert str(failed.value) == f"Failed to establish connection: {failed.value.exc}"
    assert nobody in str(failed.value)
    assert client.runstate is Runstate.IDLE


@within_a_loop
async def test_qc4_a_session_that_fails():
    async with pair() as (client, ours, peer):
        peer.close()
        with pytest.raises(ConnectError) as failed:
            await client.connect(ours)

        assert failed.value.error_message == "Failed to establish session"
        assert isinstance(failed.value.exc, EOFError)
        assert str(failed.value) == "Failed to establish session: EOFError"
        assert client.runstate is Runstate.IDLE


@within_a_loop
async def test_qc4_cancelling_is_no_failure():
    async with pair() as (client, ours, peer):
        connecting = asyncio.create_task(client.connect(ours))
        await client.runstate_changed()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting

        assert client.runstate is Runstate.IDLE
        assert await peer.is_hung_up()


@within_a_loop
async def test_qc4_a_connection_over_tls_is_refused_in_words():
    with pytest.raises(ConnectError, match="without TLS"):
        await QMPClient().connect("/nowhere", ssl.create_default_context())


@pytest.mark.parametrize("address", [("", 5), ("127.0.0.1", 99999), "/" + "x" * 120])
@within_a_loop
async def test_d22_d23_an_address_that_cannot_be_is_named(address):
    for begin in (QMPClient().connect, QMPClient().start_server):
        with pytest.raises(ConnectError, match="host is empty|no port|107 bytes") as failed:
            await begin(address)
        assert isinstance(failed.value.exc, (ValueError, OSError))


@within_a_loop
async def test_qc5_disconnect_may_be_said_at_any_time():
    client = QMPClient()
    await client.disconnect()
    await client.disconnect()

    async with session(client) as (client, peer):
        await client.disconnect()
        await client.disconnect()
        assert client.runstate is Runstate.IDLE


@within_a_loop
async def test_qc5_disconnect_interrupts_what_waits():
    async with session() as (client, peer):
        waiting = [asyncio.create_task(client.execute(name)) for name in ("a", "b")]
        await peer.hear()

        await client.disconnect()

        for command in waiting:
            with pytest.raises(ExecInterruptedError, match="Disconnected"):
                await command


@within_a_loop
async def test_qc5_qc6_a_hang_up_is_delivered_by_disconnect_once():
    async with session() as (client, peer):
        peer.close()
        assert await client.runstate_changed() is Runstate.DISCONNECTING

        with pytest.raises(EOFError):
            await client.disconnect()
        assert client.runstate is Runstate.IDLE
        await client.disconnect()


@within_a_loop
async def test_qc6_a_command_that_was_interrupted_has_changed_the_runstate():
    async with session() as (client, peer):
        command = asyncio.create_task(client.execute("x"))
        await peer.hear()
        peer.close()

        with pytest.raises(ExecInterruptedError):
            await command
        assert client.runstate is Runstate.DISCONNECTING


@within_a_loop
async def test_qc6_the_reply_to_quit_comes_before_the_end():
    async with session() as (client, peer):
        command = asyncio.create_task(client.execute("quit"))
        await peer.answer({})
        peer.close()

        assert await command == {}


@within_a_loop
async def test_a_client_serves_one_session_after_the_other():
    async with session() as (client, peer):
        await asyncio.gather(client.execute("x"), peer.answer({}))
        await client.disconnect()
        async with session(client) as (client, again):
            command = asyncio.create_task(client.execute_msg(Message({"execute": "y"})))
            heard = await again.answer("z")
            assert (await command, heard["execute"]) == ("z", "y")


# QC-7 to QC-9: how a session begins


@pytest.mark.parametrize(
    "greeting",
    [
        b"hello\r\n",
        b"[1]\r\n",
        b'{"QMP": 5}\r\n',
        b'{"QMP": {"version": {}}}\r\n',
        b'{"QMP": {"version": {}, "capabilities": "xoobx"}}\r\n',
        b'{"return": {}}\r\n',
        b'{"QMP": \xff}\r\n',
    ],
)
@within_a_loop
async def test_qc7_what_is_no_greeting(greeting):
    async with pair() as (client, ours, peer):
        peer.raw(greeting)
        with pytest.raises(ConnectError) as failed:
            await client.connect(ours)

        assert isinstance(failed.value.exc, GreetingError)
        assert str(failed.value.exc).startswith("Did not understand Greeting: ")
        assert isinstance(failed.value.exc.exc, ProtocolError)


@within_a_loop
async def test_qc7_half_a_greeting():
    async with pair() as (client, ours, peer):
        peer.raw(b'{"QMP": ')
        peer.close()
        with pytest.raises(ConnectError) as failed:
            await client.connect(ours)
        assert isinstance(failed.value.exc, GreetingError)


@pytest.mark.parametrize("offered", [["oob"], [], ["other", 5]])
@within_a_loop
async def test_qc8_oob_is_negotiated_if_it_is_offered(offered):
    async with pair() as (client, ours, peer):
        connecting = asyncio.create_task(client.connect(ours))
        peer.say({"QMP": {**GREETING["QMP"], "capabilities": offered}})
        heard = await peer.answer({})
        await connecting

        assert heard["execute"] == "qmp_capabilities"
        assert heard.get("arguments") == ({"enable": ["oob"]} if "oob" in offered else None)
        assert client.greeting.QMP.capabilities == offered
        assert client.greeting.QMP.version["qemu"]["major"] == 9


@within_a_loop
async def test_d44_a_refused_negotiation_has_the_servers_words():
    async with pair() as (client, ours, peer):
        connecting = asyncio.create_task(client.connect(ours))
        peer.say(GREETING)
        heard = await peer.hear()
        peer.say({"error": {"class": "GenericError", "desc": "not today"}, "id": heard["id"]})
        with pytest.raises(ConnectError, match="Negotiation failed: not today") as failed:
            await connecting

        assert isinstance(failed.value.exc, NegotiationError)
        assert failed.value.exc.exc.error_class == "GenericError"


@within_a_loop
async def test_d44_events_and_strange_replies_before_the_session_is_ready():
    async with pair() as (client, ours, peer):
        connecting = asyncio.create_task(client.connect(ours))
        peer.say(GREETING, {"event": "EARLY"})
        heard = await peer.hear()
        peer.say({"return": {}, "id": "foreign"}, {"event": "LATER"}, {"return": {}, "id": heard["id"]})
        await connecting

        assert await events_of(client, 2) == [{"event": "EARLY"}, {"event": "LATER"}]


@within_a_loop
async def test_qc9_the_guest_agent_does_not_greet():
    client = QMPClient()
    client.await_greeting = client.negotiate = False
    async with pair(client) as (client, ours, peer):
        await client.connect(ours)
        answered = asyncio.create_task(peer.answer(7))

        assert await client.execute("guest-sync", {"id": 7}) == 7
        assert (await answered)["arguments"] == {"id": 7}
        assert client.greeting is None


@within_a_loop
async def test_qc9_a_greeting_without_negotiation():
    client = QMPClient()
    client.negotiate = False
    async with pair(client) as (client, ours, peer):
        peer.say(GREETING, {"event": "E"})
        await client.connect(ours)

        assert client.greeting.QMP.capabilities == ["oob"]
        assert await events_of(client, 1) == [{"event": "E"}]


# QC-10 to QC-19: commands and replies


@within_a_loop
async def test_qc10_what_is_sent_and_what_is_kept():
    async with session() as (client, peer):
        msg = client.make_execute_msg("a", {"x_y": "ä", "n": None}, oob=True)
        assert dict(msg) == {"exec-oob": "a", "arguments": {"x_y": "ä", "n": None}}
        command = asyncio.create_task(client.execute_msg(msg))
        heard = await peer.answer({"b": 1, "a": 2})

        assert await command == {"b": 1, "a": 2}
        assert {name: heard[name] for name in heard if name != "id"} == dict(msg)
        assert "id" not in msg


@within_a_loop
async def test_qc10_ids_count_on_over_sessions():
    seen = []
    client = QMPClient()
    for _ in range(2):
        async with session(client) as (client, peer):
            command = asyncio.create_task(client.execute("x"))
            heard = await peer.hear()
            peer.say({"error": {"class": "C", "desc": "d"}, "id": heard["id"]})
            with pytest.raises(ExecuteError) as refused:
                await command
            seen.append((refused.value.sent["id"], refused.value.received["id"]))
            await client.disconnect()

    assert seen == [("__qmp#00000",) * 2, ("__qmp#00001",) * 2]


@within_a_loop
async def test_qc11_a_message_without_a_command():
    async with session() as (client, peer):
        with pytest.raises(ValueError, match="Requires 'execute' or 'exec-oob'"):
            await client.execute_msg(Message({"x": 1}))


@within_a_loop
async def test_qc12_a_refusal_and_what_it_tells():
    async with session() as (client, peer):
        command = asyncio.create_task(client.execute("x", {"a": 1}))
        heard = await peer.hear()
        peer.say({"return": {}, "error": {"class": "GenericError", "desc": "no"}, "id": heard["id"]})
        with pytest.raises(ExecuteError) as refused:
            await command

        assert str(refused.value) == refused.value.error.error.desc == "no"
        assert refused.value.error_class == refused.value.error.error.class_ == "GenericError"
        assert refused.value.sent["arguments"] == {"a": 1}
        assert list(refused.value.received) == ["return", "error", "id"]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({"error": {}}, "QMP error reply is malformed"),
        ({"error": 5}, "QMP error reply is malformed"),
        ({"neither": 1}, "QMP reply is missing a 'error' or 'return' member"),
    ],
)
@within_a_loop
async def test_qc12_a_reply_that_makes_no_sense_costs_its_command_only(reply, words):
    async with session() as (client, peer):
        command = asyncio.create_task(client.execute("x"))
        heard = await peer.hear()
        peer.say({**reply, "id": heard["id"]})
        with pytest.raises(BadReplyError) as bad:
            await command

        assert bad.value.error_message == words
        assert bad.value.sent["execute"] == "x"
        assert bad.value.msg["id"] == "__qmp#00000"
        assert (await asyncio.gather(client.execute("y"), peer.answer(1)))[0] == 1


@within_a_loop
async def test_qc13_replies_find_their_commands_in_any_order():
    async with session() as (client, peer):
        commands = [asyncio.create_task(client.execute(f"c{number}")) for number in range(20)]
        heard = [await peer.hear() for _ in range(8)]
        for message in reversed(heard):
            peer.say({"return": message["execute"], "id": message["id"]})
        for _ in range(12):
            message = await peer.hear()
            peer.say({"return": message["execute"], "id": message["id"]})

        assert await asyncio.gather(*commands) == [f"c{number}" for number in range(20)]


@within_a_loop
async def test_qc14_an_id_of_the_callers_own_comes_back():
    async with session() as (client, peer):
        with_one = asyncio.create_task(client._raw({"execute": "a", "id": "mine"}, assign_id=False))
        heard = await peer.hear()
        with pytest.raises(ValueError, match="ID 'mine' is in-use and cannot be used."):
            await client._raw({"execute": "b", "id": "mine"}, assign_id=False)
        peer.raw(b'{"b": 1, "id": %d, "return": {"z": 1, "a": 2}}\n' % heard["id"])
        without = asyncio.create_task(client._raw(b'{"execute":"c"}', assign_id=False))
        await peer.answer([])

        assert json.dumps(dict(await with_one)) == '{"b": 1, "id": "mine", "return": {"z": 1, "a": 2}}'
        assert dict(await without) == {"return": []}
        with pytest.raises(TypeError, match="must be a string"):
            await client._raw({"execute": "a", "id": 5}, assign_id=False)
        with pytest.raises(ValueError, match="must not start with"):
            await client._raw({"execute": "a", "id": "__qmp#1"}, assign_id=False)


@pytest.mark.parametrize("odd", ["x", 5000, -1, 1.5, None, [1], {"a": []}, True])
@within_a_loop
async def test_qc15_d45_replies_to_nobody_are_dropped_whatever_their_id(odd):
    async with session() as (client, peer):
        peer.say({"return": {}, "id": odd}, {"error": {"class": "a", "desc": "b"}, "id": odd}, {"return": 1})

        assert (await asyncio.gather(client.execute("y"), peer.answer(1)))[0] == 1


@within_a_loop
async def test_qc16_an_error_without_id_is_told_to_who_waits():
    async with session() as (client, peer):
        command = asyncio.create_task(client.execute("x"))
        raw = asyncio.create_task(client._raw({"execute": "y"}, assign_id=False))
        await peer.hear()
        await peer.hear()
        peer.say({"error": {"class": "GenericError", "desc": "Invalid JSON"}})

        with pytest.raises(ServerParseError, match="Invalid JSON"):
            await command
        assert dict(await raw) == {"error": {"class": "GenericError", "desc": "Invalid JSON"}}
        # The session goes on.
        assert (await asyncio.gather(client.execute("y"), peer.answer(1)))[0] == 1


@within_a_loop
async def test_qc17_d36_a_command_that_was_given_up_leaves_the_next_one_intact():
    async with session() as (client, peer):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client._raw({"execute": "first"}, assign_id=False), 0.05)
        late = await peer.hear()
        following = asyncio.create_task(client._raw({"execute": "second"}, assign_id=False))
        peer.say({"return": "first", "id": late["id"]})
        await peer.answer("second")

        assert dict(await following) == {"return": "second"}


@within_a_loop
async def test_qc18_d41_a_message_of_twelve_megabytes():
    async with session() as (client, peer):
        command = asyncio.create_task(client.execute("x"))
        heard = await peer.hear()
        text = json.dumps({"return": "x" * (12 << 20), "id": heard["id"]}).encode() + b"\n"
        await asyncio.get_running_loop().run_in_executor(None, peer.raw, text)

        assert len(await command) == 12 << 20


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"nonsense\n", DeserializationError),
        (b'{"a": nonsense}\n', DeserializationError),
        (b"[1, 2]\n", UnexpectedTypeError),
        (b'{"event": "\xff"}\n', DeserializationError),
    ],
)
@within_a_loop
async def test_qc19_d45_what_is_no_message_ends_the_session_with_a_typed_error(said, kind):
    async with session() as (client, peer):
        command = asyncio.create_task(client.execute("x"))
        await peer.hear()
        peer.raw(said)
        with pytest.raises(ExecInterruptedError):
            await command
        with pytest.raises(kind) as broken:
            await client.disconnect()

        assert isinstance(broken.value, ProtocolError)
        if kind is UnexpectedTypeError:
            assert broken.value.value == [1, 2]
        elif b"nonsense" in said:
            assert b"nonsense" in broken.value.raw
        else:
            assert b"\xff" in broken.value.raw


@within_a_loop
async def test_d45_a_message_may_be_nested_deeper_than_python_reads():
    async with session() as (client, peer):
        deep = "[" * 1500 + "]" * 1500
        command = asyncio.create_task(client.execute("x"))
        heard = await peer.hear()
        peer.raw(b'{"event":"DEEP","data":%s}\n' % deep.encode())
        peer.raw(b'{"return":%s,"id":%d}\n' % (deep.encode(), heard["id"]))
        value, depth = await command, 0
        while value:
            value, depth = value[0], depth + 1

        assert depth == 1499
        assert (await client.events.get())["event"] == "DEEP"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", b"bytes", {1, 2}])
@within_a_loop
async def test_d43_what_json_cannot_hold_is_refused_before_it_is_sent(value):
    async with session() as (client, peer):
        with pytest.raises((ValueError, TypeError)):
            await client.execute("x", {"a": [value]})

        heard = await asyncio.gather(client.execute("y"), peer.answer(1))
        assert heard[1]["execute"] == "y"


@within_a_loop
async def test_a_member_that_no_command_has_is_refused_before_it_is_sent():
    async with session() as (client, peer):
        with pytest.raises(ValueError, match="no member 'junk'"):
            await client._raw({"execute": "x", "junk": 1})


@within_a_loop
async def test_integers_stay_exact():
    async with session() as (client, peer):
        command = asyncio.create_task(client.execute("x", {"n": 2**64 - 1}))
        heard = await peer.answer(2**64 - 1)

        assert (await command, heard["arguments"]["n"]) == (2**64 - 1, 2**64 - 1)


# QC-20: messages


def test_qc20_a_message_is_a_mapping_and_its_text():
    msg = Message(b'{"hello": "w\\u00f6rld"}')
    msg["id"] = 5

    assert bytes(msg) == b'{"hello":"w\\u00f6rld","id":5}'
    assert str(msg) == '{\n  "hello": "w\\u00f6rld",\n  "id": 5\n}'
    assert dict(msg) == msg == {"hello": "wörld", "id": 5}
    del msg["hello"]
    assert (len(msg), list(msg), repr(msg)) == (1, ["id"], "Message({'id': 5})")
    assert Message() == {}
    copy = Message(msg)
    copy["x"] = 1
    assert "x" not in msg


def test_qc20_what_is_no_message():
    with pytest.raises(DeserializationError) as no_json:
        Message(b"{nonsense")
    assert no_json.value.raw == b"{nonsense"
    with pytest.raises(UnexpectedTypeError) as no_object:
        Message(b"[1]")
    assert no_object.value.value == [1]
    with pytest.raises(TypeError):
        Message({"a": {1}})
    with pytest.raises(TypeError):
        bytes(Message({"a": {1}}, eager=False))
    with pytest.raises(DeserializationError):
        Message(b"{", eager=False).get("x")


def test_the_models_check_what_they_are_given():
    response = ErrorResponse({"error": {"class": "C", "desc": "d"}, "id": 3})
    assert (response.error.class_, response.error.desc, response.id) == ("C", "d", 3)
    assert Greeting(GREETING)._asdict() == GREETING
    for raw, kind in [({}, KeyError), ({"class": 5, "desc": "d"}, TypeError)]:
        with pytest.raises(kind):
            ErrorInfo(raw)


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
