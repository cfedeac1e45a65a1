"""Consoles: patterns, reading, writing."""

import os
import re

import pytest

import ratite


@pytest.fixture
def machine(fake):
    with fake("console-echo", console=True) as machine:
        yield machine


def test_a_conversation_with_a_real_guest(guest):
    with guest() as machine:
        console = machine.console
        assert b"ratite guest ready" in console.expect("> ").before
        console.send_line("echo hello")
        match = console.expect(re.compile(r"(h\w+)\r\n> "))
        assert match.groups == [b"hello"] and match.dropped == 0 and str(match) == "hello\r\n> "
        console.write(b"flood 100000\n")
        assert len(console.expect(re.compile(r"\n> ")).before) > 100_000


@pytest.mark.parametrize(
    "pattern, matched",
    [
        ("b.c", b"b.c"),
        (b"b.c", b"b.c"),
        (b"\xff", b"\xff"),
        ("ü", "ü".encode()),
        (re.compile("B[.]C", re.IGNORECASE), b"b.c"),
        (re.compile(rb"\xff"), b"\xff"),
        (re.compile("b . c  # spaces do not count", re.VERBOSE), b"b.c"),
        (re.compile("^\xfc", re.MULTILINE), "ü".encode()),
        (re.compile("c.+\xff?$"), None),
        (re.compile("c.ü", re.DOTALL), "c\nü".encode()),
    ],
)
def test_a_pattern_is_text_bytes_or_an_expression(machine, pattern, matched):
    machine.cmd("fake-console", text="a b.c\nü")
    machine.console.write(b"\xff\n")
    if matched is None:
        with pytest.raises(ratite.TimedOut):
            machine.console.expect(re.compile("c.z"), timeout=0.05)
        return
    assert machine.console.expect(pattern).matched == matched


def test_a_pattern_that_is_none_is_refused(machine):
    for mistake in (None, 5, [5]):
        with pytest.raises(TypeError, match="a pattern is a text, bytes, or made by re.compile"):
            machine.console.expect(mistake)
    with pytest.raises(ratite.PatternError):
        machine.console.expect(re.compile(r"(?=look)"))
    with pytest.raises(ratite.PatternError, match="written as"):
        machine.console.expect(re.compile(b"\xff"))


def test_what_was_waited_for_in_vain_is_still_there(machine):
    machine.cmd("fake-console", text="here")
    with pytest.raises(ratite.TimedOut) as raised:
        machine.console.expect("login:", timeout=0.1)
    assert raised.value.limit == 0.1 and "login:" in raised.value.what
    assert machine.console.expect("here").matched == b"here"


def test_a_read_takes_what_is_there_and_no_more_than_asked_for(machine):
    console = machine.console
    machine.cmd("fake-console", text="0123456789")
    console.expect("01")
    assert console.tail(100) == b"0123456789" and console.tail(3) == b"789"
    assert console.read(3) == b"234" and console.take(2) == b"56" and console.read() == b"789"
    assert console.take() == b"" and console.read(0) == b"" and console.take(0) == b""
    with pytest.raises(ratite.TimedOut):
        console.read(timeout=0)


def test_a_size_is_a_number_from_zero_on(machine):
    for take in (machine.console.read, machine.console.take, machine.console.tail):
        with pytest.raises(ValueError, match="size takes a whole number from 0 on, not -1"):
            take(-1)
        with pytest.raises(TypeError, match="size takes a whole number from 0 on, not 'all'"):
            take("all")


def test_what_is_typed_arrives(machine):
    machine.console.send_line("grüß dich")
    assert machine.console.expect("you said: grüß dich")


def test_the_end_is_told_behind_the_last_byte(fake):
    with fake("console-banner=last words", console=True) as machine:
        machine.console.expect("last")
        machine.shutdown()
        console = machine.console
        with pytest.raises(ratite.ConsoleEnded):
            console.expect("nothing")
        assert console.read() == b" words" and console.read() == b"" and console.has_ended
        with pytest.raises(ratite.ConsoleError):
            console.write(b"x")


def test_what_was_not_read_in_time_is_dropped_and_counted(fake):
    with fake(console=ratite.ConsoleOptions(history=1000)) as machine:
        machine.cmd("fake-console", bytes=100_000)
        machine.cmd("fake-console", text="the end")
        # All has arrived before anybody looks.
        machine.shutdown()
        match = machine.console.expect("the end")
        assert (match.dropped, len(match.before)) == (99_007, 993)


