"""Signed models: what no trusted key vouches for never loads, on files and over S3's protocol."""

import json
import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from conductor_model_store import InvalidKey, ModelNotFound, ModelStore, ModelStoreError, UntrustedModel
from conductor_model_store.settings import ModelStoreSettings
from conductor_model_store.signatures import Trust
from conductor_model_store.signing import sign_all, sign_channels
from conductor_model_store.signing_keys import KeyAlgorithm, generate_key_pair, read_signer, read_trusted_keys
from conductor_storage import ObstoreObjects
from model_store.conftest import make_model
from model_store.places import FIRST, FOREIGN, SECOND, Place, trust

PREDICTOR = "build-duration"


def published(place, number=1, trust=trust(), **more):
    """A published version; with its keys."""
    made = place.store(trust).publish(*make_model(number, **more))
    return made, made.scope.version_key(made.version), made.scope.signature_key(made.version)


def refuses(place, version, trust, match):
    """Whether nothing lets the version through: loading, its pointer, promotion."""
    store = place.store(trust)
    scope, pointer = version.scope, version.pointer
    for attempt in (
        lambda: store.load(scope.predictor, scope.tenant_id, version.version),
        lambda: store.load_pointer(pointer),
        lambda: store.promote(scope.predictor, scope.tenant_id, version.version, "challenger"),
    ):
        with pytest.raises(UntrustedModel, match=match):
            attempt()
    assert store.resolve(scope.predictor, scope.tenant_id, "challenger") is None


def test_a_signed_model_loads_and_the_envelope_says_what_was_signed(place):
    from base64 import b64decode

    version, _, signature_key = published(place)
    assert place.store(trust()).load_pointer(version.pointer).graph == make_model(1)[1]
    envelope = json.loads(place.objects.get(signature_key))
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    statement = json.loads(b64decode(envelope["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert [subject["digest"]["sha256"] for subject in statement["subject"]] == [
        version.manifest_digest,
        make_model(1)[0].graph.digest,
    ]
    assert statement["subject"][0]["name"] == f"models/build-duration/global/versions/{version.version}"
    # Whoever checks nothing sees the same store as before there were signatures.
    assert [stored.version for stored in place.store().versions(PREDICTOR)] == [version.version]
    assert place.store().scopes() == [version.scope]


def test_an_unsigned_model_never_loads(place):
    version, _, _ = published(place, trust=None)
    refuses(place, version, trust(), "is not signed")


def test_a_signature_that_was_taken_away(place):
    version, _, signature_key = published(place)
    place.take_away(signature_key)
    refuses(place, version, trust(), "is not signed")


def test_a_signature_by_an_unknown_key(place):
    version, _, _ = published(place, trust=trust(FOREIGN, signer=FOREIGN))
    refuses(place, version, trust(), "not by a trusted key")


def test_a_key_that_is_trusted_no_longer(place):
    version, _, _ = published(place)
    refuses(place, version, trust(SECOND), "not by a trusted key")
    refuses(place, version, Trust(keys={}), "not by a trusted key")


def test_a_foreign_signature_under_a_trusted_keys_id(place):
    version, _, signature_key = published(place, trust=trust(FOREIGN, signer=FOREIGN))
    ours, theirs = (signer.public_key.keyid.encode() for signer in (FIRST, FOREIGN))
    place.edit(signature_key, lambda content: content.replace(theirs, ours))
    refuses(place, version, trust(), "its key did not make")


def test_the_signature_of_another_version(place):
    _, _, other = published(place, 1)
    version, _, signature_key = published(place, 2, trust=None)
    place.copy(other, signature_key)
    refuses(place, version, trust(), "of something else")


def test_another_tenants_model_copied_over(place):
    theirs, manifest_key, signature_key = published(place, tenant_id="a")
    ours, _, _ = published(place, tenant_id="b")
    target = ours.scope
    place.copy(manifest_key, target.version_key(theirs.version))
    place.copy(signature_key, target.signature_key(theirs.version))
    for attempt in (place.store(trust()).load, place.store(trust()).promote):
        with pytest.raises(ModelStoreError, match="tenant 'a'"):
            attempt(PREDICTOR, "b", theirs.version)
    # Made out to the other tenant, by whom the key was not lent to.
    manifest, graph = make_model(1, tenant_id="c")
    forged = place.store().publish(manifest, graph)
    place.copy(signature_key, forged.scope.signature_key(forged.version))
    refuses(place, forged, trust(), "of something else")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"payload": 1, "payloadType": 1, "signatures": 1}',
        b'{"payload": "", "payloadType": "", "signatures": []}',
        b'{"payload": "", "payloadType": "", "signatures": [{"keyid": [], "sig": ""}]}',
        b'{"payload": "", "payloadType": "", "signatures": [{"keyid": "\\n", "sig": 1}]}',
    ],
)
def test_what_is_no_envelope(place, content):
    version, _, signature_key = published(place)
    place.objects.put(signature_key, content)
    refuses(place, version, trust(), "signature of .* (can't be read|is not as it was written)")


