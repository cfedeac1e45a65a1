"""Templates with names: made once, by one of all who ask, and found by everybody else."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

import ratite
from conftest import GUEST, raised_by, templates_in


def to_the_prompt(machine):
    machine.console.expect("> ")
    machine.console.send_echoed("echo ke")


class Boot:
    """Counts how often it was called."""

    def __init__(self):
        self.calls = 0

    def __call__(self, machine):
        self.calls += 1
        to_the_prompt(machine)


def kept(template, base):
    with template, template.spawn(base_folder=base) as machine:
        machine.console.send_line("pt")
        machine.console.expect("\r\nkept\r\n")


def test_a_template_is_made_at_the_first_use_and_found_afterwards(guest, base, cache):
    boot, machine = Boot(), guest()

    for _ in range(2):
        kept(ratite.Template.cached("shell", machine, boot), base)
    kept(ratite.Template.cached("shell", guest(base_folder=base, log_folder=base), boot), base)

    assert boot.calls == 1 and not machine.is_running
    (entry,) = ratite.TemplateCache().list()
    assert entry.name.startswith("shell-") and entry.path == str(cache / entry.name) and entry.damage is None
    assert entry.made <= entry.used + 1 and entry.size > 0 and entry.qemu_version


def test_another_key_or_another_machine_has_a_template_of_its_own(guest, base):
    boot = Boot()

    for key, machine in (("one", guest()), ("two", guest()), ("one", guest("-m", "64"))):
        kept(ratite.Template.cached(key, machine, boot), base)

    assert boot.calls == 3 and len(ratite.TemplateCache().list()) == 3


def test_many_threads_ask_and_one_boots(guest, base):
    boot, together = Boot(), Barrier(4)

    def ask(_):
        together.wait()
        kept(ratite.Template.cached("shell", guest(), boot), base)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, range(4)))

    assert boot.calls == 1


SCRIPT = """
import ratite, sys
drive = "file=" + sys.argv[1] + ",format=raw,if=floppy,readonly=on"
machine = ratite.Machine("qemu-system-x86_64", "-nodefaults", "-drive", drive, accel="tcg", console=True, base_folder=sys.argv[2])
def boot(machine):
    print("boots")
    machine.console.expect("> ")
    machine.console.send_echoed("echo ke")
with ratite.Template.cached("shell", machine, boot).spawn(base_folder=sys.argv[2]) as machine:
    machine.console.send_line("pt")
    machine.console.expect("kept")
"""


def test_programs_that_run_at_once_or_later_share_it(guest, base):
    command = [sys.executable, "-c", SCRIPT, GUEST, base]
    programs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [program.communicate(timeout=60)[0] for program in programs]

    assert [program.returncode for program in programs] == [0, 0, 0] and "".join(said) == "boots\n"
    kept(ratite.Template.cached("shell", guest(), lambda _: pytest.fail("it boots")), base)


def test_what_a_boot_raises_is_the_cause_and_nothing_is_kept(guest, base, cache):
    machine = guest()

    def fails(machine):
        to_the_prompt(machine)
        raise ZeroDivisionError("mine")

    error = raised_by(lambda: ratite.Template.cached("shell", machine, fails))

    assert type(error) is ratite.CacheError and error.kind == "boot" and error.exit is None
    assert type(error.__cause__) is ZeroDivisionError and error.tail.endswith(b"> echo ke")
    assert not machine.is_running and ratite.TemplateCache().list() == []
    assert templates_in(cache) == []
    kept(ratite.Template.cached("shell", machine, to_the_prompt), base)


def test_an_interrupt_goes_through(guest, cache):
    machine = guest()

    def interrupted(machine):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ratite.Template.cached("shell", machine, interrupted)

    assert not machine.is_running and templates_in(cache) == []


def test_a_machine_that_does_not_start_or_ends_before_it_is_frozen_is_told(guest, base):
    error = raised_by(lambda: ratite.Template.cached("shell", guest("-no-such-option"), to_the_prompt))
    assert type(error) is ratite.LaunchError and "no-such-option" in error.output

    def ends(machine):
        machine.console.expect("> ")
        machine.console.send_line("off")
        machine.wait(timeout=30)

    error = raised_by(lambda: ratite.Template.cached("shell", guest(), ends))
    assert type(error) is ratite.MachineExited and error.exit.code == 0
    nvme = ("-blockdev", "null-co,node-name=n", "-device", "nvme,serial=x,drive=n")
    assert type(raised_by(lambda: ratite.Template.cached("shell", guest(*nvme), to_the_prompt))) is ratite.FreezeError
    assert ratite.TemplateCache().list() == []


def test_a_machine_that_runs_is_left_alone(guest):
    with guest() as machine:
        with pytest.raises(ratite.Error, match="runs already"):
            ratite.Template.cached("shell", machine, to_the_prompt)
        assert machine.is_running


def test_a_damaged_template_is_made_anew(guest, base):
    boot = Boot()
    ratite.Template.cached("shell", guest(), boot).close()
    (entry,) = ratite.TemplateCache().list()
    with open(f"{entry.path}/state", "ab") as state:
        state.write(b"x")
    assert "state" in ratite.TemplateCache().list()[0].damage

    kept(ratite.Template.cached("shell", guest(), boot), base)

    assert boot.calls == 2


def test_a_named_template_is_made_opened_and_removed(guest, base):
    cache = ratite.TemplateCache(base / "mine")
    template = cache.create("shell", guest(), to_the_prompt)
    assert template.folder == str(base / "mine/shell") and cache.folder == str(base / "mine")

    assert raised_by(lambda: cache.create("shell", guest(), to_the_prompt)).kind == "taken"
    assert raised_by(lambda: cache.remove("shell")).kind == "in-use"
    kept(template, base)
    kept(cache.open("shell"), base)
    cache.remove("shell")

    assert cache.list() == [] and raised_by(lambda: cache.open("shell")).kind == "missing"
    assert type(raised_by(lambda: cache.remove("shell"))) is ratite.TemplateError


def test_who_is_impatient_does_not_wait_for_another(guest, base):
    errors = []

    def boot(machine):
        to_the_prompt(machine)
        impatient = ratite.TemplateCache(patience=0.05)
        errors.append(raised_by(lambda: impatient.cached("shell", guest(), to_the_prompt)))

    kept(ratite.Template.cached("shell", guest(), boot), base)

    assert type(errors[0]) is ratite.CacheError and errors[0].kind == "busy"
    assert type(errors[0].__cause__) is ratite.TimedOut and errors[0].__cause__.limit == 0.05


def test_what_cannot_be_is_refused_with_its_reason(guest, base, monkeypatch):
    (base / "file").write_text("")
    for kind, mistake in (
        ("name", lambda: ratite.Template.cached("a/b", guest(), to_the_prompt)),
        ("folder", lambda: ratite.TemplateCache(base / "file/cache").create("shell", guest(), to_the_prompt)),
        ("key", lambda: ratite.Template.cached("shell", ratite.Machine("/no/such/qemu"), to_the_prompt)),
    ):
        error = raised_by(mistake)
        assert type(error) is ratite.CacheError and error.kind == kind and (kind != "folder" or error.errno)
    for name in ("RATITE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    assert raised_by(ratite.TemplateCache).kind == "no-folder"
