"""Signed moves: whoever may write to the store, without a key, moves no channel; nor turns one back."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conductor_model_store import (
    ForkedPointer,
    InvalidKey,
    ModelStore,
    ModelStoreUnavailable,
    NoAuthority,
    PointerMemory,
    RewoundPointer,
    UntrustedPointer,
)
from conductor_model_store.pointer_files import PointerFiles
from conductor_model_store.signatures import Trust
from conductor_model_store.signing import sign_channels
from conductor_model_store.verification import verify
from conductor_storage import ObstoreObjects
from model_store.conftest import make_model
from model_store.places import FIRST, FOREIGN, SECOND, Place, keys_of, trust

PREDICTOR = "build-duration"


class Server:
    """Looks at a store as a server does, and remembers."""

    def __init__(self, place, trusted=None, memory=None):
        self.refused = []
        self.memory = memory or PointerMemory()
        keys = trusted or Trust(keys=keys_of(FIRST))
        told = lambda _, error: self.refused.append(type(error))  # noqa: E731
        self.store = place.store(keys, memory=self.memory, on_refused=told)

    def sees(self, tenant_id="", channel="champion"):
        """The generation that it serves; 0 for none. A watch that begins now agrees."""
        watch = self.store.watch()
        watch.poll()
        found = {(scope.tenant_id, name): watch.pointer(scope, name) for scope, name in watch.places()}
        pointer = found.get((tenant_id, channel))
        assert self.store.resolve(PREDICTOR, tenant_id, channel) == pointer
        return pointer.generation if pointer else 0


def publish(place, *numbers, tenant_id="", channel="champion", trusted=None):
    """The last one's version; each is a generation."""
    store = place.store(trusted or trust())
    return [store.publish(*make_model(number, tenant_id=tenant_id), channel) for number in numbers][-1]


def key(version, generation, channel="champion"):
    return version.scope.pointer_key(channel, generation)


def test_moves_are_a_chain_and_a_server_follows_it(place):
    server = Server(place)
    last = publish(place, 1, 2, 3)
    assert server.sees() == 3
    store = place.store(trust())
    store.rollback(PREDICTOR)
    store.promote(PREDICTOR, None, last.version, actor="jo", detail="better")
    history = store.history(PREDICTOR)
    assert [move.predecessor for move in history] == [*(move.digest for move in history[1:]), ""]
    assert (history[0].actor, history[0].detail) == ("jo", "better")
    assert {key_id for move in history for key_id, _ in move.signatures} == {FIRST.public_key.keyid}
    assert server.sees() == 5
    assert server.refused == []
    assert not [finding for finding in verify(store) if finding.problem]


@pytest.mark.parametrize("by", [None, FOREIGN], ids=["nobody", "a key that is not trusted"])
def test_a_move_by_others_does_not_count(place, by):
    old = publish(place, 1)
    publish(place, 2)
    server = Server(place)
    assert server.sees() == 2
    # An old version that a trusted key did sign.
    attacker = place.store(Trust(signer=by) if by else None)
    attacker.promote(PREDICTOR, None, old.version)
    attacker.promote(PREDICTOR, None, old.version, "challenger", weight=1.0)
    assert (server.sees(), server.sees(channel="challenger")) == (2, 0)
    assert set(server.refused) == {UntrustedPointer}
    assert Server(place).sees() == 2
    # The next move by those who may comes after it, and follows what counts.
    publish(place, 3)
    assert server.sees() == 4
    assert [finding.subject for finding in verify(place.store(trust())) if finding.problem] == [
        key(old, 1, "challenger"),
        key(old, 3),
    ]


def test_an_old_generation_put_back_under_a_new_number(place):
    last = publish(place, 1, 2)
    server = Server(place)
    assert server.sees() == 2
    place.copy(key(last, 1), key(last, 3))
    place.edit(key(last, 3), lambda content: content)
    assert server.sees() == 2
    place.edit(key(last, 3), lambda content: content.replace(b'"generation": 1', b'"generation": 3'))
    assert server.sees() == 2
    assert UntrustedPointer in server.refused


@pytest.mark.parametrize("gone", [[3], [2, 3], [1, 2, 3]])
@pytest.mark.parametrize("durable", [False, True])
def test_deleted_generations_turn_nothing_back(place, gone, durable, tmp_path):
    path = tmp_path / "memory" / "moves" if durable else None
    last = publish(place, 1, 2, 3)
    server = Server(place, memory=PointerMemory(path))
    assert server.sees() == 3
    for generation in gone:
        place.take_away(key(last, generation))
    assert server.sees() == 3
    assert set(server.refused) == {RewoundPointer}
    restarted = Server(place, memory=PointerMemory(path))
    # What is not kept over a restart is not known after it: then the store is believed.
    assert restarted.sees() == (3 if durable else 3 - len(gone))
    # A move through a process that remembers mends the chain, for the others too.
    moving = place.store(trust(), memory=server.memory)
    assert moving.promote(PREDICTOR, None, last.version, "champion").generation == 3, "it is there already"
    assert moving.publish(*make_model(4)).pointer.generation == 4
    assert server.sees() == 4
    assert Server(place, memory=PointerMemory(path)).sees() == 4


