"""Templates: machines that are frozen once, and restored as often as somebody wants one."""

import os
import re
import subprocess
import sys
import threading

import pytest

import ratite
from conftest import eventually, in_a_child, raised_by, runs


def says(machine, rest, expected):
    """Whether the guest, which has half a line already, says this to the whole."""
    machine.console.send_line(rest)
    return machine.console.expect(f"\r\n{expected}\r\n> ")


def test_each_machine_goes_on_where_it_was_frozen_and_none_sees_another(frozen, base):
    template = frozen(typed="echo ke")

    with template.spawn(base_folder=base) as one, template.spawn(base_folder=base) as two:
        says(one, "pt", "kept")
        says(two, "eper", "keeper")
        assert one.pid != two.pid and one.greeting == two.greeting

    with template.spawn(base_folder=base) as three:
        says(three, "g", "keg")
        # The line that stood there stands there, and nothing of what came before.
        assert three.console.tail() == b"> echo keg\r\nkeg\r\n> "


def test_a_template_says_what_it_is(frozen, base):
    template = frozen()

    assert template.folder.startswith(str(base)) and os.path.isdir(template.folder)
    assert (template.ram, template.why_not_mapped, template.consoles) == ("mapped", None, ["console"])
    assert re.match(r"\d+\.\d+", template.qemu_version) and template.made > 1_600_000_000
    assert repr(template) == f"<ratite.Template: {template.folder!r}>"


def test_a_machine_that_was_frozen_has_ended_and_that_is_no_error(guest, base):
    with guest(freezable=True) as machine:
        machine.console.expect("> ")
        template = machine.freeze()
        assert not machine.is_running

    assert machine.shutdown().asked == "us-by-force"
    template.close()


def test_a_machine_is_frozen_that_was_not_launched_for_it(guest, base):
    with guest() as machine:
        machine.console.expect("> ")
        template = machine.freeze()
    with template:
        assert template.ram in ("streamed", "placed") and template.why_not_mapped
        with template.spawn(base_folder=base) as spawned:
            says(spawned, "echo x", "x")


def test_a_device_that_is_in_the_way_is_named_and_the_machine_goes_on(guest):
    with guest("-blockdev", "null-co,node-name=n", "-device", "nvme,serial=x,drive=n", freezable=True) as machine:
        machine.console.expect("> ")

        error = raised_by(machine.freeze)

        assert type(error) is ratite.FreezeError and error.kind in ("blocked", "save")
        assert "nvme" in error.reasons[0] and error.reasons[0] in str(error)
        says(machine, "echo x", "x")


