"""A machine from its launch to its end."""

import gc
import math
import os
import subprocess
import weakref

import pytest

import ratite
from conftest import AT_ONCE, eventually, runs


def test_a_machine_runs_answers_and_ends(real):
    machine = real("-S").launch()

    assert machine.cmd("query-status")["status"] == "prelaunch"
    assert machine.is_running and machine.exit is None
    exit = machine.shutdown()

    assert exit.success and exit.asked == "us" and exit.shutdown_reason == "host-qmp-quit"
    assert exit.command == machine.command and exit.run_time >= exit.launch_time > 0 and exit.started > 0
    assert not machine.is_running and machine.exit.code == 0 and machine.exit.returncode == 0


def test_a_machine_that_was_not_launched_has_nothing_to_end(fake):
    machine = fake()

    assert machine.shutdown() is None and machine.kill() is None and machine.exit is None
    assert not machine.is_running and "not launched" in repr(machine)
    for ask in (lambda: machine.pid, lambda: machine.cmd("stop"), machine.events, machine.wait, lambda: machine.console):
        with pytest.raises(ratite.Error, match="was not launched"):
            ask()


def test_a_machine_is_launched_again_and_is_a_new_one(fake):
    machine = fake()
    with machine:
        first = machine.pid
        machine.cmd("fake-events", name="OLD")
    with machine:
        assert machine.pid != first
        assert machine.events() == []
        assert machine.shutdown().success
    assert machine.launch().shutdown().success


def test_a_machine_that_runs_is_not_launched_again(fake):
    with fake() as machine:
        with pytest.raises(ratite.Error, match="runs already"):
            machine.launch()
        with machine as same:
            assert same is machine and machine.is_running
        assert not machine.is_running


def test_the_description_can_be_changed_between_two_runs(fake):
    machine = fake()
    with machine:
        assert "changed" not in machine.cmd("fake-args")
    machine.args.append("changed")
    with machine:
        assert machine.cmd("fake-args")[-1] == "changed"


def test_every_end_is_told_again(fake):
    machine = fake().launch()

    first = machine.shutdown()

    assert machine.shutdown() == first and machine.kill() == first and machine.wait() == first
    assert first.log == machine.log


def test_kill_ends_by_force(fake):
    machine = fake("ignore-quit", "ignore-sigterm").launch()

    exit = machine.kill()

    assert exit.status.signal_name == "SIGKILL" and exit.status.returncode == -9 and exit.asked == "us-by-force"
    assert not exit.success and exit.status.code is None and not exit.status.core_dumped


def test_wait_waits_for_the_guest_to_power_off(guest):
    with guest() as machine:
        machine.console.expect("> ")
        machine.console.send_line("off")
        exit = machine.wait(timeout=30)

    assert exit.success and exit.asked == "guest" and exit.shutdown_reason == "guest-shutdown"
    assert str(exit) == "QEMU exited with status 0 (guest-shutdown)"


def test_wait_kills_when_its_time_is_over(fake):
    machine = fake().launch()

    with pytest.raises(ratite.ShutdownError) as raised:
        machine.wait(timeout=0)

    assert raised.value.kind == "timed-out" and raised.value.exit.asked == "time-over"


def test_the_last_reference_ends_it(fake):
    machine = fake().launch()
    pid, gone = machine.pid, weakref.ref(machine)

    del machine
    gc.collect()

    assert gone() is None
    eventually(lambda: not runs(pid), "the end of the process")


def test_the_body_s_error_counts_more_than_an_unclean_end(fake):
    with pytest.raises(ZeroDivisionError):
        with fake("quit-status=3"):
            raise ZeroDivisionError


def test_an_unclean_end_is_raised_where_the_body_was_well(fake):
    with pytest.raises(ratite.ShutdownError) as raised:
        with fake("quit-status=3"):
            pass

    assert raised.value.kind == "unclean" and raised.value.exit.status.code == 3


