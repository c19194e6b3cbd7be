"""Events: what is kept, in which order, through which filters, and while more come."""

from __future__ import annotations

import threading
import time

import pytest

from hutch.engine import events
from hutch.engine.database import Database
from hutch.engine.events import enter, read_events
from hutch.errors import InvalidArgument


@pytest.fixture
def database(tmp_path):
    database = Database(str(tmp_path))
    yield database
    database.close()


def actions(found):
    return [event.action for event in found]


def test_no_store_has_no_events(tmp_path):
    assert list(read_events(Database(str(tmp_path / "none")))) == []


def test_events_come_in_their_order_with_what_belongs_to_them(database):
    before = time.time_ns()
    enter(database, "container", "create", "abc", {"name": "web", "image": "busybox"})
    enter(database, "volume", "mount", "data", {"driver": "local"})
    first, second = read_events(database)
    assert (first.type, first.action, first.actor, first.attributes["name"]) == ("container", "create", "abc", "web")
    assert second.actor == "data" and second.number > first.number
    assert before <= first.time_nanos <= second.time_nanos <= time.time_ns()


def test_since_and_until_bound_what_is_read(database):
    enter(database, "container", "create", "a", {})
    middle = time.time_ns()
    enter(database, "container", "start", "a", {})
    assert actions(read_events(database, since_nanos=middle)) == ["start"]
    assert actions(read_events(database, until_nanos=middle)) == ["create"]


FILTERS = [
    ({"event": ["start", "die"]}, ["start", "die"]),
    ({"event": ["exec_start"]}, ["exec_start: sh -c true"]),
    ({"type": ["volume"]}, ["mount"]),
    ({"container": ["web"]}, ["start", "exec_start: sh -c true"]),
    ({"container": ["bbb"]}, ["die"]),
    ({"image": ["busybox"]}, ["start", "exec_start: sh -c true", "pull"]),
    ({"image": ["busybox:1.36"]}, ["start", "exec_start: sh -c true", "pull"]),
    ({"label": ["tier"]}, ["start", "exec_start: sh -c true"]),
    ({"label": ["tier=front", "absent"]}, []),
    ({"volume": ["data"]}, ["mount"]),
    ({"container": ["web"], "event": ["die"]}, []),
    ({"scope": ["swarm"]}, []),
    ({"scope": ["local"], "type": ["image"]}, ["pull"]),
    ({"daemon": ["x"]}, []),
]


@pytest.mark.parametrize(("filters", "wanted"), FILTERS)
def test_filters_are_dockers(database, filters, wanted):
    web = {"name": "web", "image": "busybox:1.36", "tier": "front"}
    enter(database, "container", "start", "aaa111", web)
    enter(database, "container", "exec_start: sh -c true", "aaa111", web)
    enter(database, "container", "die", "bbb222", {"name": "db", "image": "host:5000/postgres"})
    enter(database, "volume", "mount", "data", {"driver": "local"})
    enter(database, "image", "pull", "busybox:1.36", {"name": "busybox"})
    assert actions(read_events(database, filters=filters)) == wanted


def test_an_unknown_filter_is_an_error(database):
    with pytest.raises(InvalidArgument, match="invalid filter 'colour'"):
        read_events(database, filters={"colour": ["red"]})


def test_following_sees_what_another_process_enters_and_ends_in_time(database, tmp_path):
    enter(database, "container", "before", "a", {})

    def later():
        other = Database(str(tmp_path))
        time.sleep(0.2)
        enter(other, "container", "during", "a", {})
        other.close()

    thread = threading.Thread(target=later)
    thread.start()
    began = time.time_ns()
    found = actions(read_events(database, until_nanos=began + 700_000_000, follow=True))
    thread.join()
    assert found == ["during"]
    assert 0.6 < (time.time_ns() - began) / 1e9 < 3


def test_following_sees_what_the_same_program_enters(database):
    stream = read_events(database, follow=True, until_nanos=time.time_ns() + 5_000_000_000)
    enter(database, "container", "one", "a", {})
    assert next(stream).action == "one"
    enter(database, "container", "two", "a", {})
    began = time.monotonic()
    assert next(stream).action == "two"
    assert time.monotonic() - began < 2


def test_old_events_are_forgotten(database, monkeypatch):
    monkeypatch.setattr(events, "KEPT", 1500)
    for number in range(2100):
        enter(database, "container", str(number), "a", {})
    found = actions(read_events(database))
    assert found[0] == "500" and found[-1] == "2099"
