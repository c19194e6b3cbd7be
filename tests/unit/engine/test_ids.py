from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.engine import idranges
from hutch.engine.containers import ContainerStore
from hutch.engine.database import Database
from hutch.engine.ids import host_id, keep_ids, new_id, new_name
from hutch.errors import AlreadyExists, ContainerNotFound, InvalidArgument, Unavailable
from hutch.runtime.state import check_id


def test_ids_and_names_are_in_their_grammars():
    for _ in range(200):
        assert len(check_id(new_id())) == 64
        assert check_id(new_name())


@given(own=st.integers(1, 70_000), sizes=st.lists(st.integers(1, 70_000), min_size=1, max_size=4))
def test_keep_id_maps_the_caller_to_itself_and_loses_nobody(own, sizes):
    mapping = [{"containerID": 0, "hostID": own, "size": 1}]
    start, inside = 100_000, 1
    for size in sizes:
        mapping.append({"containerID": inside, "hostID": start, "size": size})
        start, inside = start + size + 7, inside + size
    kept = keep_ids(own, mapping)
    assert host_id(own, kept) == own
    assert sum(piece["size"] for piece in kept) == sum(piece["size"] for piece in mapping)
    taken = [number for piece in kept for number in (piece["containerID"], piece["containerID"] + piece["size"] - 1)]
    assert sorted(taken) == taken


def test_an_id_without_a_mapping_is_an_error():
    with pytest.raises(InvalidArgument, match="not mapped"):
        host_id(5, [{"containerID": 0, "hostID": 9, "size": 1}])


def test_ranges_are_taken_once_given_back_and_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(idranges, "pool", lambda: [100, 200])
    store = ContainerStore(str(tmp_path), Database(str(tmp_path)))
    holders = [store.create() for _ in range(3)]
    ids = [holder.record.id for holder in holders]
    first, second = idranges.take(str(tmp_path), ids[0]), idranges.take(str(tmp_path), ids[1])
    assert {first, second} == {100, 200}
    with pytest.raises(Unavailable, match="every range"):
        idranges.take(str(tmp_path), ids[2])
    idranges.give_back(str(tmp_path), first, ids[1])  # not its own
    with pytest.raises(Unavailable):
        idranges.take(str(tmp_path), ids[2])
    idranges.give_back(str(tmp_path), first, ids[0])
    assert idranges.take(str(tmp_path), ids[2]) == first
    store.remove(holders[1])
    assert idranges.take(str(tmp_path), ids[0]) == second
    for holder in (holders[0], holders[2]):
        holder.close()


def test_a_name_has_one_owner_and_is_free_after_a_crash(tmp_path):
    store = ContainerStore(str(tmp_path), Database(str(tmp_path)))
    one = store.create("one")
    one.save()
    with pytest.raises(AlreadyExists, match="already in use"):
        store.create("one")
    assert len(os.listdir(tmp_path / "containers")) == 1
    with store.find("one") as found, store.find(one.record.id[:10]) as same:
        assert found.record.id == same.record.id == one.record.id
        assert not found.lock(wait=False)
    store.remove(one)
    with pytest.raises(ContainerNotFound):
        store.find("one")
    with store.create("one") as again:
        assert again.record.name == "one"


def test_a_row_without_a_directory_is_of_a_maker_that_was_killed(tmp_path):
    database = Database(str(tmp_path))
    store = ContainerStore(str(tmp_path), database)
    with store.create("crashed") as crashed:
        os.rmdir(crashed.path)
    assert store.abandoned() == []
    with pytest.raises(ContainerNotFound):
        store.find("crashed")
    store.create("crashed").close()


def test_fields_that_others_changed_meanwhile_stay(tmp_path):
    store = ContainerStore(str(tmp_path), Database(str(tmp_path)))
    with store.create("one") as mine, store.find("one") as theirs:
        theirs.record.restart = {"Name": "always", "MaximumRetryCount": 0}
        theirs.save()
        mine.record.exit_code = 7
        mine.save()
        assert mine.record.restart["Name"] == "always"
        theirs.refresh()
        assert theirs.record.exit_code == 7


def test_what_was_removed_meanwhile_is_not_found(tmp_path):
    store = ContainerStore(str(tmp_path), Database(str(tmp_path)))
    holder = store.create("gone")
    holder.save()
    with store.find("gone") as other:
        store.remove(holder)
        with pytest.raises(ContainerNotFound):
            other.refresh()