def test_a_machine_that_is_ended_in_the_body_stays_so(fake):
    with fake() as machine:
        machine.shutdown()
    assert machine.exit.code == 0


def test_a_relation_that_hangs_is_killed_at_the_end_of_the_grace(fake):
    machine = fake("ignore-quit", "ignore-sigterm", grace=0.1).launch()

    with pytest.raises(ratite.ShutdownError) as raised:
        machine.shutdown()

    assert raised.value.kind == "timed-out" and raised.value.exit.status.signal_name == "SIGKILL"


@pytest.mark.parametrize("limit", [math.inf, 10**400, 1e308, 30, 30.5, True])
def test_a_limit_may_be_large_or_none(fake, limit):
    limits = dict.fromkeys(("connect_timeout", "command_timeout", "console_timeout", "kill_timeout", "grace"), limit)
    with fake(console=True, **limits) as machine:
        assert machine.cmd("query-status", timeout=limit)["running"]
        machine.cmd("fake-events", name="HERE")
        assert machine.event_wait("HERE", timeout=limit)["event"] == "HERE"
        machine.cmd("fake-console", text="here")
        assert machine.console.expect("here", timeout=limit).matched == b"here"
        assert machine.shutdown(grace=limit).success
        assert machine.wait(timeout=limit).success


@pytest.mark.parametrize("limit", [-1, -0.001, math.nan, -math.inf, -(10**400)])
def test_a_limit_below_zero_is_refused_before_anything_is_done(fake, limit):
    for name in ("connect_timeout", "command_timeout", "console_timeout", "kill_timeout", "grace"):
        with pytest.raises(ratite.ConfigError, match=name):
            fake(**{name: limit})
    with fake(console=True) as machine:
        for ask in waits(machine, limit):
            with pytest.raises(ValueError, match="seconds from 0 on"):
                ask()
        assert machine.is_running


@pytest.mark.parametrize("limit", [None, "5", [5]])
def test_a_limit_is_a_number(fake, limit):
    with pytest.raises(TypeError, match="grace takes seconds"):
        fake(grace=limit)
    with fake(console=True) as machine:
        for ask in waits(machine, limit)[2 if limit is None else 0 :]:
            with pytest.raises(TypeError, match="takes seconds, or math.inf"):
                ask()
        assert machine.is_running


def waits(machine, limit):
    listener = machine.listen()
    return [
        lambda: machine.cmd("query-status", timeout=limit),
        lambda: machine.shutdown(grace=limit),
        lambda: machine.event_wait("X", timeout=limit),
        lambda: machine.console.expect("x", timeout=limit),
        lambda: machine.console.read(timeout=limit),
        lambda: listener.next(timeout=limit),
        lambda: machine.wait(timeout=limit),
    ]


def test_a_limit_of_zero_takes_what_is_there_and_does_not_wait(fake):
    with fake(console=True) as machine:
        machine.cmd("fake-events", name="HERE")
        machine.cmd("fake-console", text="here")
        machine.console.expect("her")

        assert machine.event_wait("HERE", timeout=0)["event"] == "HERE"
        assert machine.console.read(timeout=0) == b"e"
        for ask in (
            lambda: machine.event_wait("HERE", timeout=0),
            lambda: machine.console.read(timeout=0),
            lambda: machine.console.expect("x", timeout=0),
            lambda: machine.cmd("fake-never", timeout=0),
        ):
            with pytest.raises(TimeoutError) as raised:
                ask()
            assert raised.value.limit == 0


def test_a_word_that_is_no_keyword_is_named(fake):
    with pytest.raises(TypeError, match="memmory"):
        fake(memmory=64)


