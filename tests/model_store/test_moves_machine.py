"""Whatever somebody without a key does to a channel's files, in any order: a server goes forward, by real moves."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from conductor_model_store import ModelScope, ModelStoreError, PointerMemory
from conductor_model_store.pointer_files import PointerFiles
from conductor_model_store.signatures import Trust
from conductor_storage import ObstoreObjects
from model_store.conftest import make_model
from model_store.places import FIRST, Place, keys_of, trust

PREDICTOR, SCOPE = "build-duration", ModelScope("build-duration")
generations = st.integers(1, 8)
SHORT = settings(max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Tampering(RuleBasedStateMachine):
    """One with a key moves the channel, one without has the files; a server looks on."""

    def __init__(self):
        super().__init__()
        self.place = Place(ObstoreObjects("memory:///"))
        self.server = self.place.store(Trust(keys=keys_of(FIRST)), memory=PointerMemory())
        self.ever = [b"junk"]
        self.real = set()
        self.seen = 0

    def files(self):
        return {entry.key: self.place.objects.get(entry.key) for entry in self.place.objects.list(SCOPE.directory)}

    def move(self, attempt):
        try:
            pointer = attempt(self.place.store(trust()))
        except ModelStoreError:  # there is nothing before it, or it was taken away
            return
        self.real.add(pointer.digest)
        self.ever += [content for key, content in self.files().items() if "/channels/" in key]

    @rule(number=st.integers(0, 3))
    def publish(self, number):
        self.move(lambda store: store.publish(*make_model(number)).pointer)

    @rule()
    def roll_back(self):
        self.move(lambda store: store.rollback(PREDICTOR))

    @rule(above=st.integers(0, 6))
    def restart(self, above):
        self.move(lambda store: store.restart_channel(PREDICTOR, None, "champion", above))

    @rule(generation=generations)
    def take_away(self, generation):
        self.place.objects.delete(SCOPE.pointer_key("champion", generation))

    @rule(generation=generations, data=st.data())
    def put_back(self, generation, data):
        content = data.draw(st.sampled_from(self.ever))
        self.place.objects.put(SCOPE.pointer_key("champion", generation), content)

    @rule(number=st.integers(0, 3))
    def move_without_a_key(self, number):
        manifest, graph = make_model(number)
        version = self.place.store().add(manifest, graph)
        self.place.store().promote(PREDICTOR, None, version[1])

    @invariant()
    def the_server_goes_forward_by_real_moves(self):
        pointer = self.server.resolve(PREDICTOR)
        generation = pointer.generation if pointer else 0
        assert generation >= self.seen
        assert pointer is None or pointer.digest in self.real
        self.seen = generation


Tampering.TestCase.settings = SHORT
TestTampering = Tampering.TestCase


@pytest.mark.parametrize("bug", [{"_keys": None}, {"_forward": lambda _self, found, _seen: found}])
def test_the_machine_catches_planted_bugs(bug, monkeypatch):
    monkeypatch.setattr("conductor_model_store.store.PointerFiles", type("Broken", (PointerFiles,), bug))
    quick = settings(SHORT, max_examples=200, phases=[Phase.generate], report_multiple_bugs=False, database=None)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Tampering, settings=quick)
