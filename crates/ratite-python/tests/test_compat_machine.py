"""The drop-in's machine: what is said of it, its command line, its descriptors, folders and logs."""

import errno
import os
import pathlib
import socket
import stat
import subprocess
import sys
import threading

import pytest
from compat import empty, faked  # noqa: F401

from qemu.machine import QEMUMachine
from qemu.machine.machine import QEMUMachineError, VMLaunchFailure
from ratite.compat import machine_folder, qmp_folder


def failure(vm):
    with pytest.raises(VMLaunchFailure) as caught:
        vm.launch()
    assert not vm.is_running() and vm.get_pid() is None
    return caught.value


# Construction and configuration.


def test_the_command_prints_what_goes_onto_the_path():
    def told(*words):
        return subprocess.check_output([sys.executable, "-m", "ratite.compat", *words], text=True).rstrip("\n")

    assert told() == machine_folder()
    assert told("--with-qmp") == os.pathsep.join([machine_folder(), qmp_folder()])
    assert os.listdir(os.path.join(machine_folder())) == ["qemu"]


def test_nothing_is_checked_or_made_before_the_launch():
    before = set(os.listdir("/proc/self/fd"))

    vm = QEMUMachine("/no/such/binary", base_temp_dir="/no/such/folder")

    assert (vm.is_running(), vm.exitcode(), vm.get_pid(), vm.get_log()) == (False, None, None, None)
    assert set(os.listdir("/proc/self/fd")) == before


def test_arguments_are_copied_and_then_one_live_list():
    given = ["-S"]
    vm = QEMUMachine("qemu", given)

    given.append("-m")
    vm.args.extend(["-m", "1"])
    vm.args[2] = "2"
    vm.add_args("-s")

    assert vm._args is vm.args == ["-S", "-m", "2", "-s"]


def test_a_lone_text_is_no_sequence_of_words():
    with pytest.raises(TypeError):
        QEMUMachine("qemu", "-S")
    with pytest.raises(TypeError):
        QEMUMachine("qemu", wrapper="nice")


def test_default_names_are_unique_and_given_ones_are_kept():
    names = {QEMUMachine("qemu")._name for _ in range(100)}

    assert len(names) == 100
    assert QEMUMachine("qemu", name="x")._name == "x"


@pytest.mark.parametrize(
    "positional, found",
    [
        ((True, "log", "logs", 5), (None, True, "log", "logs", 5)),
        ((False,), (None, False, None, None, 30)),
        (("socks", True, "log", "logs", 5), ("socks", True, "log", "logs", 5)),
        ((None, False, None, "logs"), (None, False, None, "logs", 30)),
        ((None, False, "log"), (None, True, "log", None, 30)),
    ],
)
def test_both_generations_orders_of_arguments_are_taken(positional, found):
    vm = QEMUMachine("qemu", (), (), None, "/var/tmp", None, *positional)

    assert (vm._sock_dir, vm._drain_console, vm._console_log_path, vm._log_dir, vm._qmp_timer) == found


def test_more_arguments_than_there_are_is_an_error():
    with pytest.raises(TypeError):
        QEMUMachine("qemu", (), (), None, "/var/tmp", None, None, False, None, None, 1, 2)


def test_a_socket_folder_is_the_temp_dir_unless_it_is_given(base):
    vm = QEMUMachine("qemu", base_temp_dir=str(base))

    assert vm.sock_dir == vm.temp_dir
    assert QEMUMachine("qemu", sock_dir="/x").sock_dir == "/x"


# The command line.


def test_the_base_arguments_stand_in_their_order():
    vm = QEMUMachine("qemu")
    vm.set_machine("q35,accel=tcg")
    vm.set_console("isa-serial", console_index=2)

    assert vm._base_args == [
        *("-display", "none", "-vga", "none"),
        *("-chardev", "socket,id=mon,path=", "-mon", "chardev=mon,mode=control"),
        *("-machine", "q35,accel=tcg", "-serial", "null", "-serial", "null"),
        *("-chardev", "socket,id=console,fd=-1", "-device", "isa-serial,chardev=console"),
    ]