def test_an_envelope_of_another_kind(place):
    from securesystemslib.dsse import Envelope

    version, _, signature_key = published(place)
    held = json.loads(place.objects.get(signature_key))
    for kind, payload in (("text/plain", None), (held["payloadType"], b"{}")):
        envelope = Envelope.from_dict(json.loads(json.dumps(held)))
        envelope.payload_type, envelope.payload, envelope.signatures = kind, payload or envelope.payload, {}
        envelope.sign(FIRST)
        place.objects.put(signature_key, json.dumps(envelope.to_dict(), indent=1).encode())
        refuses(place, version, trust(), "of something else")


EDITED = ModelStore(ObstoreObjects("memory:///"), trust=trust())
"""One store for all edits: it is mended after each."""


@settings(max_examples=200)
@given(data=st.data())
@pytest.mark.parametrize("which", ["manifest", "graph", "signature"])
def test_no_edited_byte_loads(which, data):
    version = EDITED.publish(*make_model(1))
    scope = version.scope
    keys = {
        "manifest": scope.version_key(version.version),
        "graph": f"blobs/sha256/{make_model(1)[0].graph.digest}",
        "signature": scope.signature_key(version.version),
    }
    objects = EDITED._objects
    good = objects.get(keys[which])
    at = data.draw(st.integers(0, len(good) - 1), "position")
    flip = data.draw(st.integers(1, 255), "flip")
    how = data.draw(st.sampled_from(["flipped", "inserted", "left out"]))
    changed = {
        "flipped": good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :],
        "inserted": good[:at] + bytes([flip]) + good[at:],
        "left out": good[:at] + good[at + 1 :],
    }[how]
    objects.put(keys[which], changed)
    try:
        with pytest.raises(ModelStoreError):
            EDITED.load_pointer(version.pointer)
    finally:
        objects.put(keys[which], good)
    assert EDITED.load_pointer(version.pointer)


