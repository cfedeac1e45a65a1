"""A guest's agent: QEMU's real one on this system, and one that is not there."""

import asyncio
import os
import socket
import subprocess
import threading

import pytest

import ratite
import ratite.aio
from conftest import AT_ONCE, PATIENCE, REPOSITORY, eventually

DISABLED = (
    "guest-shutdown,guest-suspend-disk,guest-suspend-ram,guest-suspend-hybrid,guest-fsfreeze-freeze,"
    "guest-fsfreeze-freeze-list,guest-fsfreeze-thaw,guest-fstrim,guest-set-time,guest-set-vcpus,"
    "guest-set-memory-blocks,guest-set-user-password"
)
"""What the agent is not to do, since this system is no guest."""


@pytest.fixture
def address(tmp_path):
    """Where a real agent listens; without what would change this system, and without the right to do it."""
    folder = REPOSITORY / os.environ.get("CARGO_TARGET_DIR", "target") / "guest-agent"
    program = folder / "qemu-ga"
    assert program.exists(), f"{program} is missing: `make setup` fetches it"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder / "lib")}
    help_text = subprocess.run([program, "--help"], env=environment, capture_output=True, text=True).stdout
    block = "--block-rpcs" if "--block-rpcs" in help_text else "--blacklist"
    bound = ["setpriv", "--pdeathsig", "KILL"]
    if os.geteuid() == 0:
        bound.append("--bounding-set=-sys_boot,-sys_admin,-sys_time,-sys_module")
    path = tmp_path / "agent"
    words = [program, "--method", "unix-listen", "--path", path, "--statedir", tmp_path, f"{block}={DISABLED}"]
    agent = subprocess.Popen([*bound, *words], env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(path.exists, "the agent listens")
        yield str(path)
    finally:
        agent.kill()
        agent.wait()


def test_a_real_agent(address, tmp_path):
    path, data = tmp_path / "file", bytes(range(256)) * 3000
    with ratite.Agent(address) as agent:
        agent.ping()
        names = {command["name"]: command["enabled"] for command in agent.info()["supported_commands"]}
        assert names["guest-exec"] and not names["guest-shutdown"]

        output = agent.exec("sh", "-c", "cat; echo err >&2; exit 3", input=b"\0\xff", env={"A": "b"})
        assert output == (3, None, b"\0\xff", b"err\n", False, False) and not output.success
        assert agent.exec("sh", "-c", "kill -9 $$").signal == 9
        assert agent.exec("echo", "ä").text == "ä\n"
        assert agent.exec("echo", "x", capture=False).stdout == b""

        agent.write_file(path, data)
        assert path.read_bytes() == data and agent.read_file(path) == data
        assert any(interface["name"] == "lo" for interface in agent.interfaces())
        assert agent.fs_status() == "thawed"
        assert agent.execute("guest-file-open", path=str(path), mode="r") > 0


def test_what_the_agent_refuses_is_told(address):
    with ratite.Agent(address) as agent:
        for refused in (agent.shutdown, agent.fs_freeze, agent.fs_thaw, agent.fs_trim, lambda: agent.suspend("ram")):
            with pytest.raises(ratite.CommandError, match="disabled"):
                refused()
        with pytest.raises(ratite.CommandError) as caught:
            agent.execute("guest-fly")
        assert (caught.value.command, caught.value.error_class) == ("guest-fly", "CommandNotFound")
        with pytest.raises(ratite.CommandError, match="No such file"):
            agent.read_file("/proc/nowhere")


def test_a_program_that_runs_on_is_told_with_its_pid(address):
    with ratite.Agent(address) as agent:
        with pytest.raises(ratite.StillRuns) as caught:
            agent.exec("sleep", "0.5", timeout=0.1)
        assert caught.value.pid > 0 and caught.value.limit == 0.1
        agent.ping()


def test_an_agent_that_is_not_there(tmp_path):
    path = str(tmp_path / "silent")
    with pytest.raises(ratite.ConnectError):
        ratite.Agent(path).ping()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        with pytest.raises(ratite.NoAgent, match="no guest agent answered within 50ms") as caught:
            ratite.Agent(path, timeout=0.05).ping()
        assert isinstance(caught.value, TimeoutError) and caught.value.limit == 0.05
    with pytest.raises(ratite.AddressError):
        ratite.Agent("web")
    with pytest.raises(ratite.ConfigError):
        ratite.Agent(path, timeout=-1)


def test_a_closed_agent_is_closed(address):
    agent = ratite.Agent(address)
    agent.ping()
    agent.close()
    with pytest.raises(ValueError, match="closed"):
        agent.ping()


def test_asyncio(address, tmp_path):
    async def play():
        async with ratite.aio.Agent(address) as agent:
            outputs = await asyncio.gather(*(agent.exec("echo", str(n)) for n in range(10)))
            assert [output.text for output in outputs] == [f"{n}\n" for n in range(10)]
            slow = asyncio.create_task(agent.exec("sleep", "0.3"))
            await asyncio.sleep(0.05)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            await agent.ping()
            assert (await agent.info())["version"]
            await agent.write_file(tmp_path / "file", b"x")
            assert await agent.read_file(tmp_path / "file") == b"x"
            assert await agent.fs_status() == "thawed" and await agent.interfaces()
            for refused in (agent.shutdown, agent.fs_freeze, agent.fs_thaw, agent.fs_trim):
                with pytest.raises(ratite.CommandError, match="disabled"):
                    await refused()
            with pytest.raises(ratite.CommandError, match="disabled"):
                await agent.suspend("disk")

    asyncio.run(asyncio.wait_for(play(), PATIENCE))


def test_a_machine_has_an_agent_if_it_is_asked_for(guest):
    with guest() as machine:
        with pytest.raises(ratite.Error, match="agent=True"):
            machine.agent
    with guest(agent=True, command_timeout=0.2) as machine:
        with pytest.raises(ratite.NoAgent):
            machine.agent.ping()
        waiting = []
        agent = machine.agent
        agent.timeout = 1000.0

        def wait():
            try:
                agent.ping()
            except ratite.Disconnected as error:
                waiting.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        machine.shutdown()
        thread.join(AT_ONCE)
        assert len(waiting) == 1
