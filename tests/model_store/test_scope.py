"""Names and keys hold for any tenant."""

from hypothesis import given
from hypothesis import strategies as st

from conductor_model_store.scope import ModelScope, parse_key, quote_tenant

tenants = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="./\\%~#?*: \0\nAaÄä", max_size=12),
    st.sampled_from(["..", ".", "global", "tenants", "%2E", "~" * 65, "a" * 200, "a" * 201, "\ufeff", "CON"]),
)


@given(tenants, tenants)
def test_different_tenants_never_share_a_key_on_any_file_system(one, other):
    same = ModelScope("build-duration", one).directory.lower() == ModelScope("build-duration", other).directory.lower()
    assert same == (one == other)


@given(tenants)
def test_a_quoted_tenant_is_one_harmless_path_segment(tenant):
    quoted = quote_tenant(tenant)
    assert len(quoted) <= 200
    assert set(quoted) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_%~ABCDEF")
    assert quoted not in {".", ".."}


@given(tenants, st.integers(1, 10**20 - 1))
def test_keys_are_read_back(tenant, generation):
    scope = ModelScope("build-duration", tenant)
    pointer = parse_key(scope.pointer_key("champion", generation))
    version = parse_key(scope.version_key("0123456789abcdef"))
    assert pointer and version
    assert pointer.directory == version.directory == scope.directory
    assert (pointer.channel, pointer.generation, version.version) == ("champion", generation, "0123456789abcdef")
    assert pointer.tenant_id in (tenant, None)
    assert pointer.tenant_id is not None or len(tenant.encode()) > 66


@given(st.text(max_size=100))
def test_any_other_key_is_no_key_of_ours(text):
    parsed = parse_key("models/" + text)
    assert parsed is None or parsed.version or parsed.channel


@given(st.lists(st.integers(1, 10**20 - 1), min_size=2))
def test_the_order_of_keys_is_the_order_of_generations(generations):
    scope = ModelScope("build-duration")
    keys = [scope.pointer_key("champion", generation) for generation in sorted(generations)]
    assert keys == sorted(keys)
