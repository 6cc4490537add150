"""A channel behaves as a stack of versions with a counter, whatever is done to it in whatever order."""

import hashlib

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from conductor.model.v1.model_manifest_pb2 import Blob, ModelManifest
from conductor_model_store import ModelNotFound, ModelScope, ModelStore

GRAPH = b"graph"
tenants = st.sampled_from(["", "acme", "Acme", "../acme"])


class Channel(RuleBasedStateMachine):
    """Two stores on the same storage, used in turn, against lists in memory."""

    def __init__(self):
        super().__init__()
        first = ModelStore.open("memory:///")
        self.stores = [first, ModelStore(first._objects, rescan_seconds=60)]
        self.stacks = {}
        self.generations = {}
        self.known = {}

    def moved(self, tenant, pointer):
        self.generations[tenant] = self.generations.get(tenant, 0) + 1
        assert pointer.generation == self.generations[tenant]

    @rule(tenant=tenants, number=st.integers(0, 4), which=st.integers(0, 1))
    def publish(self, tenant, number, which):
        blob = Blob(digest=hashlib.sha256(GRAPH).hexdigest(), size_bytes=len(GRAPH))
        manifest = ModelManifest(predictor="build-duration", tenant_id=tenant, algorithm=str(number), graph=blob)
        published = self.stores[which].publish(manifest, GRAPH)
        stack = self.stacks.setdefault(tenant, [])
        self.known.setdefault(tenant, set()).add(published.version)
        if not stack or stack[-1] != published.version:
            stack.append(published.version)
            self.moved(tenant, published.pointer)

    @rule(tenant=tenants, which=st.integers(0, 1))
    def rollback(self, tenant, which):
        stack = self.stacks.get(tenant, [])
        if len(stack) < 2:
            with pytest.raises(ModelNotFound):
                self.stores[which].rollback("build-duration", tenant)
        else:
            stack.pop()
            self.moved(tenant, self.stores[which].rollback("build-duration", tenant))

    @rule(tenant=tenants, which=st.integers(0, 1), data=st.data())
    def promote(self, tenant, which, data):
        if known := sorted(self.known.get(tenant, ())):
            version = data.draw(st.sampled_from(known))
            pointer = self.stores[which].promote("build-duration", tenant, version)
            if self.stacks[tenant][-1] != version:
                self.stacks[tenant].append(version)
                self.moved(tenant, pointer)

    @invariant()
    def both_stores_see_the_top_of_every_stack(self):
        expected = {ModelScope("build-duration", tenant): stack[-1] for tenant, stack in self.stacks.items()}
        for store in self.stores:
            assert {scope: pointer.version for scope, pointer in store.pointers().items()} == expected
        for tenant, stack in self.stacks.items():
            assert self.stores[0].resolve("build-duration", tenant).version == stack[-1]
            assert len(self.stores[1].history("build-duration", tenant)) == self.generations[tenant]


Channel.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestChannel = Channel.TestCase
