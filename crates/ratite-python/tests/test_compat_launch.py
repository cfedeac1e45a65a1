"""The drop-in's launch: how it fails, where its monitor is, and what is left of it."""

import asyncio
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest
from compat import empty, faked  # noqa: F401
from conftest import AT_ONCE, children, eventually

from qemu.machine import QEMUMachine, machine
from qemu.machine.machine import AbnormalShutdown, QEMUMachineError, VMLaunchFailure
from qemu.qmp import ConnectError
from ratite.compat import machine_folder, qmp_folder


def failure(vm):
    with pytest.raises(VMLaunchFailure) as caught:
        vm.launch()
    assert not vm.is_running() and vm.get_pid() is None
    return caught.value


# Launch.


def test_a_machine_is_launched_once_and_again(empty):
    vm = empty()
    for _ in range(3):
        vm.launch()
        with pytest.raises(QEMUMachineError, match="VM already launched"):
            vm.launch()
        assert vm.is_running() and vm.exitcode() is None and vm.get_pid() == vm._popen.pid == vm._subp.pid
        vm.shutdown()
        assert (vm.is_running(), vm.exitcode(), vm.get_pid()) == (False, 0, None)


def test_a_wrong_argument_is_told_with_status_and_output(empty):
    # D-58
    vm = empty("-nonsense")

    error = failure(vm)

    assert isinstance(error.__cause__, ConnectError) and isinstance(error.__cause__.exc, EOFError)
    assert (error.exitcode, vm.exitcode()) == (1, 1)
    assert "invalid option" in error.output and error.output == vm.get_log()
    assert error.args == (error.exitcode, error.command, error.output)
    assert str(error).splitlines()[0] == (
        "ConnectError: Failed to establish session: QEMU exited with status 1 before its monitor was ready"
    )
    assert "\tExit code: 1\n\tCommand: qemu-system-x86_64 " in str(error)
    vm.args.remove("-nonsense")
    vm.launch()


def test_a_program_that_exits_well_is_a_failure_too(base):
    error = failure(QEMUMachine("true", base_temp_dir=str(base)))

    assert error.exitcode == 0 and error.output == ""


def test_the_command_can_be_pasted_into_a_shell(base):
    # D-31
    error = failure(QEMUMachine("/no/such", ["a b", ""], base_temp_dir=str(base)))

    assert error.command.endswith(" 'a b' ''")


@pytest.mark.parametrize(
    "binary, kind",
    [("/no/such/qemu", FileNotFoundError), ("/etc/passwd", PermissionError), ("/etc", PermissionError)],
)
def test_a_binary_that_cannot_be_run_is_told_by_its_name(base, binary, kind):
    # D-27, D-64
    error = failure(QEMUMachine(binary, base_temp_dir=str(base)))

    assert isinstance(error.__cause__, kind) and binary in str(error.__cause__)
    assert error.exitcode is None


@pytest.mark.parametrize("name", ["a/b", "n" * 260, "nul\0"])
def test_a_name_that_names_no_file_is_a_launch_failure(faked, name):
    # D-27
    assert failure(faked(name=name)).exitcode is None


@pytest.mark.parametrize("name", ["a,b", "a b", "ü%", "-dash"])
def test_odd_names_are_fine(faked, name):
    faked(name=name).launch()


def test_a_log_folder_that_is_a_file_is_a_launch_failure_that_names_it(faked, tmp_path):
    # D-27
    (tmp_path / "file").touch()

    error = failure(faked(log_dir=str(tmp_path / "file")))

    assert isinstance(error.__cause__, OSError) and str(tmp_path / "file") in str(error)


@pytest.mark.parametrize("argument", [5, "a\0b", None])
def test_an_argument_that_is_none_is_a_launch_failure(faked, argument):
    # D-27
    vm = faked()
    vm.args.append(argument)

    assert isinstance(failure(vm).__cause__, (TypeError, ValueError))


def test_a_failed_launch_knows_nothing_of_the_run_before(faked):
    # D-28
    vm = faked()
    vm.launch()
    vm.shutdown()
    assert vm.exitcode() == 0
    vm._binary = "/no/such/qemu"

    error = failure(vm)

    assert error.exitcode is vm.exitcode() is None and "/no/such/qemu" in error.command


@pytest.mark.parametrize("word", ["silent", "nego-silent", "no-connect", "half-greeting"])
@pytest.mark.parametrize("addressed", [False, True])
def test_a_monitor_that_says_nothing_ends_the_launch_in_time(faked, tmp_path, word, addressed):
    # D-03, D-17
    vm = faked(word, qmp_timer=1, monitor_address=str(tmp_path / "sock") if addressed else None)
    start = time.monotonic()

    error = failure(vm)

    assert 0.9 < time.monotonic() - start < AT_ONCE
    assert isinstance(error.__cause__, (asyncio.TimeoutError, ConnectError)) and not os.path.exists(tmp_path / "sock")