def test_an_address_is_a_path_or_a_host_with_a_port():
    assert "socket,id=mon,path=a,,b" in QEMUMachine("qemu", monitor_address="a,b")._base_args
    assert "socket,id=mon,host=h,port=5" in QEMUMachine("qemu", monitor_address=("h", 5))._base_args


def test_wrapper_binary_base_and_user_arguments_follow_each_other(faked):
    vm = faked("console-banner=x", wrapper=["env"])
    vm.set_machine("")
    vm.set_console()
    vm.launch()

    words = list(vm._qemu_full_args)

    assert words[:6] == ["env", vm.binary, "-display", "none", "-vga", "none"]
    assert words[-2:] == ["-fake", "console-banner=x"]
    assert words[words.index("-machine") + 1] == "" and "chardev:console" in words
    assert pathlib.Path(f"/proc/{vm.get_pid()}/cmdline").read_bytes().decode().split("\0")[:-1] == words[1:]


def test_set_calls_while_running_apply_to_the_next_launch(empty):
    vm = empty()
    vm.launch()

    vm.set_qmp_monitor(False)
    vm.set_console()

    assert vm.cmd("query-status")["running"]
    with pytest.raises(QEMUMachineError):
        vm.console_socket
    vm.shutdown()
    vm.launch()
    with pytest.raises(QEMUMachineError, match="no connection"):
        vm.qmp("query-status")
    assert vm.console_socket.fileno() > 0


def test_the_overridden_base_arguments_and_hooks_are_used(faked):
    class Mine(QEMUMachine):
        called = []

        @property
        def _base_args(self):
            return [*super()._base_args, "-x"]

        def _pre_launch(self):
            super()._pre_launch()
            self.called.append("pre")

        def _post_launch(self):
            super()._post_launch()
            self.called.append("post")

        def _post_shutdown(self):
            super()._post_shutdown()
            self.called.append((self._popen.pid, self.exitcode()))

    vm = faked(kind=Mine)
    vm.launch()
    pid = vm.get_pid()
    vm.shutdown()

    assert "-x" in vm._qemu_full_args
    assert vm.called == ["pre", "post", (pid, 0)]


# Descriptors.


def test_add_fd_hands_a_descriptor_over_and_leaves_it_as_it_is(empty):
    reader, writer = os.pipe()
    vm = empty()

    assert vm.add_fd(reader, 1, "a,b", "") is vm
    vm.launch()

    # D-05, D-20
    assert not os.get_inheritable(reader)
    (fdset,) = vm.cmd("query-fdsets")
    assert fdset["fdset-id"] == 1 and fdset["fds"][0]["opaque"] == "a,b"
    os.close(reader)
    os.close(writer)


def test_add_fd_refuses_a_closed_descriptor():
    vm = QEMUMachine("qemu")

    with pytest.raises(OSError) as caught:
        vm.add_fd(1 << 20, 1, "")

    assert caught.value.errno == errno.EBADF and vm.args == []


def test_only_descriptors_that_are_named_reach_the_process(faked):
    # D-05
    ours, unnamed, named = socket.socketpair(), socket.socketpair(), socket.socketpair()
    os.set_inheritable(unnamed[0].fileno(), True)
    os.set_inheritable(named[0].fileno(), True)
    vm = faked(args=["-x", f"socket,fd={named[0].fileno()}"])
    vm.launch()

    links = [os.readlink(entry) for entry in pathlib.Path(f"/proc/{vm.get_pid()}/fd").iterdir()]

    def inode(sockets):
        return f"socket:[{os.fstat(sockets[0].fileno()).st_ino}]"

    assert inode(named) in links
    assert inode(unnamed) not in links and inode(ours) not in links
    for end in (*ours, *unnamed, *named):
        end.close()


