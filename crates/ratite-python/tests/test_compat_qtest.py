"""The drop-in's qtest: the protocol, and machines under it."""

import os
import socket
import threading

import pytest
from compat import empty, faked  # noqa: F401

from qemu.machine import QEMUQtestMachine, QEMUQtestProtocol
from qemu.machine.machine import QEMUMachineError, VMLaunchFailure


@pytest.fixture
def under_test(faked):
    """A machine that answers to qtest."""
    vm = faked(kind=QEMUQtestMachine)
    vm.launch()
    return vm


def test_an_answer_is_a_line(under_test):
    assert under_test.qtest("clock_step").startswith("OK") and under_test.qtest("clock_step").endswith("\n")


def test_interrupts_are_no_answers(faked):
    # D-48
    vm = faked("qtest-irq", kind=QEMUQtestMachine)
    vm.launch()

    assert all(vm.qtest("clock_step").startswith("OK") for _ in range(3))
    vm._qtest.wait_irq(8, True)
    assert vm._qtest.irqs == {8: True}


@pytest.mark.parametrize("command", ["", " ", "a\nb", "a\n", "a\0"])
def test_what_is_not_one_command_is_refused(under_test, command):
    # D-59
    with pytest.raises(ValueError):
        under_test.qtest(command)

    assert under_test.qtest("clock_step").startswith("OK")


def test_a_command_has_a_limit():
    # D-48
    ours, theirs = socket.socketpair()
    protocol = QEMUQtestProtocol(sock=ours)
    protocol.connect()
    protocol.settimeout(0.1)

    with pytest.raises(socket.timeout):
        protocol.cmd("clock_step")
    protocol.settimeout(None)
    theirs.recv(100)
    thread = threading.Thread(target=lambda: (theirs.recv(100), theirs.sendall(b"OK late\nOK 2\n")))
    thread.start()

    assert protocol.cmd("clock_step") == "OK 2\n"
    thread.join()
    protocol.close()
    theirs.close()


def test_before_and_behind_a_run_there_is_nobody(faked):
    vm = faked(kind=QEMUQtestMachine)
    with pytest.raises(RuntimeError):
        vm.qtest("clock_step")
    vm.launch()
    vm.shutdown()
    with pytest.raises(RuntimeError):
        vm.qtest("clock_step")
    vm.launch()
    vm._popen.kill()
    with pytest.raises(BrokenPipeError):
        vm.qtest("clock_step")
    vm.kill()


def test_the_arguments_stand_behind_the_others(under_test):
    words = list(under_test._qemu_full_args)

    at = words.index("-qtest")
    assert words[at - 2] == "-chardev" and words[at - 1].startswith("socket,id=qtest,fd=")
    assert words[at + 1 :] == ["chardev:qtest", "-accel", "qtest"]


@pytest.mark.parametrize(
    "positional, sock_dir, timer",
    [((), None, None), ((5,), None, 5), (("socks",), "socks", None), ((None, 5), None, 5), (("socks", 5), "socks", 5)],
)
def test_both_generations_orders_of_arguments_are_taken(positional, sock_dir, timer):
    vm = QEMUQtestMachine("qemu", (), (), None, "/var/tmp", *positional)

    assert (vm._sock_dir, vm._qmp_timer, vm._name) == (sock_dir, timer, f"qemu-{os.getpid()}")


def test_everything_else_is_taken_by_name(faked, tmp_path):
    # D-49
    vm = faked("stderr=x", kind=QEMUQtestMachine, name="m", log_dir=str(tmp_path), monitor_address=str(tmp_path / "sock"))
    vm.launch()
    vm.shutdown()

    assert (tmp_path / "m.log").read_text() == "x\n"


def test_a_qemu_without_the_accelerator_is_told_of(base, tmp_path):
    # D-49
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho 'qemu: invalid accelerator qtest' >&2\nexit 1\n")
    program.chmod(0o755)
    vm = QEMUQtestMachine(str(program), base_temp_dir=str(base))

    with pytest.raises(VMLaunchFailure) as caught:
        vm.launch()

    assert isinstance(caught.value.__cause__, QEMUMachineError) and "accel='tcg'" in str(caught.value)
    assert caught.value.exitcode == 1


def test_another_accelerator_does(empty):  # noqa: F811
    # D-49
    vm = empty(kind=QEMUQtestMachine, accel="tcg")
    vm.launch()

    assert vm.qtest("endianness").startswith("OK")


def test_the_protocol_takes_a_socket_or_an_address():
    ours, theirs = socket.socketpair()
    for arguments in ({}, {"address": "/x", "sock": ours}, {"sock": ours, "server": True}):
        with pytest.raises(ValueError):
            QEMUQtestProtocol(**arguments)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("old", [False, True])
def test_the_protocol_connects_and_accepts(tmp_path, old):
    where = str(tmp_path / "sock")
    server = QEMUQtestProtocol(where, True) if old else QEMUQtestProtocol(where, server=True)
    with socket.socket(socket.AF_UNIX) as qemu:
        qemu.connect(where)
        server.accept()
        thread = threading.Thread(target=lambda: (qemu.recv(100), qemu.sendall(b"OK 0x1\n")))
        thread.start()
        assert server.cmd("readb 0") == "OK 0x1\n"
        thread.join()
    server.close()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        client = QEMUQtestProtocol(where)
        try:
            client.connect()
        finally:
            client.close()
    with pytest.raises(BrokenPipeError):
        client.cmd("x")


def test_an_address_that_is_taken_is_what_the_system_says(tmp_path):
    where = str(tmp_path / "sock")
    server = QEMUQtestProtocol(where, server=True)

    with pytest.raises(OSError):
        QEMUQtestProtocol(where, server=True)

    server.close()
