"""Events: waiting for them, passing them over, listening."""

import math

import pytest

import ratite


def names(events):
    return [event["event"] for event in events]


def test_events_that_are_passed_over_stay_in_order(fake):
    with fake() as machine:
        for name in "ABCA":
            machine.cmd("fake-events", name=name)
        assert machine.event_wait("B")["event"] == "B"
        assert machine.event_wait("C", "A")["event"] == "A"
        assert names(machine.events()) == ["C", "A"]
        assert machine.events() == []


def test_no_name_is_any_event(fake):
    with fake() as machine:
        machine.cmd("fake-events", name="A")
        assert machine.event_wait()["event"] == "A"


def test_a_match_looks_into_the_data(fake):
    with fake() as machine:
        machine.cmd("fake-events", name="A", data={"id": 1, "list": [1, 2]})
        machine.cmd("fake-events", name="A", data={"id": 2, "list": [1, 2]})
        assert machine.event_wait("A", match={"data": {"id": 2}})["data"]["id"] == 2
        with pytest.raises(ratite.TimedOut):
            machine.event_wait("A", match={"data": {"list": [1]}}, timeout=0)
        assert machine.event_wait("A", match={"data": {"id": None, "list": [1, 2]}}, timeout=0)["data"]["id"] == 1


def test_a_real_guest_s_events_come(guest):
    with guest() as machine:
        machine.cmd("stop")
        machine.cmd("cont")
        assert machine.event_wait("RESUME")["event"] == "RESUME"
        assert machine.event_wait("STOP")["event"] == "STOP"


def test_a_limit_is_over_under_a_flood_too(fake):
    with fake("event-flood=0") as machine:
        with pytest.raises(ratite.TimedOut) as raised:
            machine.event_wait("NEVER", timeout=0.2)
        assert raised.value.limit == 0.2 and "NEVER" in raised.value.what


def test_events_can_be_taken_after_the_end(fake):
    with fake() as machine:
        machine.cmd("fake-events", name="LAST")
        machine.shutdown()
        assert machine.event_wait("LAST", timeout=0)["event"] == "LAST"
        assert "SHUTDOWN" in names(machine.events())
        with pytest.raises(ratite.MachineExited):
            machine.event_wait("LAST")


def test_a_full_queue_drops_the_oldest_and_says_so(fake):
    with fake() as machine:
        machine.cmd("fake-events", name="FLOOD", count=16384 + 100)
        assert machine.dropped_events == 100
        assert machine.event_wait("FLOOD")["data"]["seq"] == 100


def test_a_listener_has_a_queue_of_its_own(fake):
    with fake() as machine:
        listener = machine.listen("A", match={"data": {"id": 1}})
        machine.cmd("fake-events", name="A", data={"id": 0})
        machine.cmd("fake-events", name="B", data={"id": 1})
        machine.cmd("fake-events", name="A", data={"id": 1}, count=3)

        assert len(listener) == 3 and listener.dropped == 0
        assert listener.next()["data"]["seq"] == 0
        assert listener.next("A", match={"data": {"seq": 2}})["data"]["seq"] == 2
        assert names(listener.take_all()) == ["A"]
        with pytest.raises(ratite.TimedOut):
            listener.next(timeout=0)
        assert len(machine.events()) == 5


def test_a_listener_says_once_that_it_was_read_too_slowly(fake):
    with fake() as machine:
        listener = machine.listen("FLOOD")
        machine.cmd("fake-events", name="FLOOD", count=16384 + 100)
        with pytest.raises(ratite.Lagged) as raised:
            listener.next()
        assert raised.value.dropped == listener.dropped == 100
        assert listener.next()["data"]["seq"] == 100


def test_a_listener_is_iterated_until_the_end(fake):
    with fake() as machine:
        listener = machine.listen("A", "SHUTDOWN")
        machine.cmd("fake-events", name="A", count=2)
        machine.shutdown()
        assert names(listener) == ["A", "A", "SHUTDOWN"]
        with pytest.raises(ratite.Disconnected):
            listener.next()


@pytest.mark.parametrize("match", [{"data": math.nan}, {"data": object}])
def test_a_match_that_no_event_can_have_is_refused(fake, match):
    with fake() as machine:
        with pytest.raises((ratite.ArgumentsError, TypeError)):
            machine.event_wait("A", match=match)


def test_the_name_of_an_event_is_a_text(fake):
    with fake() as machine:
        with pytest.raises(TypeError, match=r"name of an event is a text, not \['A', 'B'\]"):
            machine.event_wait(["A", "B"])
