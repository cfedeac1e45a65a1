"""A QMP server that says what a test has it say, for the tests of the drop-in for `qemu.qmp`."""

import asyncio
import json
import socket
import sys
from contextlib import asynccontextmanager, contextmanager

from ratite.compat import qmp_folder

if qmp_folder() not in sys.path:
    sys.path.insert(0, qmp_folder())

from qemu.qmp import QMPClient  # noqa: E402
from qemu.qmp.legacy import QEMUMonitorProtocol  # noqa: E402

from conftest import PATIENCE  # noqa: E402

GREETING = {"QMP": {"version": {"qemu": {"major": 9, "minor": 8, "micro": 7}, "package": ""}, "capabilities": ["oob"]}}


class Peer:
    """The server's end of a connection, driven by the test line by line."""

    def __init__(self, end):
        self.end = end
        self.buffer = b""

    def say(self, *messages):
        self.raw(b"".join(json.dumps(message).encode() + b"\r\n" for message in messages))

    def raw(self, data):
        self.end.settimeout(PATIENCE)
        self.end.sendall(data)

    def hear(self):
        """The next message from the client, which may end with anything."""
        self.end.settimeout(PATIENCE)
        while True:
            try:
                message, length = json.JSONDecoder().raw_decode(self.buffer.decode())
            except ValueError:
                data = self.end.recv(65536)
                assert data, "the client has hung up"
                self.buffer += data
                continue
            self.buffer = self.buffer[length:].lstrip()
            return message

    def answer(self, value):
        """Grants the next command."""
        heard = self.hear()
        self.say({"return": value, "id": heard["id"]})
        return heard

    def greet(self):
        self.say(GREETING)
        return self.answer({})

    def is_hung_up(self):
        self.end.settimeout(PATIENCE)
        try:
            return self.end.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self):
        self.end.close()


class AsyncPeer:
    """The same, for a test that is a coroutine: what waits is awaited."""

    def __init__(self, end):
        self.peer = Peer(end)
        self.raw, self.say, self.close = self.peer.raw, self.peer.say, self.peer.close

    async def _elsewhere(self, call, *args):
        return await asyncio.get_running_loop().run_in_executor(None, call, *args)

    async def hear(self):
        return await self._elsewhere(self.peer.hear)

    async def answer(self, value):
        return await self._elsewhere(self.peer.answer, value)

    async def greet(self):
        return await self._elsewhere(self.peer.greet)

    async def is_hung_up(self):
        return await self._elsewhere(self.peer.is_hung_up)


@asynccontextmanager
async def pair(client=None):
    """A client that is not connected yet, its socket, and the peer."""
    client = QMPClient() if client is None else client
    ours, theirs = socket.socketpair()
    peer = AsyncPeer(theirs)
    try:
        yield client, ours, peer
    finally:
        peer.close()
        ours.close()
        try:
            await client.disconnect()
        except Exception:
            # How it ends is for the tests that look at it.
            pass


@asynccontextmanager
async def session(client=None):
    """A session under way."""
    async with pair(client) as (client, ours, peer):
        await asyncio.gather(client.connect(ours), peer.greet())
        yield client, peer


@contextmanager
def blocking_session(background, **keywords):
    """The same with the client that blocks; `background` does what the other side does meanwhile."""
    ours, theirs = socket.socketpair()
    peer = Peer(theirs)
    monitor = QEMUMonitorProtocol(ours, **keywords)
    try:
        greeted = background.submit(peer.greet)
        monitor.connect()
        greeted.result()
        yield monitor, peer
    finally:
        peer.close()
        ours.close()
        try:
            monitor.close()
        except Exception:
            # How it ends is for the tests that look at it.
            pass