def test_a_disk_that_is_written_to_is_named(guest, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    with guest("-drive", f"file={disk},format=raw,if=none,id=data", "-device", "virtio-blk,drive=data") as machine:
        error = raised_by(machine.freeze)
        assert (error.kind, error.reasons) == ("writable-disk", ["data"]) and str(disk) in str(error)


def test_a_machine_without_a_monitor_cannot_be_frozen(guest):
    assert raised_by(guest(monitor=False, freezable=True).launch).kind == "not-freezable"
    with guest(monitor=False) as machine:
        error = raised_by(machine.freeze)
        assert error.kind == "not-freezable" and "monitor" in error.reasons[0]
        machine.kill()


def test_a_machine_that_has_ended_is_not_frozen(fake):
    machine = fake("stderr=last words").launch()
    machine.kill()

    error = raised_by(machine.freeze)

    assert type(error) is ratite.MachineExited and error.exit.signal_name == "SIGKILL" and b"last words" in error.log
    with pytest.raises(ratite.Error, match="was not launched"):
        fake().freeze()


def test_a_machine_of_a_template_has_what_its_keywords_say(frozen, base, tmp_path):
    console, seen = tmp_path / "console", []
    memory = ("object-add", {"qom-type": "memory-backend-ram", "id": "more", "size": 4096})
    template = frozen(typed="echo")

    machine = template.spawn(
        name="seven",
        base_folder=base,
        log_folder=tmp_path / "logs",
        console_logs={"console": console},
        commands=["query-status", memory],
        paused=True,
        grace=5,
        transcript=lambda way, text: seen.append(text),
    )

    with machine:
        assert not machine.cmd("query-status")["running"] and machine.name == "seven" and machine.grace == 5
        assert machine.cmd("qom-get", path="/objects/more", property="size") == 4096
        assert machine.log_path == str(tmp_path / "logs/seven.log")
        machine.cmd("cont")
        says(machine, " x", "x")
        assert any("object-add" in text for text in seen)
    assert console.read_bytes() == b" x\r\nx\r\n> "


def test_a_command_that_is_refused_ends_the_machine(frozen, base):
    template = frozen()

    error = raised_by(lambda: template.spawn(base_folder=base, commands=["nonsense"]))

    assert type(error) is ratite.SpawnError and error.kind == "resume" and "nonsense" in str(error)
    assert type(error.__cause__) is ratite.CommandError and error.__cause__.error_class == "CommandNotFound"


def test_what_cannot_work_is_refused(frozen, base):
    template = frozen()
    for mistake, kind in (
        (lambda: template.spawn(console_logs={"other": "log"}, base_folder=base), ratite.ConfigError),
        (lambda: template.spawn(vsock_cid=2), ratite.ConfigError),
        (lambda: template.spawn(grace=-1), ratite.ConfigError),
        (lambda: template.spawn(commands=[("stop", {"a": float("nan")})]), ratite.ArgumentsError),
        (lambda: template.spawn(commands="stop"), TypeError),
        (lambda: template.spawn(transcript=1), TypeError),
        (lambda: template.spawn(name="a/b", base_folder=base), (ratite.ConfigError, ratite.LaunchError)),
        (lambda: template.pool(0), ratite.ConfigError),
        (lambda: template.pool(-1), ratite.ConfigError),
    ):
        assert isinstance(raised_by(mistake), kind)


def test_a_machine_of_a_template_is_not_launched_again(frozen, base):
    machine = frozen().spawn(base_folder=base)

    with machine as same:
        assert same is machine and machine.binary == "qemu-system-x86_64"
    with pytest.raises(ratite.Error, match="that gives another one"):
        machine.launch()


def test_a_template_that_is_closed_is_gone_and_its_machines_go_on(frozen, base):
    template = frozen()
    folder = template.folder
    with template.spawn(base_folder=base) as machine:
        template.close()

        assert not os.path.exists(folder)
        for ask in (template.spawn, lambda: template.folder, lambda: template.pool(1), lambda: template.store("x")):
            error = raised_by(ask)
            assert type(error) is ratite.TemplateError and error.kind == "closed"
        assert "closed" in repr(template)
        says(machine, "echo x", "x")


def test_a_template_goes_with_its_last_reference(frozen, guest):
    with guest(freezable=True) as machine:
        machine.console.expect("> ")
        folder = machine.freeze().folder

    assert not os.path.exists(folder)


def test_a_stored_template_stays_for_other_programs(frozen, base):
    place = base / "stored"
    template = frozen(typed="echo ke")

    assert template.store(place) is template and template.folder == str(place)
    template.close()

    with ratite.Template.open(place) as again, again.spawn(base_folder=base) as machine:
        says(machine, "pt", "kept")
    script = """
import ratite, sys
with ratite.Template.open(sys.argv[1]).spawn(base_folder=sys.argv[2]) as machine:
    machine.console.send_line("eper")
    machine.console.expect("keeper")
"""
    subprocess.run([sys.executable, "-c", script, place, base], check=True, timeout=60)


def test_a_damaged_template_is_refused_with_its_file(frozen, base):
    place = base / "stored"
    frozen().store(place).close()

    with open(place / "state", "ab") as state:
        state.write(b"x")
    error = raised_by(lambda: ratite.Template.open(place))
    assert type(error) is ratite.TemplateError and (error.kind, error.path) == ("size", str(place / "state"))

    (place / "state").unlink()
    error = raised_by(lambda: ratite.Template.open(place))
    assert (error.kind, error.path) == ("gone", str(place / "state")) and error.errno

    (place / "template.json").write_text("{}")
    assert raised_by(lambda: ratite.Template.open(place)).kind == "unreadable"
    assert raised_by(lambda: ratite.Template.open(base / "none")).kind == "missing"


def test_a_template_that_changes_while_it_is_open_is_refused(frozen, base):
    template = frozen().store(base / "stored")
    (base / "stored/ram").write_bytes(b"")

    error = raised_by(lambda: template.spawn(base_folder=base))

    assert type(error) is ratite.TemplateError and (error.kind, error.path) == ("size", str(base / "stored/ram"))


def test_a_template_that_qemu_does_not_take_is_told_with_its_last_words(frozen, base):
    frozen().store(base / "stored").close()
    manifest = base / "stored/template.json"
    # A description that is not the state's: what no seal is on.
    manifest.write_text(manifest.read_text().replace('"tells_generation": true', '"tells_generation": false'))

    with ratite.Template.open(base / "stored") as template:
        error = raised_by(lambda: template.spawn(base_folder=base))

    assert type(error) is ratite.SpawnError and error.kind == "restore"
    assert error.exit is not None and b"vmgenid" in error.log


def test_what_cannot_be_stored_is_told(frozen, base):
    template = frozen()
    with template.pool(1, base_folder=base):
        error = raised_by(lambda: template.store(base / "stored"))
        assert type(error) is ratite.StoreError and error.kind == "held"
        assert os.path.isdir(template.folder)

    other = frozen()
    (base / "taken").mkdir()
    (base / "taken/file").write_text("")
    error = raised_by(lambda: other.store(base / "taken"))
    assert (error.kind, error.path) == ("taken", str(base / "taken"))
    with other.spawn(base_folder=base) as machine:
        assert machine.cmd("query-status")["running"]


def test_a_pool_gives_machines_that_are_their_takers(frozen, base):
    template = frozen(typed="echo ke")
    with template.pool(2, base_folder=base, grace=5) as pool:
        pool.filled()
        machines = [pool.take() for _ in range(3)]
        assert pool.size == 2 and len({machine.pid for machine in machines}) == 3 and machines[0].grace == 5

    for machine, rest in zip(machines, ("pt", "eper", "g")):
        with machine:
            says(machine, rest, f"ke{rest}")
    assert type(raised_by(pool.take)) is ratite.SpawnError


def test_a_pool_of_plain_machines_runs_them_once_they_are_taken(guest):
    with ratite.Pool.of(guest(), 1) as pool:
        pool.filled()
        with pool.take() as machine:
            machine.console.expect("> ")
            assert machine.cmd("query-status")["running"]
        with pytest.raises(ratite.Error, match="taken from a pool"):
            machine.launch()

    with ratite.Pool.of(guest("-S"), 1) as pool, pool.take() as machine:
        assert not machine.cmd("query-status")["running"]


def test_a_pool_prepares_its_machines_ahead(frozen, base):
    prepared = []

    def finish(machine):
        says(machine, "pt", "kept")
        prepared.append(machine.pid)

    with frozen(typed="echo ke").pool(2, base_folder=base, prepare=finish) as pool:
        pool.filled()
        waiting = list(prepared)
        assert len(waiting) == 2
        for _ in range(3):
            with pool.take() as machine:
                assert machine.pid in prepared and [event["event"] for event in machine.events()] == ["RESUME"]
                says(machine, "echo taken", "taken")


def test_a_pool_of_plain_machines_boots_them_ahead(guest):
    with ratite.Pool.of(guest(), 1, prepare=lambda machine: machine.console.expect("> ")) as pool:
        with pool.take() as machine:
            assert machine.console.tail(64).endswith(b"> ")
            says(machine, "echo booted", "booted")


def test_what_a_preparation_raises_is_the_cause_of_what_the_taker_hears(frozen, base):
    def fail(machine):
        raise ZeroDivisionError(f"of process {machine.pid}")

    with frozen(typed="").pool(1, base_folder=base, prepare=fail) as pool:
        for _ in range(2):
            error = raised_by(pool.take)
            assert type(error) is ratite.SpawnError and error.kind == "prepare"
            assert type(error.__cause__) is ZeroDivisionError and "of process" in str(error)


def test_closing_a_pool_ends_a_preparation_that_waits(guest):
    begun, ended = threading.Event(), threading.Event()

    def wait_for_ever(machine):
        machine.console.expect("> ")
        begun.set()
        try:
            machine.console.expect("what nobody says", timeout=600)
        finally:
            ended.set()

    with ratite.Pool.of(guest(), 1, prepare=wait_for_ever):
        assert begun.wait(60)
    assert ended.wait(60)


def test_a_pool_tells_why_it_has_no_machine(base, real):
    with ratite.Pool.of(real("-no-such-option"), 1) as pool:
        for _ in range(2):
            error = raised_by(pool.take)
            assert type(error) is ratite.LaunchError and "no-such-option" in error.output


def test_a_forked_process_neither_has_the_template_nor_removes_it(frozen, base):
    template = frozen(typed="echo ke")
    pool = template.pool(1, base_folder=base)

    def child():
        for ask in (template.spawn, template.close, lambda: template.store("x"), lambda: template.ram, pool.take, pool.close):
            with pytest.raises(ratite.ForkedError):
                ask()

    in_a_child(child)

    with pool, pool.take() as machine:
        says(machine, "pt", "kept")
        pid = machine.pid
    eventually(lambda: not runs(pid), "the end of the process")