@pytest.mark.parametrize(
    "mistake, told",
    [
        (lambda: ratite.Machine("q", ["-m", "64"]), r"args takes a text or a path, not \['-m', '64'\]"),
        (lambda: ratite.Machine("q", 64), "args takes a text or a path, not 64"),
        (lambda: ratite.Machine(None), "binary takes a text or a path, not None"),
        (lambda: ratite.Machine("q", wrapper="nice -n 5"), "wrapper takes a sequence of words, not 'nice -n 5'"),
        (lambda: ratite.Machine("q", accel=None), "accel takes a sequence of words, not None"),
        (lambda: ratite.Machine("q", transcript="log"), "transcript takes something to call, not 'log'"),
        (lambda: ratite.Machine("q", monitor=None).launch(), "monitor takes a text or a path, not None"),
        (lambda: ratite.Machine("q", base_folder=5).launch(), "base_folder takes a text or a path, not 5"),
        (lambda: ratite.ConsoleOptions(history="1M"), "history takes a whole number from 0 on, not '1M'"),
    ],
)
def test_a_mistake_is_told_with_the_name_of_the_parameter(mistake, told):
    with pytest.raises(TypeError, match=told):
        mistake()


def test_a_number_that_cannot_be_is_refused():
    for mistake in (
        lambda: ratite.ConsoleOptions(history=-1),
        lambda: ratite.ConsoleOptions(index=1 << 70),
        lambda: ratite.Machine("q", monitor=("localhost", 65536)).launch(),
        lambda: ratite.Machine("q", fds={3: -1}).launch(),
    ):
        with pytest.raises(ValueError):
            mistake()


def test_words_reach_qemu_byte_for_byte(fake, tmp_path):
    odd = b"\xff\xfe-\xe4"
    folder = tmp_path / os.fsdecode(odd)
    folder.mkdir()
    words = ["grün", "", "a b", "c,d", "'\"", os.fsdecode(odd), odd, folder]

    machine = fake(working_folder=folder, log_folder=folder, name="log", env={"ODD": os.fsdecode(odd), "PATH": None})
    machine.args += [os.fsdecode(word) for word in words]
    with machine:
        assert machine.command[-len(words) :] == [os.fsdecode(word) for word in words]
        with open(f"/proc/{machine.pid}/cmdline", "rb") as file:
            assert file.read().split(b"\0")[-len(words) - 1 : -1] == [os.fsencode(word) for word in words]
        with open(f"/proc/{machine.pid}/environ", "rb") as file:
            assert b"ODD=" + odd in file.read().split(b"\0")
        assert os.fsencode(os.readlink(f"/proc/{machine.pid}/cwd")).endswith(odd)
        assert machine.log_path == str(folder / "log.log")
        assert "PATH" not in machine.cmd("fake-env")


def test_a_base_folder_need_not_be_utf8(fake, base):
    folder = base / os.fsdecode(b"\xff")
    folder.mkdir()
    with fake(base_folder=os.fsencode(folder)) as machine:
        assert os.path.dirname(machine.work_folder) == str(folder)
    assert os.listdir(folder) == []


def test_unicode_comes_back_as_it_was_sent(real):
    for text in ("grüße 🐧 ' \" \\ \x7f", "x" * 10_000):
        with real("-name", text) as machine:
            assert machine.cmd("query-name") == {"name": text}


def test_a_big_reply_comes_whole(fake):
    with fake() as machine:
        assert machine.cmd("fake-big", bytes=16 << 20) == "x" * (16 << 20)


@pytest.mark.parametrize("value", [2**64 - 1, -(2**63), 0.5, 1e300, True, None, "", [], {}, "\ud83d\ude00", {"a": [{}]}])
def test_values_come_back_as_they_were_sent(fake, value):
    expected = "\U0001f600" if value == "\ud83d\ude00" else value
    with fake() as machine:
        assert machine.cmd("fake-echo", {"value": value}) == {"value": expected}


def test_keywords_get_hyphens_and_arguments_are_sent_as_they_are(fake):
    with fake() as machine:
        echoed = machine.cmd("fake-echo", {"a_b": 1, "timeout": 2}, node_name="disk")
        assert echoed == {"a_b": 1, "timeout": 2, "node-name": "disk"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "\udcff", {"deep": ["\ud800"]}])