def test_a_read_says_what_was_dropped_and_goes_on(fake):
    with fake(console=ratite.ConsoleOptions(history=1000)) as machine:
        machine.cmd("fake-console", bytes=100_000)
        machine.shutdown()
        with pytest.raises(ratite.Lagged) as raised:
            machine.console.read()
        assert raised.value.dropped == 99_000
        assert len(machine.console.read()) == 1000


def test_the_log_has_every_byte(fake, tmp_path):
    log = tmp_path / os.fsdecode(b"console-\xff.log")
    with fake(console=ratite.ConsoleOptions(log=log, history=10)) as machine:
        machine.cmd("fake-console", bytes=50_000)
        machine.shutdown()
        assert machine.console.log_fault is None
    assert len(log.read_bytes()) == 50_000


def test_a_console_may_be_another_device(fake):
    with fake(console=ratite.ConsoleOptions("virtconsole")) as machine:
        assert "virtconsole,chardev=console" in machine.command
        machine.cmd("fake-console", text="here")
        assert machine.console.expect("here")


def test_of_several_patterns_it_is_told_which_matched(fake):
    with fake("console-banner=one two three", console=True) as machine:
        match = machine.console.expect(["three", re.compile("t(w)o"), b"never"], 20)
        assert (match.index, match.before, match.groups) == (1, b"one ", [b"w"])


def test_a_failure_is_raised_with_what_came_before_it(fake):
    with fake("console-banner=boot BUG: bad login:", console=True) as machine:
        with pytest.raises(ratite.ConsoleFailure, match="`BUG: ` appeared on the console") as caught:
            machine.console.expect("login:", 20, failing_on=ratite.LINUX_FAILURES)
        assert caught.value.pattern == "`BUG: `"
        assert caught.value.match.before == b"boot "
        assert caught.value.tail.startswith(b"boot BUG: bad")
        assert machine.console.expect("login:", 20).before == b"bad "


def test_the_guests_panic_is_raised(fake):
    with fake(console=True) as machine:
        machine.cmd("fake-events", count=1, name="GUEST_PANICKED", data={"action": "pause"})
        with pytest.raises(ratite.GuestPanicked, match="the guest panicked") as caught:
            machine.console.expect("login:", 20)
        assert caught.value.event["action"] == "pause"


def test_a_limit_that_is_over_has_the_last_words(fake):
    with fake("console-banner=so far", console=True) as machine:
        machine.console.reader().expect("far", 20)
        with pytest.raises(ratite.TimedOut) as caught:
            machine.console.expect("never", 0.1)
        assert caught.value.tail == b"so far"


def test_readers_have_places_of_their_own(fake):
    with fake("console-banner=one", console=True) as machine:
        whole = machine.console.reader()
        assert machine.console.expect("one", 20).before == b""
        later = machine.console.reader(from_now=True)
        machine.cmd("fake-console", text=" two")
        assert whole.expect("two", 20).before == b"one "
        assert later.expect("two", 20).before == b" "


def test_a_machine_has_several_consoles(fake, tmp_path):
    options = [
        ratite.ConsoleOptions(),
        ratite.ConsoleOptions(name="debug", log=tmp_path / "log", timestamps=True),
        ratite.ConsoleOptions.virtconsole(name="hvc0"),
        ratite.ConsoleOptions.virtserialport("org.example.0"),
    ]
    with fake("console-banner=hello", console=options) as machine:
        assert list(machine.consoles) == ["console", "debug", "hvc0", "org.example.0"]
        for console in machine.consoles.values():
            assert console.expect("hello", 20).before == b""
        assert "virtserialport,chardev=console-org.example.0,bus=ratite-serial.0,name=org.example.0" in machine.command_line
    assert re.fullmatch(rb"\[ +\d+\.\d{6}\] hello", (tmp_path / "log").read_bytes())


def test_what_is_typed_is_not_taken_for_an_answer(fake):
    with fake("console-echo", console=True) as machine:
        with pytest.raises(ratite.TimedOut, match="the echo of `x`"):
            machine.console.send_echoed("x", 0.1)
