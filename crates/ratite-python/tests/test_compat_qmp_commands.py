"""Commands, replies and messages of the drop-in `QMPClient`."""

import asyncio
import json

import pytest
from compat_client import within_a_loop
from compat_peer import GREETING, session

from qemu.qmp import ExecInterruptedError, ExecuteError, Message, ProtocolError, QMPClient
from qemu.qmp.message import DeserializationError, UnexpectedTypeError
from qemu.qmp.models import ErrorInfo, ErrorResponse, Greeting
from qemu.qmp.qmp_client import BadReplyError, ServerParseError


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