def test_every_byte_of_the_envelope_counts():
    place = Place(ObstoreObjects("memory:///"))
    version, _, signature_key = published(place)
    good = place.objects.get(signature_key)
    store = place.store(trust())
    for at in range(len(good)):
        place.objects.put(signature_key, good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(UntrustedModel):
            store.load_pointer(version.pointer)


def test_a_second_signature_loads_under_either_key(place):
    version, _, signature_key = published(place)
    before = place.objects.get(signature_key)
    place.store(Trust(signer=SECOND)).sign(PREDICTOR, None, version.version)
    for keys in (trust(FIRST), trust(SECOND), trust(FIRST, SECOND)):
        assert place.store(keys).load_pointer(version.pointer)
    refuses(place, version, trust(FOREIGN), "not by a trusted key")
    after = place.objects.get(signature_key)
    assert len(json.loads(after)["signatures"]) == 2 > len(json.loads(before)["signatures"])
    # Again, and published again: nothing to add.
    place.store(Trust(signer=SECOND)).sign(PREDICTOR, None, version.version)
    assert published(place)[0] == version
    assert place.objects.get(signature_key) == after


def test_signing_replaces_what_is_no_signature_of_the_version(place):
    version, _, signature_key = published(place)
    good = place.objects.get(signature_key)
    place.objects.put(signature_key, good[:-9])
    assert published(place)[0] == version
    assert place.objects.get(signature_key) == good


def test_promotion_and_rollback_need_a_trusted_version(place):
    unsigned, _, _ = published(place, 1, trust=None)
    signed, _, _ = published(place, 2)
    store = place.store(trust())
    with pytest.raises(ModelNotFound, match="no version before"):  # nor does the move to it count
        store.rollback(PREDICTOR)
    with pytest.raises(UntrustedModel, match="is not signed"):
        store.promote(PREDICTOR, None, unsigned.version)
    assert store.resolve(PREDICTOR) == signed.pointer
    place.store(trust()).sign(PREDICTOR, None, unsigned.version)
    assert store.promote(PREDICTOR, None, unsigned.version).version == unsigned.version
    assert store.promote(PREDICTOR, None, signed.version).version == signed.version


@pytest.mark.parametrize("signer", [None, FOREIGN], ids=["no key", "a key that is not trusted"])
def test_what_could_not_be_loaded_again_is_not_published(place, signer):
    old, _, _ = published(place)
    before = {entry.key for entry in place.objects.list("")}
    with pytest.raises(UntrustedModel, match="nothing can be published"):
        published(place, 2, trust=trust(signer=signer))
    assert {entry.key for entry in place.objects.list("")} == before
    assert place.store(trust()).resolve(PREDICTOR) == old.pointer


def test_a_store_from_before_signatures_is_signed_after_checking_digests(place):
    versions = [
        published(place, number, trust=None, tenant_id=tenant)[0] for number, tenant in enumerate(["", "", "acme"])
    ]
    damaged, key, damaged_signature = published(place, 9, trust=None, tenant_id="umbrella")
    place.edit(key, lambda content: content + b"\0")
    found = list(sign_all(place.store(Trust(signer=FIRST))))
    assert [finding.subject for finding in found if finding.problem] == [
        f"models/build-duration/tenants/umbrella {damaged.version}"
    ]
    assert place.objects.get(damaged_signature) is None
    store = place.store(trust())
    for version in versions:
        assert store.load_pointer(version.pointer)
    # The moves to them were not signed either, and count when somebody vouches for them.
    assert store.resolve(PREDICTOR) is None
    found = list(sign_channels(store))
    assert [finding.subject for finding in found if finding.problem] == [
        damaged.scope.pointer_key("champion", damaged.pointer.generation)
    ]
    assert store.resolve(PREDICTOR).digest == versions[1].pointer.digest
    assert store.rollback(PREDICTOR).version == versions[0].version


def test_signing_needs_a_key_and_a_version(place):
    version, _, _ = published(place, trust=None)
    for without in (None, Trust(), trust(signer=None)):
        with pytest.raises(InvalidKey, match="CONDUCTOR_MODEL_SIGNING_KEY"):
            place.store(without).sign(PREDICTOR, None, version.version)
    with pytest.raises(ModelNotFound):
        place.store(trust()).sign(PREDICTOR, None, "0" * 16)


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_keys_by_configuration(root, tmp_path, monkeypatch, algorithm):
    pair = generate_key_pair(tmp_path / "keys", algorithm=algorithm)
    other = generate_key_pair(tmp_path / "others")
    assert stat.S_IMODE(pair.private_key.stat().st_mode) == 0o600
    monkeypatch.setenv("CONDUCTOR_MODEL_STORE", str(root))
    monkeypatch.setenv("CONDUCTOR_MODEL_SIGNING_KEY", str(pair.private_key))
    version = ModelStoreSettings().open().publish(*make_model(1))
    for places in (f"{pair.public_key}", f"{tmp_path / 'others'}:{tmp_path / 'keys'}"):
        monkeypatch.setenv("CONDUCTOR_MODEL_TRUSTED_KEYS", places)
        assert ModelStoreSettings().open().load_pointer(version.pointer)
    monkeypatch.setenv("CONDUCTOR_MODEL_TRUSTED_KEYS", str(other.public_key))
    with pytest.raises(UntrustedModel):
        ModelStoreSettings().open().load_pointer(version.pointer)


def test_the_settings_file_takes_a_list(tmp_path, monkeypatch):
    pair = generate_key_pair(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conductor.toml").write_text(f'model_trusted_keys = ["{pair.public_key}"]\n')
    assert set(ModelStoreSettings().trust().keys) == {pair.key_id}


def test_nothing_is_overwritten(tmp_path):
    pair = generate_key_pair(tmp_path)
    files = (pair.private_key, pair.public_key)
    before = {file: file.read_bytes() for file in files}
    for gone in (None, *files):  # both are there; one is
        if gone:
            gone.unlink()
        left = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        with pytest.raises(InvalidKey, match="exists"):
            generate_key_pair(tmp_path)
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == left
        for file, content in before.items():
            file.write_bytes(content)


def _pem(private):
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_pem(private):
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_what_is_no_key_is_told(tmp_path):
    pair = generate_key_pair(tmp_path / "good")
    weak, other_curve = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())
    files = {"text": b"?", "weak": _pem(weak), "curve": _pem(other_curve), "public": pair.public_key.read_bytes()}
    files |= {"weak.pem": _public_pem(weak), "curve.pem": _public_pem(other_curve)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in ("text", "weak", "curve", "public", "absent"):
        with pytest.raises(InvalidKey, match=name):
            read_signer(tmp_path / name)
    (tmp_path / "empty").mkdir()
    for name in ("text", "weak.pem", "curve.pem", "good/model-signing.key", "absent", "empty"):
        with pytest.raises(InvalidKey, match=name):
            read_trusted_keys([tmp_path / name])
