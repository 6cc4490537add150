"""Publishing, resolving, loading: on a real folder."""

import hashlib
import json
import logging
from pathlib import Path

import pytest

from conductor_model_store import (
    CorruptModel,
    InvalidManifest,
    InvalidScope,
    ModelNotFound,
    ModelScope,
    ModelStore,
    ModelStoreUnavailable,
    PointerMoved,
)


def test_a_published_model_is_found_and_loads_as_it_was(store, make_model):
    manifest, graph = make_model(1)
    published = store.publish(manifest, graph)
    pointer = store.resolve("build-duration")
    assert pointer == published.pointer
    assert (pointer.generation, pointer.reason, pointer.previous_generation) == (1, "publish", 0)
    digest = hashlib.sha256(manifest.SerializeToString(deterministic=True)).hexdigest()
    assert (pointer.version, pointer.manifest_digest) == (digest[:16], digest)
    model = store.load_pointer(pointer)
    assert (model.manifest, model.graph, model.manifest_digest) == (manifest, graph, digest)
    assert model.scope.resource_name == "models/build-duration/global"


def test_an_empty_store_answers_empty(store):
    assert store.resolve("build-duration") is None
    assert store.pointers() == {}
    assert store.scopes() == store.versions("build-duration") == store.history("build-duration") == []


def test_publishing_the_same_again_changes_nothing(store, root, make_model):
    first = store.publish(*make_model(1))
    before = sorted(path for path in root.rglob("*") if path.is_file())
    assert store.publish(*make_model(1)) == first
    assert sorted(path for path in root.rglob("*") if path.is_file()) == before


def test_the_layout_is_the_documented_one(store, root, make_model):
    manifest, graph = make_model(1, tenant_id="Acme/../x")
    published = store.publish(manifest, graph, channel="challenger")
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    directory = "models/build-duration/tenants/%41cme%2F%2E%2E%2Fx"
    assert files == {
        f"blobs/sha256/{manifest.graph.digest}",
        f"{directory}/versions/{published.version}.binpb",
        f"{directory}/channels/challenger/00000000000000000001.json",
        "changed",
        "changes/00000000000000000001",
    }


def test_tenants_and_channels_are_kept_apart(store, make_model):
    versions = {
        tenant: store.publish(*make_model(number, tenant_id=tenant)).version
        for number, tenant in enumerate(["", "a", "A", "a/b", "a%2Fb", "..", "global", "a\0", "ä" * 200, "ä" * 201])
    }
    pointers = store.pointers()
    assert {scope.tenant_id: pointer.version for scope, pointer in pointers.items()} == versions
    assert {scope.tenant_id for scope in store.scopes()} == set(versions)
    assert store.resolve("build-duration", "b") is None
    assert store.resolve("build-duration", "a", "challenger") is None
    assert store.pointers("challenger") == {}
    with pytest.raises(ModelNotFound, match="no version"):
        store.load("build-duration", "a", versions["A"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda manifest: manifest.graph.ClearField("digest"), "digest"),
        (lambda manifest: setattr(manifest.graph, "digest", "0" * 64), "digest"),
        (lambda manifest: setattr(manifest.graph, "size_bytes", 1), "1 bytes"),
    ],
)
def test_a_manifest_that_does_not_fit_its_graph_is_refused_and_nothing_written(
    store, root, make_model, damage, message
):
    manifest, graph = make_model(1)
    damage(manifest)
    with pytest.raises(InvalidManifest, match=message):
        store.publish(manifest, graph)
    assert not any(root.rglob("*"))


def test_an_empty_graph_is_refused(store, make_model):
    with pytest.raises(InvalidManifest, match="empty"):
        store.publish(make_model(1)[0], b"")


@pytest.mark.parametrize("predictor", ["", "../x", "Build", "a/b", "a" * 64, "1a"])
def test_predictors_are_plain_names(store, make_model, predictor):
    with pytest.raises(InvalidScope):
        store.publish(*make_model(1, predictor=predictor))
    with pytest.raises(InvalidScope):
        store.resolve("build-duration", channel=predictor)