@pytest.mark.parametrize("word", ["garbage-greeting", "close-before-greeting", "nego-error", "close-after-greeting"])
def test_a_monitor_that_goes_wrong_ends_the_launch_at_once(faked, word):
    # D-17, D-44
    start = time.monotonic()

    error = failure(faked(word))

    assert time.monotonic() - start < AT_ONCE
    assert isinstance(error.__cause__, ConnectError) and str(error.__cause__)


@pytest.mark.parametrize("timer", [60, None])
@pytest.mark.parametrize("address", ["path", "port"])
def test_the_end_of_the_process_ends_the_wait_for_it(faked, tmp_path, address, timer):
    # D-04
    where = str(tmp_path / "sock") if address == "path" else ("localhost", 0)
    vm = faked("exit-before-monitor=3", monitor_address=where, qmp_timer=timer)
    start = time.monotonic()

    error = failure(vm)

    assert time.monotonic() - start < AT_ONCE
    assert error.exitcode == 3 and "machine type" in error.output


def test_an_exit_right_after_the_handshake_is_told_with_its_status(faked):
    # D-58
    error = failure(faked("exit-after-greeting=7"))

    assert error.exitcode == 7 and "AssertionError" not in str(error)


def test_early_events_are_kept(faked):
    # D-44
    vm = faked("nego-event")
    vm.launch()

    assert [event["event"] for event in vm.get_qmp_events()] == ["FAKE_EARLY", "FAKE_EARLY"]


def test_an_interrupted_launch_leaves_nothing_and_stays_an_interruption(faked):
    # D-17
    vm = faked("silent")

    def interrupt(*_):
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        vm.launch()
    signal.signal(signal.SIGALRM, old)

    assert time.monotonic() - start < AT_ONCE and not vm.is_running() and not vm._launched


def test_without_a_monitor_a_launch_does_not_wait(base):
    vm = QEMUMachine("true", base_temp_dir=str(base))
    vm.set_qmp_monitor(False)

    vm.launch()

    with pytest.raises(QEMUMachineError, match="Attempt to access QMP with no connection"):
        vm.cmd("query-status")
    vm.shutdown()


# Monitors at addresses.


def test_a_monitor_at_a_path_is_private_and_its_file_goes(empty, tmp_path):
    # D-10, D-20
    where = tmp_path / "mo,n.sock"
    modes = []

    class Mine(QEMUMachine):
        def _pre_launch(self):
            super()._pre_launch()
            modes.append(stat.S_IMODE(where.stat().st_mode))

    vm = empty(kind=Mine, monitor_address=where)
    vm.launch()

    assert vm.cmd("query-status")["running"] and modes == [0o600]
    vm.shutdown()
    assert not where.exists()


def test_a_monitor_at_any_port_and_over_ipv6_works(empty):
    # D-22
    for host in ("127.0.0.1", "localhost", "::1"):
        vm = empty(monitor_address=(host, 0))
        vm.launch()
        assert vm.cmd("query-status")["running"]
        vm.shutdown()


def test_a_file_at_the_monitors_path_is_left_alone(faked, tmp_path):
    # D-08
    (tmp_path / "file").write_text("precious")

    error = failure(faked(monitor_address=str(tmp_path / "file")))

    assert (tmp_path / "file").read_text() == "precious" and isinstance(error.__cause__, ConnectError)


def test_a_folder_at_the_monitors_path_is_told(faked, tmp_path):
    # D-08
    assert isinstance(failure(faked(monitor_address=str(tmp_path))).__cause__, ConnectError)


def test_a_living_socket_is_not_taken_away_and_a_dead_one_is(faked, tmp_path):
    # D-09
    where = str(tmp_path / "sock")
    other = socket.socket(socket.AF_UNIX)
    other.bind(where)
    other.listen()

    failure(faked(monitor_address=where))

    assert os.path.exists(where)
    other.close()
    faked(monitor_address=where).launch()


def test_a_path_that_is_too_long_is_named(faked, tmp_path):
    # D-23
    where = str(tmp_path / ("n" * 108))

    assert where in str(failure(faked(monitor_address=where)))


def test_a_relative_path_survives_a_change_of_folder(faked, tmp_path, monkeypatch):
    # D-24
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "sock").write_text("precious")
    vm = faked(monitor_address="sock")
    vm.launch()

    monkeypatch.chdir(tmp_path / "sub")
    vm.shutdown()

    assert (tmp_path / "sub" / "sock").read_text() == "precious" and not (tmp_path / "sock").exists()


