"""The drop-in's console: a socket, behind which everything is read from the first byte on."""

import errno
import os
import select
import socket
import time

import pytest
from compat import empty, faked  # noqa: F401
from conftest import AT_ONCE, eventually

from qemu.machine.console_socket import ConsoleSocket
from qemu.machine.machine import QEMUMachineError, VMLaunchFailure


@pytest.fixture
def speaking(faked):
    """Makes machines with a console."""

    def make(*words, index=0, device=None, **keywords):
        vm = faked(*words, **keywords)
        vm.set_console(device, console_index=index)
        vm.launch()
        return vm

    return make


def received(sock, size):
    """Exactly so many bytes."""
    found = b""
    while len(found) < size:
        block = sock.recv(size - len(found))
        assert block, f"the end after {found!r}"
        found += block
    return found


# The socket of a machine.


def test_the_console_is_read_byte_for_byte_and_not_ahead(speaking):
    vm = speaking("console-banner=login: more")
    found = b""
    while not found.endswith(b": "):
        found += vm.console_socket.recv(1)

    assert found == b"login: "
    assert received(vm.console_socket, 4) == b"more"


def test_a_read_without_a_size_is_one_byte(speaking):
    vm = speaking("console-banner=ab")

    assert (vm.console_socket.recv(), vm.console_socket.recv(0), vm.console_socket.recv()) == (b"a", b"", b"b")


def test_what_is_sent_arrives(speaking):
    vm = speaking("console-echo")

    vm.console_socket.sendall(b"one\n")
    assert received(vm.console_socket, 14) == b"you said: one\n"
    vm.console_socket.send(b"t")
    vm.console_socket.send(b"wo\n")
    assert received(vm.console_socket, 14) == b"you said: two\n"


def test_it_is_one_real_socket_until_the_end(speaking):
    vm = speaking("console-banner=a\nb\n")
    sock = vm.console_socket

    assert isinstance(sock, socket.socket) and sock is vm.console_socket and sock.fileno() > 0
    assert select.select([sock], [], [], AT_ONCE)[0] == [sock]
    lines = sock.makefile("rb")
    assert lines.readline() == b"a\n"
    lines.close()
    vm.shutdown()
    assert sock.fileno() == -1


def test_the_file_is_unbuffered_and_goes_with_the_machine(speaking):
    vm = speaking("console-banner=abc")
    file = vm.console_file

    assert file is vm.console_file and file.read(1) == b"a"
    assert received(vm.console_socket, 2) == b"bc"
    vm.shutdown()
    assert file.closed
    vm.launch()
    assert vm.console_file is not file and vm.console_file.read(1) == b"a"


def test_timeouts_and_blocking_are_those_of_a_socket(speaking):
    vm = speaking()

    vm.console_socket.settimeout(0.1)
    with pytest.raises(socket.timeout):
        vm.console_socket.recv(1)
    vm.console_socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        vm.console_socket.recv(1)
    vm.console_socket.setblocking(True)
    assert vm.console_socket.gettimeout() is None


def test_the_end_is_told_behind_the_last_byte(speaking):
    # D-13
    vm = speaking("console-banner=abc", "console-close")

    assert received(vm.console_socket, 3) == b"abc"
    assert vm.console_socket.recv(1) == b""


def test_what_was_said_before_the_end_can_still_be_read(speaking):
    # D-62
    vm = speaking("console-banner=abc")
    vm.cmd("quit")
    vm._popen.wait()

    assert received(vm.console_socket, 3) == b"abc"
    assert vm.console_socket.recv(1) == b""


def test_it_can_be_closed_by_the_caller(speaking):
    vm = speaking()

    vm.console_socket.close()
    vm.console_socket.close()

    with pytest.raises(OSError) as caught:
        vm.console_socket.recv(1)
    assert caught.value.errno == errno.EBADF
    vm.shutdown()


def test_without_a_console_there_is_an_error_that_says_so(faked):
    # D-62
    text = "Attempt to access console socket with no connection"
    vm = faked()
    with pytest.raises(QEMUMachineError, match=text):
        vm.console_socket
    vm.set_console()
    with pytest.raises(QEMUMachineError, match=text):
        vm.console_socket
    vm.launch()
    assert vm.console_socket
    vm.shutdown()
    with pytest.raises(QEMUMachineError, match=text):
        vm.console_file


def test_other_consoles_come_first(speaking):
    vm = speaking("console-banner=x", index=2)

    words = list(vm._qemu_full_args)

    assert words.count("null") == 2
    assert received(vm.console_socket, 1) == b"x"


def test_a_device_can_be_the_console(speaking):
    vm = speaking("console-banner=x", device="isa-serial")

    assert "isa-serial,chardev=console" in vm._qemu_full_args
    assert received(vm.console_socket, 1) == b"x"


# Draining.