def test_what_json_or_qemu_does_not_have_is_not_sent(fake, value):
    with fake() as machine:
        with pytest.raises(ratite.ArgumentsError, match="`fake-echo`"):
            machine.cmd("fake-echo", value=value)
        assert machine.cmd("query-status")["running"]


def test_what_is_no_json_is_a_mistake(fake):
    circle = []
    circle.append(circle)
    with fake() as machine:
        with pytest.raises(TypeError, match="`fake-echo`.*bytes"):
            machine.cmd("fake-echo", value=b"bytes")
        with pytest.raises(ratite.ArgumentsError, match="`fake-echo`"):
            machine.cmd("fake-echo", value=circle)
        with pytest.raises(TypeError):
            machine.cmd("fake-echo", "text")


def test_the_whole_reply_is_to_be_had(real):
    with real() as machine:
        assert machine.qmp("query-status")["return"]["running"] is True
        assert machine.qmp("no-such")["error"]["class"] == "CommandNotFound"
        assert machine.qmp("query-status", oob=True)["error"]["class"]


def test_the_greeting_names_the_version(real):
    with real() as machine:
        assert machine.greeting["QMP"]["version"]["qemu"]["major"] >= 7


def test_descriptors_travel_with_a_command(fake):
    ours, theirs = os.pipe()
    try:
        with fake() as machine:
            machine.cmd("getfd", fdname="pipe", fds=[theirs])
            opened = machine.cmd("fake-fds")
            assert os.readlink(f"/proc/self/fd/{theirs}") in opened.values()
    finally:
        os.close(ours)
        os.close(theirs)


def test_descriptors_are_handed_over_at_their_numbers(fake):
    ours, theirs = os.pipe()
    try:
        with fake(fds={42: theirs}) as machine:
            assert machine.cmd("fake-fds")["42"] == os.readlink(f"/proc/self/fd/{theirs}")
            # It was copied, so this one can go.
            os.close(theirs)
        assert os.read(ours, 1) == b""
    finally:
        os.close(ours)


def test_a_descriptor_that_is_closed_is_named(fake):
    ours, theirs = os.pipe()
    os.close(ours)
    os.close(theirs)
    with pytest.raises(OSError):
        fake(fds={42: theirs}).launch()


def test_a_further_monitor_is_for_other_programs(real, tmp_path):
    path = tmp_path / "qmp.sock"
    with real(qmp_path=path) as machine:
        program = "import socket, sys; s = socket.socket(1); s.connect(sys.argv[1]); print(s.makefile().readline())"
        said = subprocess.run(["python3", "-c", program, str(path)], stdout=subprocess.PIPE, check=True).stdout
        assert b'"QMP"' in said
        assert machine.cmd("query-status")["running"] is True


@pytest.mark.parametrize("kind", ["path", "port"])
def test_the_monitor_may_be_at_an_address(real, tmp_path, kind):
    monitor = tmp_path / "mon,itor.sock" if kind == "path" else ("127.0.0.1", 0)
    with real(monitor=monitor) as machine:
        assert machine.cmd("query-status")["running"] is True


def test_a_machine_without_a_monitor_can_be_ended(fake):
    with fake(monitor=False) as machine:
        assert machine.greeting is None
        with pytest.raises(ratite.NoMonitor):
            machine.cmd("query-status")
        with pytest.raises(ratite.NoMonitor):
            machine.event_wait("X")
        # A fake ends by SIGTERM, as QEMU does, but not with status 0.
        machine.kill()