def test_machines_that_start_at_once_share_no_descriptor(faked):
    # D-05
    machines = [faked() for _ in range(8)]
    threads = [threading.Thread(target=vm.launch) for vm in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    seen = []
    for vm in machines:
        links = {os.readlink(entry) for entry in pathlib.Path(f"/proc/{vm.get_pid()}/fd").iterdir()}
        seen += [link for link in links if link.startswith("socket")]

    assert len(seen) == len(set(seen)) == 8


# Folders and logs.


def test_the_temp_dir_is_made_at_the_first_look_and_goes_with_the_machine(faked, base):
    vm = faked(name="m")
    assert vm._temp_dir is None and not list(base.iterdir())

    folder = pathlib.Path(vm.temp_dir)
    vm.launch()

    assert folder.parent == base and folder.name.startswith("qemu-machine-")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert vm.temp_dir == vm._temp_dir == vm.log_dir == str(folder)
    assert (folder / "m.log").exists()
    vm.shutdown()
    assert not folder.exists() and vm._temp_dir is None


def test_the_temp_dir_of_a_machine_that_was_not_launched_goes_with_it(base):
    # D-16
    vm = QEMUMachine("qemu", base_temp_dir=str(base))
    assert os.path.isdir(vm.temp_dir)

    del vm

    assert not list(base.glob("qemu-machine-*"))


def test_a_missing_base_folder_is_what_the_system_says():
    with pytest.raises(FileNotFoundError):
        QEMUMachine("qemu", base_temp_dir="/no/such/folder").temp_dir


def test_a_log_in_a_folder_of_the_callers_stays(faked, tmp_path):
    # D-66
    vm = faked("stderr=hello", name="m", log_dir=str(tmp_path / "made"))
    vm.launch()
    vm.shutdown()

    assert (tmp_path / "made" / "m.log").read_text() == vm.get_log() == "hello\n"


def test_a_log_is_not_written_through_a_symbolic_link(faked, tmp_path):
    # D-66
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "m.log").symlink_to(victim)

    failure(faked("stderr=hello", name="m", log_dir=str(tmp_path)))

    assert victim.read_text() == "precious"


def test_the_log_can_be_read_at_any_time_and_holds_any_bytes(faked):
    # D-07, D-33
    vm = faked("stderr=one", "stderr-invalid-utf8")
    assert vm.get_log() is None

    vm.launch()

    assert vm.get_log().startswith("one\n") and "\ufffd" in vm.get_log()
    told = vm.get_log()
    vm.shutdown()
    assert vm.get_log() == told and not vm.is_running()
    vm._args[:] = []
    vm.launch()
    assert vm.get_log() == ""


@pytest.mark.parametrize("deleted", ["log", "folder"])
def test_a_log_or_folder_that_is_gone_spoils_nothing(faked, deleted):
    # D-07
    vm = faked("stderr=one", name="m")
    vm.launch()

    folder = pathlib.Path(vm.temp_dir)
    (folder / "m.log").unlink()
    if deleted == "folder":
        (folder / "owner.lock").unlink()
        folder.rmdir()
    vm.shutdown()

    assert vm.get_log() == "one\n" and vm.exitcode() == 0
    vm.launch()


def test_a_hook_that_closes_the_log_lets_qemu_write_where_we_do(fake_qemu, base):
    program = f"""
import sys
sys.path[:0] = [{machine_folder()!r}, {qmp_folder()!r}]
from qemu.machine import QEMUMachine
class Mine(QEMUMachine):
    def _pre_launch(self):
        super()._pre_launch()
        self._close_qemu_log_file()
vm = Mine({fake_qemu!r}, ["-fake", "stderr=said"], base_temp_dir={str(base)!r})
vm.set_console()
vm.launch()
vm.shutdown()
assert vm.get_log() == "", vm.get_log()
"""

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "said\n")