@pytest.mark.parametrize("version", ["", "x", "../../../x", "0" * 15, "A" * 16])
def test_versions_are_hexadecimal(store, version):
    with pytest.raises(InvalidScope):
        store.load("build-duration", None, version)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [half, flip, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("pattern", ["blobs/sha256/*", "models/**/*.binpb"])
def test_a_damaged_file_is_detected_and_publishing_again_mends_it(store, root, make_model, damage, pattern):
    published = store.publish(*make_model(1))
    [path] = root.glob(pattern)
    damage(path)
    with pytest.raises(CorruptModel, match=path.stem):
        store.load_pointer(published.pointer)
    with pytest.raises(CorruptModel, match=path.stem):
        store.load("build-duration", None, published.version)
    assert store.publish(*make_model(1)) == published
    assert store.load_pointer(published.pointer).graph == make_model(1)[1]


def test_a_missing_graph_is_named(store, root, make_model):
    published = store.publish(*make_model(1))
    [path] = root.glob("blobs/sha256/*")
    path.unlink()
    with pytest.raises(ModelNotFound, match=path.name):
        store.load_pointer(published.pointer)


def test_a_manifest_under_another_tenants_name_is_refused(store, root, make_model):
    version = store.publish(*make_model(1, tenant_id="a")).version
    source = root / f"models/build-duration/tenants/a/versions/{version}.binpb"
    target = root / f"models/build-duration/tenants/b/versions/{version}.binpb"
    target.parent.mkdir(parents=True)
    target.write_bytes(source.read_bytes())
    with pytest.raises(CorruptModel, match="tenant 'a'"):
        store.load("build-duration", "b", version)


def test_the_pointers_digest_is_checked_too(store, make_model):
    published = store.publish(*make_model(1))
    with pytest.raises(CorruptModel):
        store.load("build-duration", None, published.version, manifest_digest=published.version + "0" * 48)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"version": 1}', b"\xff"])
def test_an_unreadable_pointer_leaves_the_one_before_it_in_force(root, make_model, content, caplog):
    store = ModelStore.open(root)
    first = store.publish(*make_model(1))
    path = root / "models/build-duration/global/channels/champion/00000000000000000002.json"
    path.write_bytes(content)
    other = ModelStore.open(root)
    with caplog.at_level(logging.WARNING):
        assert other.resolve("build-duration") == first.pointer
    assert path.name in caplog.text
    assert other.pointers() == {first.scope: first.pointer}
    assert list(other.unreadable_pointers()) == [str(path.relative_to(root))]
    assert other.publish(*make_model(2)).pointer.generation == 3
    assert other.resolve("build-duration").generation == 3


def test_a_pointer_copied_to_another_tenant_is_not_believed(store, root, make_model):
    store.publish(*make_model(1, tenant_id="a"))
    source = root / "models/build-duration/tenants/a/channels/champion/00000000000000000001.json"
    target = root / "models/build-duration/tenants/b/channels/champion/00000000000000000001.json"
    target.parent.mkdir(parents=True)
    target.write_bytes(source.read_bytes())
    assert store.resolve("build-duration", "b") is None
    assert set(ModelStore.open(root).pointers()) == {ModelScope("build-duration", "a")}


def test_foreign_files_are_passed_over(store, root, make_model):
    published = store.publish(*make_model(1))
    for name in ["models/x", "models/build-duration/y", "models/build-duration/global/channels/champion/z.json"]:
        (root / name).write_text("?")
    assert ModelStore.open(root).pointers() == {published.scope: published.pointer}
    assert store.scopes() == [published.scope]


def test_rollback_goes_back_step_by_step(store, make_model):
    versions = [store.publish(*make_model(number)).version for number in range(3)]
    back = store.rollback("build-duration")
    assert (back.version, back.generation, back.reason) == (versions[1], 4, "rollback")
    assert store.rollback("build-duration").version == versions[0]
    with pytest.raises(ModelNotFound, match="before"):
        store.rollback("build-duration")
    assert [pointer.generation for pointer in store.history("build-duration")] == [5, 4, 3, 2, 1]


def test_rollback_refuses_a_damaged_target_and_changes_nothing(store, root, make_model):
    first, second = store.publish(*make_model(1)), store.publish(*make_model(2))
    (root / f"models/build-duration/global/versions/{first.version}.binpb").unlink()
    with pytest.raises(ModelNotFound):
        store.rollback("build-duration")
    assert store.resolve("build-duration") == second.pointer
    with pytest.raises(ModelNotFound, match="no channel"):
        store.rollback("build-duration", "acme")


def test_promote_checks_and_points(store, make_model):
    first = store.publish(*make_model(1))
    store.publish(*make_model(2))
    assert store.promote("build-duration", None, first.version).generation == 3
    assert store.promote("build-duration", None, first.version).generation == 3
    assert store.promote("build-duration", None, first.version, "challenger").generation == 1
    assert store.channels("build-duration") == ["challenger", "champion"]
    with pytest.raises(ModelNotFound):
        store.promote("build-duration", None, "0" * 16)