@pytest.mark.parametrize("drain", [False, True])
def test_nobody_has_to_look(speaking, drain):
    # D-11, D-12
    vm = speaking("console-flood=3000000", drain_console=drain)

    # QEMU answers only once it has written.
    vm.cmd("fake-console", {"text": "end", "bytes": 0})

    assert vm._console.bytes_seen > 0
    eventually(lambda: vm._console.bytes_seen == 3000003, "all of it")


def test_what_came_before_the_first_look_is_there(speaking):
    # D-12
    vm = speaking("console-flood=1000000")

    assert len(received(vm.console_socket, 1000000)) == 1000000


def test_a_megabyte_takes_no_time(speaking):
    # D-13
    vm = speaking("console-flood=1000000", drain_console=True)
    start = time.monotonic()

    received(vm.console_socket, 1000000)

    assert time.monotonic() - start < AT_ONCE


def test_a_drained_console_returns_what_is_there(speaking):
    # D-13
    vm = speaking("console-banner=abc", drain_console=True)

    assert vm.console_socket.gettimeout() == 300
    assert vm.console_socket.recv(100)


def test_closing_takes_no_time(speaking):
    # D-13
    vm = speaking(drain_console=True)
    vm.console_socket
    start = time.monotonic()

    vm.shutdown()

    assert time.monotonic() - start < 1


def test_the_log_has_every_byte_though_nobody_looks(speaking, tmp_path, monkeypatch):
    # D-12
    monkeypatch.chdir(tmp_path)
    vm = speaking("console-banner=abc", "quit-console=100000", console_log="log")

    assert vm._drain_console
    vm.shutdown()

    written = (tmp_path / "log").read_bytes()
    assert written.startswith(b"abc") and len(written) == 100003


def test_a_log_that_cannot_be_opened_is_a_launch_failure(faked, tmp_path):
    vm = faked(console_log=str(tmp_path / "missing" / "log"))
    vm.set_console()

    with pytest.raises(VMLaunchFailure) as caught:
        vm.launch()

    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_full_disk_does_not_stop_the_guest(speaking, caplog):
    # D-14
    vm = speaking("console-flood=1000000", console_log="/dev/full")

    received(vm.console_socket, 1000000)
    vm.shutdown()

    assert len([record for record in caplog.records if "log is incomplete" in record.getMessage()]) == 1


def test_a_console_that_floods_does_not_hold_up_the_end(speaking):
    vm = speaking("console-flood=0")
    vm.console_socket
    start = time.monotonic()

    vm.shutdown()

    assert time.monotonic() - start < AT_ONCE and vm.exitcode() == 0


def test_a_failed_launch_leaves_no_pair(faked):
    # D-30
    vm = faked()
    vm.set_console()
    vm._binary = "/no/such/qemu"
    before = set(os.listdir("/proc/self/fd"))

    with pytest.raises(VMLaunchFailure):
        vm.launch()

    eventually(lambda: set(os.listdir("/proc/self/fd")) <= before, "the end of the descriptors")


# The class alone.


@pytest.fixture
def peer(tmp_path):
    """A socket that says what is to be said, at a path."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "sock"))
    listener.listen()
    yield listener
    listener.close()


def test_it_takes_either_a_path_or_a_number():
    for arguments in ((), (None, None), ("/x", 1)):
        with pytest.raises(ValueError):
            ConsoleSocket(*arguments)


def test_a_path_where_nobody_is_is_what_the_system_says(tmp_path):
    with pytest.raises(FileNotFoundError):
        ConsoleSocket(str(tmp_path / "missing"))


@pytest.mark.parametrize("drain", [False, True])
def test_it_connects_to_a_path(peer, tmp_path, drain):
    with ConsoleSocket(str(tmp_path / "sock"), drain=drain) as console:
        other, _ = peer.accept()
        other.sendall(b"abc")
        console.sendall(b"x")
        assert received(console, 3) == b"abc" and other.recv(1) == b"x"
        other.close()
        assert console.recv(1) == b""
        assert "read in the background" in repr(console) if drain else "not drained" in repr(console)


@pytest.mark.parametrize("drain", [False, True])
def test_it_takes_over_a_number(drain):
    ours, theirs = socket.socketpair()

    with ConsoleSocket(None, ours.detach(), None, drain) as console:
        theirs.sendall(b"abc")
        assert received(console, 3) == b"abc"

    eventually(lambda: is_over(theirs), "the end")
    theirs.close()


def is_over(sock):
    try:
        return sock.send(b"x") == 0
    except BrokenPipeError:
        return True


@pytest.mark.parametrize("old", [False, True])
def test_a_file_gets_everything_in_both_orders_of_arguments(peer, tmp_path, old):
    log = tmp_path / "log"
    where = str(tmp_path / "sock")

    console = ConsoleSocket(where, str(log), True) if old else ConsoleSocket(where, None, str(log), True)

    with console:
        other, _ = peer.accept()
        other.sendall(b"abc")
        eventually(lambda: log.read_bytes() == b"abc", "the log")
        other.close()
    assert str(log) in repr(console)
