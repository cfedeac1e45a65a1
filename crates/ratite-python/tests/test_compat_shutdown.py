"""The drop-in's ends: asked for, by force, by itself, and interrupted."""

import logging
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from compat import empty, faked  # noqa: F401
from conftest import AT_ONCE, eventually, runs

from qemu.machine.machine import AbnormalShutdown


def elapsed(act):
    start = time.monotonic()
    act()
    return time.monotonic() - start


def abnormal(act):
    with pytest.raises(AbnormalShutdown, match="^Could not perform graceful shutdown") as caught:
        act()
    return caught.value


def has_handler(pid, number):
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def interrupted(act, after=0.3):
    """Ends `act` by an exception from a signal handler."""

    def over(*_):
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        with pytest.raises(KeyboardInterrupt):
            act()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@pytest.mark.parametrize("end", ["shutdown", "kill", "wait"])
def test_a_machine_that_was_not_launched_is_left_as_it_is(faked, end):
    # D-25
    vm = faked()
    for _ in range(2):
        getattr(vm, end)()
    assert not vm._quit_issued

    vm.launch()

    assert elapsed(vm.shutdown) < AT_ONCE and vm.exitcode() == 0


def test_a_machine_quits_when_it_is_asked_to(empty):
    vm = empty()
    vm.launch()

    vm.shutdown()
    vm.shutdown()

    assert (vm.exitcode(), vm.is_running(), vm.get_log()) == (0, False, "")


def test_a_machine_without_a_monitor_is_terminated(empty, caplog):
    # D-32
    for turn in range(2):
        vm = empty()
        vm.set_qmp_monitor(False)
        vm.launch()
        if turn:
            eventually(lambda: has_handler(vm.get_pid(), signal.SIGTERM), "the start")

        vm.shutdown()

        assert vm.exitcode() in (0, -15)
    assert caplog.records == []


def test_without_a_monitor_any_end_is_one(faked):
    vm = faked("exit-before-monitor=3")
    vm.set_qmp_monitor(False)
    vm.launch()
    vm._popen.wait()

    vm.shutdown()

    assert vm.exitcode() == 3


def test_killing_is_no_error_and_no_warning(faked, caplog):
    # D-32
    vm = faked("ignore-quit", "ignore-sigterm")
    vm.launch()

    vm.kill()
    vm.kill()

    assert vm.exitcode() == -9 and not caplog.records


@pytest.mark.parametrize("end", ["kill", "shutdown", "wait"])
def test_a_stopped_process_holds_up_nothing(faked, end):
    # D-01
    vm = faked()
    vm.launch()
    os.kill(vm.get_pid(), signal.SIGSTOP)

    if end == "kill":
        assert elapsed(vm.kill) < AT_ONCE
    else:
        assert 0.9 < elapsed(lambda: abnormal(lambda: getattr(vm, end)(timeout=1))) < AT_ONCE
    assert vm.exitcode() == -9


@pytest.mark.parametrize("word", ["ignore-quit", "never-answer=quit", "hang-on=quit"])
def test_a_quit_that_leads_to_nothing_is_bounded(faked, word):
    # D-01
    vm = faked(word, "ignore-sigterm")
    vm.launch()

    took = elapsed(lambda: abnormal(lambda: vm.shutdown(timeout=1)))

    assert 0.9 < took < AT_ONCE and vm.exitcode() == -9 and not vm.is_running()


def test_a_negative_timeout_is_over_at_once(faked):
    vm = faked("ignore-quit")
    vm.launch()

    assert elapsed(lambda: abnormal(lambda: vm.shutdown(timeout=-1))) < AT_ONCE


def test_no_timeout_is_for_ever(faked):
    vm = faked("quit-delay=300")
    vm.launch()

    vm.shutdown(timeout=None)

    assert vm.exitcode() == 0


@pytest.mark.parametrize(
    "word, code",
    [("quit-no-reply", 0), ("quit-status=3", 3), ("exit-after=300", 0), ("guest-shutdown-after=1", 0)],
)
def test_an_end_without_a_fault_is_none(faked, word, code):
    # D-26
    vm = faked(word)
    vm.launch()
    if "after" in word:
        vm._popen.wait()

    vm.shutdown()

    assert vm.exitcode() == code


@pytest.mark.parametrize("word, code", [("exit-on=quit", 1), ("abort-on=quit", -6)])
def test_an_end_with_a_fault_is_told(faked, word, code):
    # D-26
    vm = faked(word)
    vm.launch()

    error = abnormal(vm.shutdown)

    assert vm.exitcode() == code and ("status 1" in str(error) or "SIGABRT" in str(error))


def test_a_crash_before_the_shutdown_is_told_and_warned_of(faked, caplog):
    vm = faked()
    vm.launch()
    os.kill(vm.get_pid(), signal.SIGABRT)
    vm._popen.wait()

    abnormal(vm.shutdown)

    assert [record.getMessage().split(";")[0] for record in caplog.records] == ["qemu received signal 6"]
    assert vm.exitcode() == -6


def test_waiting_takes_any_end_and_asks_for_none(faked):
    for word, code in (("exit-after=200", 0), ("guest-shutdown-after=200", 0)):
        vm = faked(word)
        vm.launch()
        vm.wait()
        assert vm.exitcode() == code
    vm = faked()
    vm.launch()
    os.kill(vm.get_pid(), signal.SIGKILL)
    vm.wait()
    assert vm.exitcode() == -9


