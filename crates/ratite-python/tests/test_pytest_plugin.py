"""The plugin for pytest, as its users have it."""


import pytest

from conftest import forget_the_last_error, runs


@pytest.fixture
def suite(pytester, fake_qemu, base):
    """Runs a test module with the fake QEMU."""

    def run(source, *options):
        pytester.makepyfile(f"import functools, os, pytest, ratite\nBASE = {str(base)!r}\n" + source)
        return pytester.runpytest_inprocess(f"--qemu={fake_qemu}", *options)

    yield run
    forget_the_last_error()


def test_machines_are_launched_and_ended(suite, base):
    result = suite(
        """
pids = []

def test_plays(machine):
    one, two = machine(base_folder=BASE), machine(base_folder=BASE, console=True)
    pids.extend([one.pid, two.pid])
    assert one.cmd("query-status")["running"] and one.pid != two.pid

def test_they_are_gone(machine):
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
"""
    )
    result.assert_outcomes(passed=2)
    assert list(base.iterdir()) == []


def test_machines_of_a_failed_test_are_ended_too_and_shown(suite, base):
    result = suite(
        """
def test_fails(machine):
    vm = machine("-fake", "stderr=last words", "-object", "secret,id=s,data=hunter2", base_folder=BASE, console=True)
    vm.cmd("fake-console", text="login: \\x1b[31mred\\r\\n")
    vm.console.expect("red")
    vm.cmd("fake-echo", number=5)
    while b"last words" not in vm.log:
        pass
    second = machine(base_folder=BASE)
    second.shutdown()
    assert False
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- machine 1 -*",
            "<ratite.Machine *fake-qemu*: process *>",
            "*fake-qemu* -display none*secret,id=s,data=[*][*][*]'",
            "--- log",
            "*last words*",
            "--- console",
            r"login: \x1b?31mred",
            "--- QMP, the last 20 messages",
            '<- {*"QMP"*',
            '-> {*"fake-echo"*5*',
            "<- {*5*",
            "*- machine 2 -*",
            "<ratite.Machine *: QEMU exited with status 0>",
            "--- console: nothing",
        ]
    )
    result.stdout.no_fnmatch_line("*\x1b[[]31m*")
    assert list(base.iterdir()) == []


def test_a_test_that_passes_shows_nothing(suite):
    result = suite("def test_passes(machine):\n    machine(base_folder=BASE)\n", "-rA")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*machine 1*")


def test_a_machine_that_ended_by_itself_is_the_test_s_business(suite):
    result = suite(
        """
def test_passes(machine):
    vm = machine(base_folder=BASE)
    with pytest.raises(ratite.MachineExited):
        vm.cmd("fake-exit", status=3)
"""
    )
    result.assert_outcomes(passed=1)


def test_an_end_that_is_not_clean_is_an_error_and_all_machines_are_ended(suite, base):
    result = suite(
        """
def test_passes(machine):
    for _ in range(2):
        machine("-fake", "quit-status=3", base_folder=BASE)
    machine(base_folder=BASE)
"""
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ShutdownError*", "*- machine 1 -*", "<ratite.Machine *: QEMU exited with status 3>"])
    assert list(base.iterdir()) == []


def test_a_launch_that_fails_is_shown(suite):
    result = suite(
        """
def test_fails(machine):
    machine("-fake", "stderr=last words", "-fake", "garbage-greeting", base_folder=BASE)
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*last words*", "*- machine 1 -*", "<ratite.Machine *: not launched>", "--- QMP, the last 20 messages*"])


def test_a_subscriber_of_one_s_own_is_called_too(suite):
    result = suite(
        """
def test_passes(machine):
    seen = []
    machine(base_folder=BASE, transcript=lambda way, text: seen.append(way)).cmd("query-status")
    assert {"sent", "received"} == set(seen)
"""
    )
    result.assert_outcomes(passed=1)


def test_the_options_name_the_binary_and_the_accelerators(suite):
    result = suite(
        """
def test_passes(machine):
    words = machine(base_folder=BASE).command
    assert [words[at + 1] for at, word in enumerate(words) if word == "-accel"] == ["kvm", "tcg"]
    assert "-accel" not in machine(base_folder=BASE, accel=()).command
""",
        "--qemu-accel=kvm",
        "--qemu-accel=tcg",
    )
    result.assert_outcomes(passed=1)


def test_the_configuration_names_them_and_options_count_more(pytester, fake_qemu, base):
    pytester.makeini(f"[pytest]\nqemu = /no/such/qemu\nqemu_accel = kvm tcg\n")
    pytester.makepyfile(
        f"""
import ratite

def test_passes(machine):
    assert machine.binary == "/no/such/qemu" and machine.accel == ["kvm", "tcg"]
    vm = machine(binary={fake_qemu!r}, base_folder={str(base)!r})
    words = vm.command
    assert [words[at + 1] for at, word in enumerate(words) if word == "-accel"] == ["kvm", "tcg"]
"""
    )
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    assert pytester.runpytest_inprocess("--qemu=other").ret == 1


def test_a_mistake_in_the_keywords_is_a_type_error(suite):
    result = suite("def test_fails(machine):\n    machine(memmory=5)\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TypeError: *memmory*"])


def test_help_tells_the_options(pytester):
    result = pytester.runpytest_inprocess("--help")
    result.stdout.fnmatch_lines(["ratite:", "*--qemu=BINARY*", "*--qemu-accel=ACCEL*"])