def test_a_generation_of_another_tenant_or_channel(place):
    theirs = publish(place, 1, 2, tenant_id="a")
    ours = publish(place, 1, tenant_id="b")
    publish(place, 5, 6, tenant_id="b", channel="canary")
    server = Server(place)
    assert (server.sees("b"), server.sees("b", "canary")) == (1, 2)
    for source in (key(theirs, 2), key(ours, 2, "canary")):
        place.copy(source, key(ours, 2))
        assert server.sees("b") == 1
        good = place.objects.get(source)
        for before, after in ((b'"a"', b'"b"'), (b'"canary"', b'"champion"')):
            place.objects.put(key(ours, 2), good.replace(before, after))
            assert server.sees("b") == 1


def forked(place):
    """Servers saw 1, 2, 3; 2 and 3 were hidden from who published others, 4 and 5 too. Returns the last of these."""
    last = publish(place, 1, 2, 3)
    server = Server(place)
    assert server.sees() == 3
    for generation in (2, 3):
        place.take_away(key(last, generation))
    return server, publish(place, 12, 13, 14, 15)


def test_a_fork_is_refused_until_somebody_with_a_key_says_so(place):
    server, last = forked(place)
    assert last.pointer.generation == 5
    assert server.sees() == 3
    assert server.refused == [ForkedPointer]
    place.take_away(key(last, 5))
    place.take_away(key(last, 4))
    # The other one of the same number.
    assert server.sees() == 3
    assert server.refused == [ForkedPointer] * 2
    # Without a key nobody starts a chain anew.
    with pytest.raises(NoAuthority):
        place.store(Trust(keys=keys_of(FIRST))).restart_channel(PREDICTOR, None, "champion", above=3)
    begun = place.store(trust()).restart_channel(PREDICTOR, None, "champion", above=3, detail="we know")
    assert (begun.generation, begun.predecessor, begun.detail) == (4, "", "we know")
    assert server.sees() == 4
    publish(place, 16)
    assert server.sees() == 5


def test_a_server_that_missed_moves_follows_the_chain_and_junk_does_not_break_it(place):
    last = publish(place, 1)
    server = Server(place)
    assert server.sees() == 1
    place.objects.put(key(last, 2), b"junk")
    place.store().publish(*make_model(66))  # nobody's
    publish(place, 4, 5, 6)
    assert server.sees() == 6
    # One that is gone: nobody can tell what was between.
    late = Server(place, memory=PointerMemory())
    late.memory.keep(place.store().history(PREDICTOR)[-1])
    place.take_away(key(last, 5))
    assert late.sees() == 1
    assert ForkedPointer in late.refused
    problems = [finding.problem for finding in verify(place.store(trust())) if finding.problem]
    assert any("does not follow" in problem for problem in problems)


def test_keys_have_purposes(place):
    trainer = trust(signer=FIRST, operator_keys=keys_of(SECOND))
    with pytest.raises(NoAuthority, match="CONDUCTOR_MODEL_OPERATOR_KEY"):
        place.store(trainer).publish(*make_model(1))
    assert place.objects.list("") == [], "nothing is written"
    _, version, _ = place.store(trainer).add(*make_model(1))
    operator = Trust(keys=keys_of(FIRST), operator=SECOND, operator_keys=keys_of(SECOND))
    server = Server(place, Trust(keys=keys_of(FIRST), operator_keys=keys_of(SECOND)))
    assert server.sees() == 0
    place.store(operator).promote(PREDICTOR, None, version)
    assert server.sees() == 1
    # A key that only publishes does not move channels, and what no key published is not promoted.
    place.store(Trust(signer=FIRST)).publish(*make_model(2))
    assert server.sees() == 1
    unsigned = place.store().publish(*make_model(3), "shadow")
    with pytest.raises(Exception, match="is not signed"):
        place.store(operator).promote(PREDICTOR, None, unsigned.version)
    both = trust(signer=FIRST, operator=SECOND, operator_keys=keys_of(SECOND))
    place.store(both).publish(*make_model(4))
    assert server.sees() == 3, "the number of what does not count is not used again"
    for attempt in (
        lambda store: store.promote(PREDICTOR, None, version),
        lambda store: store.rollback(PREDICTOR),
        lambda store: store.withdraw(PREDICTOR, None, "shadow"),
    ):
        with pytest.raises((NoAuthority, LookupError)):
            attempt(place.store(trainer))
    assert server.sees() == 3


def test_a_new_key_by_signing_again(place):
    publish(place, 1, 2)
    server = Server(place, trust(FIRST, SECOND))
    assert server.sees() == 2
    both = Trust(signer=SECOND, keys=keys_of(FIRST, SECOND))
    assert [finding.problem for finding in sign_channels(place.store(both))] == [None, None]
    before = {entry.key: place.objects.get(entry.key) for entry in place.objects.list("models")}
    assert [finding.problem for finding in sign_channels(place.store(both))] == [None, None]
    assert {entry.key: place.objects.get(entry.key) for entry in place.objects.list("models")} == before
    for keys in (keys_of(FIRST), keys_of(SECOND)):
        assert Server(place, Trust(keys=keys)).sees() == 2
    # Who remembers the old key's move only goes on with the new key's.
    assert Server(place, Trust(keys=keys_of(SECOND)), server.memory).sees() == 2
    assert Server(place, Trust(keys=keys_of(FOREIGN)), server.memory).sees() == 0
    with pytest.raises(InvalidKey):
        list(sign_channels(place.store(Trust(keys=keys_of(FIRST)))))


