"""Errors: each is raised by a test, with its evidence in attributes."""

import errno
import pickle
import re
import traceback

import pytest

import ratite
from conftest import raised_by


def test_a_traceback_shows_qemu_s_last_words_and_the_command_line(real):
    try:
        real("-no-such-option").launch()
    except ratite.LaunchError as error:
        shown = traceback.format_exc()
        assert error.kind == "exited" and error.exit.code == 1 and error.errno is None
        assert error.reason == "QEMU exited with status 1 before its monitor was ready"
        assert error.command[0] == "qemu-system-x86_64" and "invalid option" in error.output
        assert error.log == error.output.encode()
    assert "\nratite.LaunchError: could not launch the machine\n" in shown
    assert "-no-such-option: invalid option" in shown and "command: qemu-system-x86_64" in shown


def test_the_report_masks_secrets_and_the_evidence_does_not(fake):
    machine = fake("exit-before-monitor=1")
    machine.args += ["-object", "secret,id=s,data=hunter2"]
    error = raised_by(machine.launch)
    assert "hunter2" not in str(error) and "secret,id=s,data=hunter2" in error.command


@pytest.mark.parametrize(
    "words, kind, cause",
    [
        (["garbage-greeting"], "qmp", ratite.GreetingError),
        (["nego-error"], "qmp", ratite.NegotiationError),
        (["signal-before-monitor=6"], "exited", type(None)),
    ],
)
def test_a_launch_that_fails_tells_why(fake, words, kind, cause):
    error = raised_by(fake(*words).launch)
    assert type(error) is ratite.LaunchError and error.kind == kind and isinstance(error.__cause__, cause)
    if cause is ratite.NegotiationError:
        assert error.__cause__.error_class and error.__cause__.desc


def test_a_launch_that_takes_too_long_is_ended(fake):
    error = raised_by(fake("silent", connect_timeout=0.1).launch)
    assert error.kind == "timed-out" and error.exit.signal_name == "SIGKILL"


def test_a_limit_of_zero_ends_any_launch(fake):
    assert raised_by(fake(connect_timeout=0).launch).kind == "timed-out"


@pytest.mark.parametrize("binary, number", [("/no/such/qemu", errno.ENOENT), ("no-such-qemu", errno.ENOENT), ("/", errno.EACCES)])
def test_a_binary_that_cannot_be_run_is_named(base, binary, number):
    error = raised_by(ratite.Machine(binary, base_folder=base).launch)
    assert error.kind == "spawn" and error.errno == number and binary in error.reason


def test_a_folder_that_cannot_be_made_is_named(fake, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    error = raised_by(fake(base_folder=file).launch)
    assert error.kind == "work-folder" and str(file) in error.reason
    error = raised_by(fake(log_folder=file).launch)
    assert error.kind == "log" and error.errno is not None and str(file) in error.reason


def test_a_monitor_address_that_is_taken_is_told(fake, tmp_path):
    file = tmp_path / "monitor"
    file.write_text("mine")
    error = raised_by(fake(monitor=file).launch)
    assert error.kind == "monitor-address" and isinstance(error.__cause__, ratite.ConnectError)
    assert file.read_text() == "mine"


def test_what_cannot_work_is_refused_before_anything_is_started(fake):
    for mistake in (lambda: fake(name="a/b").launch(), lambda: ratite.Machine("").launch()):
        assert isinstance(raised_by(mistake), (ratite.ConfigError, ratite.LaunchError))
    machine = fake()
    machine.args += ["-daemonize"]
    error = raised_by(machine.launch)
    assert type(error) is ratite.ConfigError and "daemonize" in str(error)
    assert isinstance(error, ValueError)


def test_a_word_with_a_nul_is_refused(fake):
    machine = fake()
    machine.args.append("a\0b")
    assert isinstance(raised_by(machine.launch), (ValueError, ratite.LaunchError))


def test_a_refusal_holds_qemu_s_words(real):
    with real() as machine:
        error = raised_by(lambda: machine.cmd("no-such-command"))
        assert type(error) is ratite.CommandError and error.command == "no-such-command"
        assert error.error_class == "CommandNotFound" and error.desc in str(error) and "`no-such-command`" in str(error)


def test_a_limit_that_is_over_says_which(fake):
    with fake(command_timeout=0.05) as machine:
        error = raised_by(lambda: machine.cmd("fake-never"))
        assert type(error) is ratite.TimedOut and isinstance(error, TimeoutError)
        assert error.limit == 0.05 and "fake-never" in error.what and "fake-never" in str(error)
        assert raised_by(lambda: machine.cmd("fake-never", timeout=0.01)).limit == 0.01


def test_a_monitor_that_closes_alone_is_told(fake):
    with fake() as machine:
        error = raised_by(lambda: machine.cmd("fake-close-monitor"))
        assert type(error) is ratite.Disconnected and isinstance(error, ConnectionError)
        assert type(raised_by(lambda: machine.event_wait("A"))) is ratite.Disconnected
        machine.kill()


def test_a_peer_that_breaks_the_protocol_is_told(fake):
    with fake() as machine:
        error = raised_by(lambda: machine.cmd("fake-raw", text="nonsense\n"))
        assert type(error) is ratite.ProtocolError
        machine.kill()


def test_the_end_of_qemu_comes_with_how_it_ended(fake):
    machine = fake("abort-on=query-name", "stderr=last words").launch()
    error = raised_by(lambda: machine.cmd("query-name"))
    assert type(error) is ratite.MachineExited and error.exit.signal_name == "SIGABRT"
    assert error.exit.returncode == -6 and b"last words" in error.log and "SIGABRT" in str(error)
    exit = raised_by(machine.shutdown).exit
    assert exit.asked in ("nobody", "signal") and not exit.success and "SIGABRT" in str(exit)


def test_pattern_errors_show_the_place(fake):
    with fake(console=True) as machine:
        error = raised_by(lambda: machine.console.expect(re.compile(r"(a)\1")))
        assert type(error) is ratite.PatternError and isinstance(error, ratite.ConfigError)


@pytest.mark.parametrize("name", [name for name in ratite.__all__ if isinstance(getattr(ratite, name), type) and issubclass(getattr(ratite, name), Exception)])
def test_every_error_is_an_error_of_ratite_and_can_be_pickled(name):
    kind = getattr(ratite, name)
    error = kind("what happened")
    assert issubclass(kind, ratite.Error) and str(error) == "what happened" and kind.__doc__
    assert kind.__module__ == "ratite"
    error.note = 1
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == "what happened" and again.note == 1