def test_the_log_is_kept_where_it_is_asked_for(fake, tmp_path):
    folder = tmp_path / "logs"
    with fake("stderr=last words", log_folder=folder, name="mine") as machine:
        eventually(lambda: b"last words" in machine.log, "the line in the log")
        assert machine.log_path == str(folder / "mine.log")
    assert b"last words" in (folder / "mine.log").read_bytes()
    assert b"last words" in machine.log and b"last words" in machine.shutdown().log


def test_the_work_folder_is_kept_where_it_is_asked_for(fake, tmp_path):
    with fake(keep_folder=True, base_folder=tmp_path) as machine:
        folder = machine.work_folder
        assert os.stat(folder).st_mode & 0o777 == 0o700
    assert [str(kept) for kept in tmp_path.glob("qemu-machine-kept-*")] == [folder]


def test_the_transcript_shows_both_directions(fake):
    seen = []
    with fake(transcript=lambda way, text: seen.append((way, text))) as machine:
        machine.cmd("query-status")
    assert ("sent", '{"execute":"query-status"') in [(way, text.split(',"')[0].rstrip("}\n")) for way, text in seen]
    assert any(way == "received" and "QMP" in text for way, text in seen)


def test_a_transcript_that_raises_harms_nothing(fake, monkeypatch):
    import sys

    shown = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: shown.append(unraisable.exc_type))

    def subscriber(way, text):
        raise ZeroDivisionError

    with fake(transcript=subscriber) as machine:
        assert machine.cmd("query-status")["running"]
    assert shown and set(shown) == {ZeroDivisionError}


def test_a_transcript_must_not_wait(fake):
    told = []
    waiting = None

    def subscriber(way, text):
        if "query-status" in text and way == "sent":
            try:
                waiting.cmd("query-name")
            except RuntimeError as error:
                told.append(str(error))

    with fake(transcript=subscriber) as machine:
        waiting = machine
        assert machine.cmd("query-status")["running"]
    assert told and "must not be blocked" in told[0]


def test_a_wrapper_and_all_it_started_end_with_the_machine(fake):
    with fake("spawn-child", wrapper=("sh", "-c", '"$@"; true', "sh")) as machine:
        children = machine.cmd("fake-children")
        assert machine.command[0] == "sh"
    eventually(lambda: not any(runs(pid) for pid in children), "the end of its children")


def test_the_command_line_masks_secrets(fake):
    machine = fake()
    machine.args += ["-object", "secret,id=s,data=hunter2"]
    with machine:
        assert "hunter2" not in machine.command_line and "data=***" in machine.command_line
        assert "secret,id=s,data=hunter2" in machine.command


def test_qtest_reads_and_writes_registers(fake):
    with fake("qtest-irq", qtest=True) as machine:
        qtest = machine.qtest
        assert qtest.command("writel 0x1000 5") == ""
        assert int(qtest.command("readl 0x1000"), 16) == 5
        assert qtest.raw("readl 0x1000").startswith("OK")
        qtest.wait_irq(8, True, timeout=30)
        assert qtest.irqs[8] is True
        with pytest.raises(ratite.QtestError):
            qtest.command("")


def test_what_a_machine_has_not_got_is_told_with_its_keyword(fake):
    with fake() as machine:
        with pytest.raises(ratite.Error, match="console=True"):
            machine.console
        with pytest.raises(ratite.Error, match="qtest=True"):
            machine.qtest


def test_the_end_of_qemu_ends_every_wait_with_its_cause(fake):
    with pytest.raises(ratite.ShutdownError):
        with fake("stderr=bye", console=True) as machine:
            with pytest.raises(ratite.MachineExited) as raised:
                machine.cmd("fake-exit", status=4)
            assert raised.value.exit.code == 4 and b"bye" in raised.value.log
            with pytest.raises(ratite.MachineExited):
                machine.event_wait("X", timeout=AT_ONCE)
            with pytest.raises(ratite.ConsoleEnded) as ended:
                machine.console.expect("x", timeout=AT_ONCE)
            assert ended.value.exit.code == 4
            assert "status 4" in repr(machine)