def test_signing_does_not_vouch_for_what_others_put_on_top(place):
    publish(place, 1)
    place.store().publish(*make_model(2))
    assert len(list(sign_channels(place.store(trust())))) == 1
    assert Server(place).sees() == 1


def test_a_memory_that_can_not_be_used_says_so(tmp_path):
    (tmp_path / "memory").write_text("no database" * 100)
    with pytest.raises(ModelStoreUnavailable, match="memory of moves"):
        PointerMemory(tmp_path / "memory")
    with pytest.raises(ModelStoreUnavailable, match="memory of moves"):
        PointerMemory(tmp_path)


def test_a_memory_is_of_one_store_and_goes_forward_only(tmp_path):
    place = Place(ObstoreObjects("memory:///"))
    publish(place, 1, 2)
    newer, older = place.store().history(PREDICTOR)
    first, second, other = (PointerMemory(tmp_path / "m", name) for name in ("a", "a", "b"))
    first.keep(newer)
    second.keep(older)
    assert [pointer.generation for pointer in second.pointers(besides=())] == [2]
    assert second.pointers(besides={newer.scope.channel_directory("champion")}) == []
    assert other.recall(newer.scope, "champion") is None
    second.forget(newer.scope, "champion")
    assert first.pointers(besides=()) == []


def test_earlier_releases_read_signed_moves():
    """They take these fields, and no other way to read them is promised."""
    place = Place(ObstoreObjects("memory:///"))
    move = publish(place, 1).pointer
    told = json.loads(move.to_json())
    assert told["version"] == move.version
    assert told["generation"] == 1
    assert json.loads(replace(move, signatures=()).to_json()) == {
        name: value for name, value in told.items() if name != "signatures"
    }


EDITED = Place(ObstoreObjects("memory:///"))
LAST = publish(EDITED, 1, 2, 3)


def changed(good, data):
    at = data.draw(st.integers(0, len(good) - 1), "position")
    flip = data.draw(st.integers(1, 255), "flip")
    how = data.draw(st.sampled_from(["flipped", "inserted", "left out"]))
    return {
        "flipped": good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :],
        "inserted": good[:at] + bytes([flip]) + good[at:],
        "left out": good[:at] + good[at + 1 :],
    }[how]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_edited_byte_counts(data):
    good = EDITED.objects.get(key(LAST, 3))
    content = changed(good, data)
    EDITED.objects.put(key(LAST, 3), content)
    try:
        server = Server(EDITED)
        # One byte inserted may be equal to its neighbour's: then nothing is another.
        assert server.sees() == (3 if content == good else 2)
        assert content == good or server.refused
    finally:
        EDITED.objects.put(key(LAST, 3), good)
    assert Server(EDITED).sees() == 3


def test_every_byte_of_a_move_counts():
    good = EDITED.objects.get(key(LAST, 3))
    try:
        for at in range(len(good)):
            EDITED.objects.put(key(LAST, 3), good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            assert EDITED.store(trust()).resolve(PREDICTOR).generation == 2, good[at : at + 9]
    finally:
        EDITED.objects.put(key(LAST, 3), good)


class Unchecked(PointerFiles):
    """A planted bug: the signature is not looked at."""

    _keys = None


class Forgetful(PointerFiles):
    """A planted bug: what was seen is not compared with what is found."""

    def _forward(self, found, seen):
        return found


class Trusting(PointerFiles):
    """A planted bug: any higher number follows."""

    def _follows(self, found, seen):
        return True


@pytest.mark.parametrize(
    ("bug", "test"),
    [
        (Unchecked, lambda place: test_a_move_by_others_does_not_count(place, None)),
        (Unchecked, lambda _: test_every_byte_of_a_move_counts()),
        (Forgetful, lambda place: test_deleted_generations_turn_nothing_back(place, [3], False, None)),
        (Forgetful, test_a_fork_is_refused_until_somebody_with_a_key_says_so),
        (Trusting, test_a_fork_is_refused_until_somebody_with_a_key_says_so),
        (Trusting, test_a_server_that_missed_moves_follows_the_chain_and_junk_does_not_break_it),
    ],
)
def test_these_tests_catch_planted_bugs(bug, test, monkeypatch, root):
    monkeypatch.setattr("conductor_model_store.store.PointerFiles", bug)
    with pytest.raises(AssertionError):
        test(Place(ObstoreObjects(root)))


def test_unsigned_stores_are_as_before():
    place = Place(ObstoreObjects("memory:///"))
    store = ModelStore(place.objects)
    store.publish(*make_model(1))
    move = store.publish(*make_model(2)).pointer
    assert move.signatures == ()
    assert store.rollback(PREDICTOR).generation == 3