def test_versions_are_listed_newest_first(store, make_model):
    published = [store.publish(*make_model(number)).version for number in range(3)]
    assert [stored.version for stored in store.versions("build-duration")] == published[::-1]


class CountingObjects:
    """Counts what is asked of the objects behind it."""

    def __init__(self, objects):
        self._objects = objects
        self.calls = []

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append(name)
            return getattr(self._objects, name)(*arguments)

        return call


def test_watching_is_one_small_read_while_nothing_changes(root, store, make_model):
    from conductor_storage import ObstoreObjects

    objects = CountingObjects(ObstoreObjects(root))
    watcher = ModelStore(objects, rescan_seconds=60)
    first = store.publish(*make_model(1))
    assert watcher.pointers() == {first.scope: first.pointer}
    objects.calls.clear()
    assert watcher.pointers() == {first.scope: first.pointer}
    assert objects.calls == ["get"]
    second = store.publish(*make_model(2))
    assert watcher.pointers() == {second.scope: second.pointer}
    # The mark, the entry, none behind it, the one new pointer: no listing, however many models there are.
    assert objects.calls[1:] == ["get", "get", "get", "get"]


def test_a_change_is_seen_whoever_tells_of_it_and_however_many_came_before(root, store, make_model):
    """By the journal; by listing where it has a gap, was cut, or its author knew of none."""
    watcher, changes = ModelStore.open(root).watch(), root / "changes"
    scopes = [store.publish(*make_model(number, tenant_id=f"t{number}")).scope for number in range(3)]
    assert {place[0] for place in watcher.poll()} == set(scopes)
    assert watcher.poll() == []

    def moved(number):
        published = store.publish(*make_model(number, tenant_id="t0"))
        return published.pointer

    pointer = moved(10)
    assert watcher.poll() == [(scopes[0], "champion")]
    assert watcher.pointer(scopes[0], "champion") == pointer
    for spoil in (
        lambda: [path.unlink() for path in changes.iterdir()],  # cut
        lambda: (root / "changed").write_bytes(b"0123456789abcdef"),  # by an author without a journal
        lambda: (root / "changed").write_bytes(b"2 again"),  # by the slower of two authors
        lambda: max(changes.iterdir()).write_bytes(b"\xff no key"),  # nonsense, and the mark moves on
    ):
        pointer = moved(pointer.generation + 20)
        spoil()
        (root / "changed").write_bytes((root / "changed").read_bytes() + b".")
        impatient = watcher.poll()
        if not impatient:  # nonsense tells nothing; the listing that comes in time does
            watcher._next_listing = 0.0
            impatient = watcher.poll()
        assert impatient == [(scopes[0], "champion")]
        assert watcher.pointer(scopes[0], "champion") == pointer
    assert moved(99).generation == pointer.generation + 1
    assert watcher.poll() == [(scopes[0], "champion")]


def test_an_entry_that_was_read_before_its_mark_costs_no_listing(root, store, make_model):
    from conductor_storage import ObstoreObjects

    objects = CountingObjects(ObstoreObjects(root))
    watcher = ModelStore(objects, rescan_seconds=60).watch()
    store.publish(*make_model(1))
    watcher.poll()
    store.publish(*make_model(2))
    first = (root / "changed").read_bytes()
    store.publish(*make_model(3))
    second = (root / "changed").read_bytes()
    (root / "changed").write_bytes(first)  # as it is between the third publish's entry and its mark
    objects.calls.clear()
    assert len(watcher.poll()) == 1
    (root / "changed").write_bytes(second)
    assert watcher.poll() == []
    store.publish(*make_model(4))
    assert len(watcher.poll()) == 1
    assert "list" not in objects.calls


def test_the_journal_is_cut_and_goes_on(root, make_model, monkeypatch):
    from conductor_model_store import changes

    monkeypatch.setattr(changes, "_KEPT", 3)
    store, watcher = ModelStore.open(root), ModelStore.open(root).watch()
    watcher.poll()
    for number in range(8):
        store.publish(*make_model(number))
    assert sorted(int(path.name) for path in (root / "changes").iterdir()) == [6, 7, 8]
    assert len(watcher.poll()) == 1  # too far behind for the journal
    store.publish(*make_model(9))
    assert len(watcher.poll()) == 1


