"""The plugin's fixture for templates, as its users have it."""

import subprocess
import sys

import pytest

from conftest import GUEST, forget_the_last_error, templates_in

SUITE = f"""
import os, pytest
BASE = os.environ["BASE"]

def boot(vm):
    with open(BASE + "/booted", "a") as file:
        file.write("x")
    vm.console.expect("> ")
    vm.console.send_echoed("echo ke")

@pytest.fixture(scope="session")
def shell(ratite_template):
    drive = "file={GUEST},format=raw,if=floppy,readonly=on"
    return ratite_template("shell", "-nodefaults", "-drive", drive, console=True, boot=boot)

@pytest.fixture
def guest(machine, shell):
    return machine.spawn(shell, base_folder=BASE)
"""

TWO_TESTS = """
@pytest.mark.parametrize("rest", ["pt", "eper"])
def test_each_has_a_fresh_one(guest, rest):
    guest.console.send_line(rest)
    guest.console.expect("\\r\\nke" + rest + "\\r\\n")
"""


@pytest.fixture
def suite(pytester, base, monkeypatch):
    """Runs a test module with a template of the guest."""
    monkeypatch.setenv("BASE", str(base))

    def run(source, *options):
        pytester.makepyfile(SUITE + source)
        return pytester.runpytest_inprocess("--qemu-accel=tcg", *options)

    yield run
    forget_the_last_error()


def test_each_test_has_a_fresh_machine_and_only_one_was_booted(suite, base):
    for _ in range(2):
        result = suite(TWO_TESTS)
        result.assert_outcomes(passed=2)

    assert (base / "booted").read_text() == "x" and [path.name for path in base.iterdir()] == ["booted"]


def test_workers_that_run_at_once_boot_one(pytester, base, monkeypatch):
    monkeypatch.setenv("BASE", str(base))
    pytester.makepyfile(SUITE + TWO_TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "--qemu-accel=tcg", "-p", "no:cacheprovider"]

    workers = [subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [worker.communicate(timeout=60)[0] for worker in workers]

    assert [worker.returncode for worker in workers] == [0, 0, 0], said
    assert (base / "booted").read_text() == "x"


def test_the_machine_of_a_failed_test_is_shown_and_ended(suite, base):
    result = suite(
        """
def test_fails(guest):
    guest.console.send_line("pt")
    guest.console.expect("kept\\r\\n> ")
    guest.cmd("query-name")
    assert False
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*- machine 1 -*", "<ratite.Machine 'qemu-system-x86_64': process *>", "--- log*", "--- console", "kept", '-> {*"query-name"*']
    )
    assert [path.name for path in base.iterdir()] == ["booted"]


def test_a_boot_that_fails_is_shown_and_nothing_is_kept(suite, cache):
    for failure in ("raise ZeroDivisionError", "pytest.fail('no')"):
        result = suite(
            f"""
def boot(vm):
    vm.console.expect("> ")
    vm.console.send_echoed("echo ke")
    {failure}

def test_never_runs(guest):
    pass
"""
        )
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*- machine of the template shell -*", "<ratite.Machine *: process *>", "*--- console", "*> echo ke"])
        assert templates_in(cache) == []


def test_a_machine_of_a_pool_is_ended_and_shown_too(suite):
    result = suite(
        """
@pytest.fixture(scope="module")
def pool(shell):
    with shell.pool(1, base_folder=BASE) as pool:
        yield pool

def test_fails(machine, pool):
    vm = machine.take(pool)
    vm.console.send_line("pt")
    vm.console.expect("kept")
    assert False
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*- machine 1 -*", "*--- console", "kept"])
    result.stdout.no_fnmatch_line("--- QMP*")


def test_the_fixture_tells_what_it_is(pytester):
    result = pytester.runpytest_inprocess("--fixtures")
    result.stdout.fnmatch_lines(["ratite_template *session scope*", "*Boots machines once*"])


def test_a_plugin_that_nobody_uses_costs_an_import_and_nothing_else():
    program = """
import os, sys
import ratite.pytest_plugin
assert not {"ratite.aio", "ratite.compat"} & set(sys.modules)
assert len(os.listdir("/proc/self/task")) == 1
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
