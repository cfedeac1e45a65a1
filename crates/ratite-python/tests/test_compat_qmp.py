"""The drop-in for `qemu.qmp`: its client for asyncio. The names QC-n and D-nn are those of the notes on the original."""

import asyncio
import os
import socket
import ssl
import stat

import pytest
from compat_client import events_of, within_a_loop
from compat_peer import AsyncPeer, GREETING, pair, session

from qemu.qmp import ConnectError, ExecInterruptedError, Message, ProtocolError, QMPClient, Runstate, StateError
from qemu.qmp.qmp_client import GreetingError, NegotiationError


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