def test_a_watcher_sees_a_move_without_its_mark_after_the_rescan_time(root, store, make_model):
    watcher = ModelStore.open(root)
    impatient = ModelStore(watcher._objects, rescan_seconds=0)
    first = store.publish(*make_model(1))
    assert watcher.pointers() == impatient.pointers() == {first.scope: first.pointer}
    mark = (root / "changed").read_bytes()
    second = store.publish(*make_model(2))
    (root / "changed").write_bytes(mark)  # as if the publisher had died before setting it
    assert impatient.pointers() == {second.scope: second.pointer}


def test_what_the_watcher_hands_out_is_the_callers_own(store, make_model):
    store.publish(*make_model(1))
    store.pointers().clear()
    assert store.pointers()


def test_a_store_that_can_not_be_opened_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelStoreUnavailable):
        ModelStore.open(tmp_path / "file" / "models").pointers()


def test_file_urls_and_memory_work_alike(tmp_path, make_model):
    place = tmp_path / "ä b"
    published = ModelStore.open(place.as_uri()).publish(*make_model(1))
    assert ModelStore.open(place).resolve("build-duration") == published.pointer
    memory = ModelStore.open("memory:///")
    assert memory.publish(*make_model(1)).version == published.version
    assert memory.load_pointer(memory.resolve("build-duration")).graph == make_model(1)[1]


def test_pointer_files_are_readable_json(store, root, make_model):
    store.publish(*make_model(1, tenant_id="acme"))
    [path] = root.glob("models/**/*.json")
    fields = json.loads(path.read_text())
    assert (fields["tenant_id"], fields["generation"], fields["reason"]) == ("acme", 1, "publish")


@pytest.fixture(params=["file", "s3"])
def any_store(request, root, bucket):
    return ModelStore.open(root if request.param == "file" else "s3://bucket/somewhere")


def test_a_channel_with_a_weight_is_withdrawn_and_brought_back(any_store, make_model):
    first, second = any_store.publish(*make_model(1)), any_store.publish(*make_model(2))
    canary = any_store.promote("build-duration", None, first.version, "canary", weight=0.25)
    assert (canary.generation, canary.weight) == (1, 0.25)
    assert any_store.promote("build-duration", None, first.version, "canary", 0.25) == canary
    more = any_store.promote("build-duration", None, first.version, "canary", 0.5)
    assert (more.generation, more.weight) == (2, 0.5)
    with pytest.raises(PointerMoved):
        any_store.withdraw("build-duration", None, "canary", "old news", expected=canary)
    gone = any_store.withdraw("build-duration", None, "canary", "too slow", expected=more)
    assert (gone.generation, gone.withdrawn, gone.reason, gone.detail) == (3, True, "withdraw", "too slow")
    assert any_store.withdraw("build-duration", None, "canary") == gone
    assert any_store.resolve("build-duration", channel="canary") is None
    assert any_store.pointers("canary") == {}
    assert any_store.history("build-duration", channel="canary") == [gone, more, canary]
    back = any_store.rollback("build-duration", channel="canary")
    assert (back.generation, back.version, back.weight) == (4, first.version, 0.5)
    # What was withdrawn in between is passed over on the way back.
    again = any_store.withdraw("build-duration", None, "canary")
    any_store.promote("build-duration", None, second.version, "canary", 0.1)
    assert any_store.rollback("build-duration", channel="canary").version == first.version
    assert again.generation == 5
    assert any_store.promote("build-duration", None, "canary").version == first.version
    assert any_store.resolve("build-duration").version == first.version


def test_channels_are_moved_within_reason(store, make_model):
    version = store.publish(*make_model(1)).version
    for channel, weight in (("canary", 1.5), ("canary", -0.1), ("champion", 0.5), ("shadow", 0.5)):
        with pytest.raises(InvalidScope):
            store.promote("build-duration", None, version, channel, weight)
    with pytest.raises(InvalidScope, match="champion"):
        store.withdraw("build-duration", None, "champion")
    with pytest.raises(ModelNotFound):
        store.withdraw("build-duration", None, "canary")
    with pytest.raises(ModelNotFound, match="neither"):
        store.promote("build-duration", None, "canary")


def test_a_pointer_from_before_there_were_weights_is_read(store, root, make_model):
    pointer = store.publish(*make_model(1)).pointer
    [path] = root.glob("models/**/*.json")
    assert set(json.loads(path.read_text())).isdisjoint({"weight", "detail"})
    assert (pointer.weight, pointer.detail) == (0.0, "")
    fields = json.loads(path.read_text()) | {"weight": 7}
    path.write_text(json.dumps(fields))
    assert ModelStore.open(root).resolve("build-duration") is None