def test_a_wait_that_is_over_kills(faked):
    vm = faked()
    vm.launch()

    abnormal(lambda: vm.wait(timeout=0.2))

    assert vm.exitcode() == -9
    # D-25
    vm.launch()
    vm.shutdown()
    assert vm.exitcode() == 0


@pytest.mark.parametrize("how", ["qmp", "cmd"])
def test_a_quit_of_ones_own_is_no_surprise(faked, how):
    vm = faked("quit-status=5")
    vm.launch()

    getattr(vm, how)("quit")
    vm.shutdown()

    assert vm.exitcode() == 5


def test_a_quit_by_the_human_monitor_is_no_surprise(empty):
    # D-26
    vm = empty()
    vm.launch()

    vm.qmp("human-monitor-command", command_line="quit")
    vm.shutdown()

    assert vm.exitcode() == 0


def test_a_broken_monitor_is_got_round(faked):
    # D-26
    vm = faked()
    vm.launch()
    vm._qmp._client.close().wait()

    vm.shutdown()

    assert vm.exitcode() is not None


def test_everything_that_was_started_ends(base):
    # D-34
    from qemu.machine import QEMUMachine

    vm = QEMUMachine("sleep", ["1000"], wrapper=["sh", "-c", 'sleep 1000; true', "sh"], base_temp_dir=str(base))
    vm.set_qmp_monitor(False)
    vm.launch()

    vm.kill()

    assert vm.exitcode() == -9


@pytest.mark.parametrize("end", ["shutdown", "wait"])
def test_an_interrupted_end_can_be_asked_for_again(faked, end):
    # D-06
    vm = faked("ignore-quit")
    vm.launch()
    pid = vm.get_pid()

    interrupted(lambda: getattr(vm, end)(timeout=60))

    assert runs(pid) and vm.is_running()
    vm.kill()
    assert not runs(pid) and not vm.is_running()


def test_a_kill_overtakes_a_shutdown_of_another_thread(faked):
    # D-06, D-47
    vm = faked("ignore-quit", "ignore-sigterm")
    vm.launch()
    found = []

    def soft():
        try:
            vm.shutdown(timeout=60)
        except AbnormalShutdown as error:
            found.append(error)

    thread = threading.Thread(target=soft)
    thread.start()
    eventually(lambda: vm._qmp_connection is None or not vm._changing.acquire(blocking=False) or vm._changing.release(), "it")

    assert elapsed(vm.kill) < AT_ONCE
    thread.join()
    assert vm.exitcode() == -9 and not vm.is_running()


def test_several_threads_end_one_machine(faked):
    vm = faked()
    vm.launch()
    threads = [threading.Thread(target=vm.shutdown) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert vm.exitcode() == 0


def test_a_console_log_that_cannot_be_written_keeps_nobody_alive(faked, caplog):
    # D-06, D-14
    vm = faked("console-flood=100000", console_log="/dev/full")
    vm.set_console()
    vm.launch()
    pid = vm.get_pid()

    vm.kill()

    assert not runs(pid)
    assert [record for record in caplog.records if "log is incomplete" in record.getMessage()]


def test_a_hook_that_fails_does_not_make_a_machine_unusable(faked):
    # D-07
    from qemu.machine import QEMUMachine

    class Mine(QEMUMachine):
        fails = True

        def _post_shutdown(self):
            super()._post_shutdown()
            if self.fails:
                raise ZeroDivisionError

    vm = faked(kind=Mine)
    vm.launch()
    with pytest.raises(ZeroDivisionError):
        vm.shutdown()
    Mine.fails = False
    vm.launch()
    vm.shutdown()


def test_registered_files_are_removed_and_missing_ones_are_fine(faked, tmp_path):
    vm = faked()
    vm._remove_files += [str(tmp_path / "missing"), str(tmp_path / "there")]
    (tmp_path / "there").touch()
    vm.launch()

    vm.shutdown()

    assert not (tmp_path / "there").exists() and vm._remove_files == []


def test_the_steps_are_told_to_the_original_logger(faked, caplog):
    caplog.set_level(logging.DEBUG, "qemu.machine.machine")
    vm = faked()
    vm.launch()
    vm.shutdown()
    vm.launch()
    vm.kill()

    told = [record.getMessage() for record in caplog.records]
    assert "Attempting graceful termination" in told and "Performing hard shutdown" in told


def test_ctrl_c_in_the_terminal_is_not_qemus(faked):
    # D-19
    vm = faked()
    vm.launch()

    assert os.getpgid(vm.get_pid()) != os.getpgid(0)


def test_the_exit_code_of_a_wrapper_is_told(faked):
    vm = faked(wrapper=["sh", "-c", '"$@"; exit 99', "sh"])
    vm.launch()

    vm.shutdown()

    assert vm.exitcode() == 99


def test_a_shutdown_says_nothing_on_the_terminal(fake_qemu, base):
    import sys

    from ratite.compat import machine_folder, qmp_folder

    program = f"""
import sys
sys.path[:0] = [{machine_folder()!r}, {qmp_folder()!r}]
from qemu.machine import QEMUMachine
with QEMUMachine({fake_qemu!r}, base_temp_dir={str(base)!r}) as vm:
    vm.set_console()
    vm.launch()
    vm.console_socket
    vm.qmp("query-status")
with QEMUMachine({fake_qemu!r}, base_temp_dir={str(base)!r}) as vm:
    vm.launch()
    vm.kill()
"""
    ended = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
