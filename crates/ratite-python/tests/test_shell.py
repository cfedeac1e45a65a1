"""A shell on a terminal, driven as a guest's is; and what terminals show."""

import asyncio
import os
import pickle
import pty
import re
import socket
import threading

import pytest

import ratite
import ratite.aio
from ratite import _core


def carry(read, write):
    try:
        while True:
            data = read(65536)
            if not data:
                break
            write(data)
    except OSError:
        pass


@pytest.fixture
def console():
    """The far end of a terminal with a shell on it."""
    pid, near = pty.fork()
    if pid == 0:
        os.execve("/bin/sh", ["sh", "-i"], {"PATH": "/usr/bin:/bin", "PS1": "$ "})
    ours, theirs = socket.socketpair()
    typed = threading.Thread(target=carry, args=(theirs.recv, lambda data: os.write(near, data)))

    def show():
        carry(lambda size: os.read(near, size), theirs.sendall)
        theirs.shutdown(socket.SHUT_RDWR)

    shown = threading.Thread(target=show)
    typed.start(), shown.start()
    console = _core.Console.over(ours.fileno(), 1 << 20, None, 30.0)
    ours.close()
    yield console
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    shown.join(), typed.join()
    os.close(near), theirs.close()


def test_commands_have_their_output_and_their_status(console):
    shell = ratite.Shell.attach(ratite.Console(console))
    ran = shell.run("echo hello; printf '\\033[31mred'; (exit 3)")
    assert (ran.output, ran.status, ran.dropped, ran.success) == ("hello\nred", 3, 0, False)
    assert ran.data == b"hello\r\n\x1b[31mred" and str(ran) == ran.output
    assert repr(ran) == '<ShellOutput status=3 "hello\\nred">'
    assert pickle.loads(pickle.dumps(ran)) == ran and hash(ran) == hash(pickle.loads(pickle.dumps(ran)))
    assert shell.run("cat <<END\n\tit's\nEND").output == "\tit's\n"
    with pytest.raises(ratite.ShellFailed, match="exited with status 7; last line: why") as failed:
        shell.run("echo why; (exit 7)", check=True)
    assert (failed.value.status, failed.value.output, failed.value.result.data) == (7, "why\n", b"why\r\n")
    assert shell.run("true", check=True).success
    with pytest.raises(ratite.ConfigError, match="NUL"):
        shell.run("a\0b")


def test_out_of_time_and_the_end_of_the_shell(console):
    shell = ratite.Shell.attach(ratite.Console(console))
    with pytest.raises(ratite.TimedOut, match="no end of `echo before; sleep 1000` within 0.5 s") as late:
        shell.run("echo before; sleep 1000", timeout=0.5)
    assert late.value.tail == b"before\n"
    assert shell.run("echo again").output == "again\n"
    with pytest.raises(ratite.TimedOut):
        shell.run("cat", timeout=0.2)
    shell.interrupt()
    with pytest.raises(ratite.ShellGone, match="the shell is gone since `exec sh -i`"):
        shell.run("exec sh -i")
    shell = ratite.Shell.attach(ratite.Console(console))
    with pytest.raises(ratite.ConsoleEnded) as ended:
        shell.run("echo bye; exit")
    assert ended.value.tail.startswith(b"bye\n")


def test_a_login_that_is_refused_and_one_that_is_not(console):
    shell = ratite.Shell.attach(ratite.Console(console))
    guest = """
        while :; do
            printf 'Who? '; read -r user; stty -echo; printf 'Word? '; read -r word; stty echo; echo
            if [ "$user $word" = 'me secret' ]; then PS1='in> ' sh -i; else echo 'No, no.'; fi
        done"""
    with pytest.raises(ratite.TimedOut):
        shell.run(guest, timeout=0.5)
    words = {"login_prompt": "Who?", "password_prompt": re.compile(r"^Word\? $"), "refusal": "No,", "shell_prompt": "in> "}
    with pytest.raises(ratite.LoginRefused) as refused:
        ratite.Shell.login(ratite.Console(console), "me", "guessed", **words)
    assert (refused.value.user, refused.value.said) == ("me", "No, no.") and "guessed" not in str(refused.value)
    shell = ratite.Shell.login(ratite.Console(console), "me", "secret", **words)
    assert shell.run("echo in").output == "in\n"


def test_a_login_prompt_is_no_shell(console):
    shell = ratite.Shell.attach(ratite.Console(console))
    with pytest.raises(ratite.ShellError):
        shell.run("printf 'host login: '; cat")
    with pytest.raises(ratite.ShellError, match="host login:"):
        ratite.Shell.attach(ratite.Console(console))


def test_the_same_with_asyncio(console):
    async def scenario():
        face = ratite.aio.Console(console)
        shell = await ratite.aio.Shell.attach(face)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(shell.run("sleep 1000"), 0.3)
        assert (await shell.run("echo again", check=True)).output == "again\n"
        await shell.interrupt()
        view = face.terminal(40, 10)
        assert "again" in await view.wait_for(re.compile("^again$", re.MULTILINE))
        assert view.size == (40, 10) and view.dropped == 0
        for _ in range(20):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(view.wait_for("never"), 0.01)
            assert "again" in view.text
        with pytest.raises(ratite.TimedOut):
            await ratite.aio.Shell.login(face, "root", timeout=0.3)

    asyncio.run(scenario())


def test_a_console_on_a_terminal(fake):
    with fake("console-echo", console=True) as machine:
        view = machine.console.terminal(20, 4)
        machine.console.write(b"\x1b[2J\x1b[3;5Hmenu\x1b[1;1H*\n")
        assert view.wait_for("menu").split("\n")[2] == "    menu"
        assert view.lines[0] == "*" and view.cursor == (1, 1) and len(view.lines) == 4
        view.resize(30, 4)
        assert view.size == (30, 4) and view.text.startswith("*\n") and view.dropped == 0
        with pytest.raises(ratite.TimedOut, match="on the screen"):
            view.wait_for("never", timeout=0.05)


def test_bytes_as_a_terminal_and_as_text():
    terminal = ratite.Terminal(10, 2)
    terminal.feed("é".encode()[:1])
    terminal.feed("é".encode()[1:] + b"\x1b[2;4Hx\x1b[?25l")
    assert (terminal.lines, terminal.text, terminal.cursor, terminal.size) == (["é", "   x"], "é\n   x", None, (10, 2))
    terminal.resize(5, 3)
    assert repr(terminal) == "<Terminal 5x3>" and ratite.Terminal().size == (80, 25)
    assert ratite.plain_text(b"\x1b[1mok\x1b[0m\r\n 1%\r99%\n") == "ok\n99%\n"