def test_a_stranger_at_the_monitors_address_is_turned_away(faked, tmp_path):
    # D-10
    where = str(tmp_path / "sock")
    stranger = socket.socket(socket.AF_UNIX)

    class Mine(QEMUMachine):
        def _pre_launch(self):
            super()._pre_launch()
            stranger.connect(where)

    vm = faked(kind=Mine, monitor_address=where)
    vm.launch()

    assert vm.cmd("query-status") and stranger.recv(1) == b""
    stranger.close()


@pytest.mark.parametrize("address", ["", (), ["a"], ("", 5), ("h", "p")])
def test_an_address_that_is_none_is_a_launch_failure(faked, address):
    failure(faked(monitor_address=address))


def test_the_logger_is_that_of_the_original(faked, caplog):
    caplog.set_level(logging.DEBUG, "qemu.machine")
    vm = faked()
    vm.launch()

    assert machine.LOG.name == "qemu.machine.machine"
    assert any("VM launch command" in record.getMessage() for record in caplog.records)


def test_nothing_survives_a_controller_that_is_killed(fake_qemu, base):
    # D-02
    program = f"""
import sys
sys.path[:0] = [{machine_folder()!r}, {qmp_folder()!r}]
from qemu.machine import QEMUMachine
vm = QEMUMachine({fake_qemu!r}, base_temp_dir={str(base)!r})
vm.launch()
print(vm.get_pid(), flush=True)
sys.stdin.read()
"""
    controller = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pid = int(controller.stdout.readline())

    controller.kill()
    controller.communicate()

    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the end of QEMU")
    eventually(lambda: not list(base.glob("qemu-machine-*")), "the end of the folder")


def test_a_machine_that_is_let_go_of_ends(fake_qemu, base):
    # D-02
    vm = QEMUMachine(fake_qemu, base_temp_dir=str(base))
    vm.launch()
    pid = vm.get_pid()

    del vm

    eventually(lambda: pid not in children(), "the end of QEMU")


def test_the_process_looks_like_one_of_subprocess(faked):
    vm = faked()
    assert vm._popen is None
    with pytest.raises(QEMUMachineError):
        vm._subp
    vm.launch()
    process = vm._popen

    assert process.poll() is process.returncode is None and process.args == list(vm._qemu_full_args)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    process.kill()
    assert process.wait() == process.poll() == process.returncode == -9


def test_a_termination_of_the_process_is_carried_out(faked):
    vm = faked()
    vm.launch()

    vm._popen.terminate()

    assert vm._popen.wait(AT_ONCE) is not None
    vm.wait()


def test_daemonizing_is_refused(empty):
    # D-34
    assert "daemonize" in str(failure(empty("-daemonize")))


def test_the_command_line_is_empty_when_it_did_not_come_to_one(faked, tmp_path):
    error = failure(faked(monitor_address=str(tmp_path)))

    assert error.command == "" and error.output is None


def test_the_body_of_a_context_counts_more_than_the_shutdown(faked):
    # D-29
    with pytest.raises(ZeroDivisionError):
        with faked("ignore-quit") as vm:
            vm.launch()
            vm.shutdown = lambda: (_ for _ in ()).throw(AbnormalShutdown("x"))
            raise ZeroDivisionError
    del vm.shutdown
    with pytest.raises(AbnormalShutdown):
        with vm:
            vm.shutdown = lambda: (_ for _ in ()).throw(AbnormalShutdown("x"))
    del vm.shutdown


def test_entering_launches_nothing(faked):
    vm = faked()

    with vm as entered:
        assert entered is vm and not vm.is_running()




def test_without_any_qmp_package_ratites_own_is_used(fake_qemu, base):
    program = f"""
import sys
sys.path.insert(0, {machine_folder()!r})
from qemu.machine import QEMUMachine
with QEMUMachine({fake_qemu!r}, base_temp_dir={str(base)!r}) as vm:
    vm.launch()
    try:
        vm.cmd("nonsense")
    except Exception as error:
        print(type(error).__module__, type(error).__name__, sys.modules["qemu.qmp"].__file__)
"""
    told = subprocess.check_output([sys.executable, "-c", program], text=True, cwd="/").split()

    assert told[:2] == ["qemu.qmp.qmp_client", "ExecuteError"] and told[2].startswith(qmp_folder())


def test_a_process_that_was_forked_off_ends_nothing(faked):
    vm = faked()
    vm.launch()
    _ = vm.temp_dir

    pid = os.fork()
    if pid == 0:
        del vm
        os._exit(0)
    os.waitpid(pid, 0)

    assert vm.cmd("query-status") and os.path.isdir(vm.temp_dir)


def test_no_time_for_a_handshake_is_over_at_once(faked):
    start = time.monotonic()

    failure(faked("greeting-delay=10000", qmp_timer=0))

    assert time.monotonic() - start < AT_ONCE
