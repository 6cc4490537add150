"""Models: swapped without a failed request, and never a bad one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import shutil
import time

import grpc
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from conductor.model.v1.model_manifest_pb2 import ModelManifest
from conductor_model_store import ModelScope, ModelStore
from conductor_rpc import names
from conductor_rpc.telemetry import Telemetry
from conductor_server.models.sessions import ModelRefused
from conductor_server.models.verifier import Verifier
from server.harness import (
    COLUMNS,
    PREDICTOR,
    expected_median,
    graph,
    manifest,
    model_of,
    publish,
    request,
    seconds,
    serving,
    with_golden,
    write_features,
)


async def test_hot_swap_without_a_failed_request(redis_url, store):
    biases = {publish(store, 10).version: 10.0}
    write_features(redis_url)
    async with serving(redis_url, store) as server:
        stop = asyncio.Event()
        answers = []

        async def ask():
            while not stop.is_set():
                answers.append(await server.predict(request()))

        asking = [asyncio.ensure_future(ask()) for _ in range(4)]
        for bias in (20.0, 30.0, 40.0):
            version = publish(store, bias).version
            biases[version] = bias
            await server.eventually(lambda answer, v=version: answer.provenance.model_version == v)
        ModelStore.open(store).rollback(PREDICTOR)
        await server.eventually(lambda answer: seconds(answer.duration) == pytest.approx(expected_median(30)))
        stop.set()
        await asyncio.gather(*asking)
    seen = set()
    for answer in answers:  # each answer is of the version that it says it is of
        version = answer.provenance.model_version
        seen.add(version)
        assert seconds(answer.duration) == pytest.approx(expected_median(biases[version]), rel=1e-6)
    assert seen == set(biases)


async def test_a_model_published_while_serving_is_noticed(redis_url, store):
    async with serving(redis_url, store) as server:
        with pytest.raises(grpc.aio.AioRpcError):
            await server.predict(request())
        publish(store, 10)
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = await server.predict(request())
                break
            except grpc.aio.AioRpcError:
                assert time.monotonic() < deadline
    assert answer.provenance.model_version


def _publish_raw(store, content, change=None, columns=COLUMNS):
    """Publish what an honest trainer would not."""
    result = manifest(content, columns=columns)
    result.golden_requests.add(inputs=[60.0] * len(columns), outputs=[1, 2, 3])
    if change is not None:
        change(result)
    return ModelStore.open(store).publish(result, content)


def _external(store):
    model = onnx.load_model_from_string(graph(5))
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    _publish_raw(store, model.SerializeToString())


def _with_node(node, constants=None):
    def damage(store):
        model = onnx.load_model_from_string(graph(5))
        model.graph.node.insert(0, node)
        for name, array in (constants or {}).items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        if node.domain:
            model.opset_import.append(helper.make_opsetid(node.domain, 1))
        _publish_raw(store, model.SerializeToString())

    return damage


def _loop(store):
    body = helper.make_graph(
        [helper.make_node("Identity", ["condition"], ["again"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    constants = {"trips": np.array(2**62, np.int64), "go": np.array(True)}
    _with_node(helper.make_node("Loop", ["trips", "go", "inputs"], ["looped"], body=body), constants)(store)


def _huge(store):
    """A few bytes that ask for 64 GB as soon as they run."""
    shape = np.array([2**34], np.int64)
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["vast"]),
        helper.make_node("ReduceSum", ["vast"], ["nothing"], keepdims=0),
        helper.make_node("ReduceMean", ["inputs"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Add", ["mean", "nothing"], ["median"]),
        helper.make_node("Identity", ["median"], ["lower"]),
        helper.make_node("Identity", ["median"], ["upper"]),
    ]
    _publish_raw(store, model_of(nodes, {"shape": shape}))


def _slow(store, products=400):
    """No loop, yet hours of work: products of large matrices."""
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["m0"])]
    nodes += [helper.make_node("MatMul", [f"m{i}", f"m{i}"], [f"m{i + 1}"]) for i in range(products)]
    nodes += [
        helper.make_node("ReduceSum", [f"m{products}"], ["nothing"], keepdims=0),
        helper.make_node("ReduceMean", ["inputs"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Add", ["mean", "nothing"], ["median"]),
        helper.make_node("Identity", ["median"], ["lower"]),
        helper.make_node("Identity", ["median"], ["upper"]),
    ]
    _publish_raw(store, model_of(nodes, {"shape": np.array([2000, 2000], np.int64)}))


def _no_golden(store):
    _publish_raw(store, graph(5), lambda m: m.ClearField("golden_requests"))


def _wrong_golden(store):
    _publish_raw(store, graph(5))


def _no_answer(store):
    publish(store, 5, change=lambda m: m.ClearField("outputs"))


def _two_answers(store):
    publish(store, 5, change=lambda m: setattr(m.probability, "probability", "median"))


def _another_answer(store):
    """A probability, which is sound in itself but no duration."""
    content = graph(0.5, weights=np.zeros(len(COLUMNS)))
    result = with_golden(manifest(content), content)
    result.ClearField("outputs")
    result.probability.probability = "median"
    for golden in result.golden_requests:
        golden.outputs[:] = golden.outputs[1:2]
    ModelStore.open(store).publish(result, content)


def _nan_answers(store):
    content = graph(float("nan"))
    result = with_golden(manifest(content), content)
    ModelStore.open(store).publish(result, content)


def _unknown_feature(store):
    publish(store, 5, change=lambda m: setattr(m.inputs[0].feature, "field", "no_such_field"))


def _unknown_view(store):
    publish(store, 5, change=lambda m: setattr(m.inputs[0].feature, "view", "no_such_view_v1"))


def _unknown_request_column(store):
    publish(store, 5, change=lambda m: setattr(m.inputs[1], "request_column", "no_such_column"))


def _fewer_columns(store):
    publish(store, 5, change=lambda m: m.inputs.pop())


def _flipped_graph(store):
    _damage_file(publish(store, 5), store, "blob", lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:])


def _half_graph(store):
    _damage_file(publish(store, 5), store, "blob", lambda b: b[: len(b) // 2])


def _no_graph(store):
    _damage_file(publish(store, 5), store, "blob", None)


def _flipped_manifest(store):
    _damage_file(publish(store, 5), store, "manifest", lambda b: bytes([b[0] ^ 1]) + b[1:])


def _half_manifest(store):
    _damage_file(publish(store, 5), store, "manifest", lambda b: b[: len(b) // 2])


def _no_manifest(store):
    _damage_file(publish(store, 5), store, "manifest", None)


def _damage_file(version, store, which, change):
    """Before the watcher can look: the whole store is built aside and moved in by the test."""
    path = store / ModelScope(PREDICTOR).version_key(version.version)
    if which == "blob":
        found = ModelManifest.FromString(path.read_bytes())
        path = store / "blobs" / "sha256" / found.graph.digest
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))


BAD = [
    _external,
    _loop,
    _huge,
    _slow,
    _no_golden,
    _wrong_golden,
    _no_answer,
    _two_answers,
    _another_answer,
    _nan_answers,
    _unknown_feature,
    _unknown_view,
    _unknown_request_column,
    _fewer_columns,
    _flipped_graph,
    _half_graph,
    _no_graph,
    _flipped_manifest,
    _half_manifest,
    _no_manifest,
    pytest.param(_with_node(helper.make_node("Evil", ["inputs"], ["evil"], domain="com.evil")), id="custom_operator"),
    pytest.param(_with_node(helper.make_node("NoSuchOperator", ["inputs"], ["odd"])), id="unknown_operator"),
    pytest.param(lambda store: _publish_raw(store, b"no graph at all"), id="garbage"),
    pytest.param(lambda store: _publish_raw(store, b"\0\0\0\0ORTM" + b"\0" * 100), id="other_format"),
    pytest.param(lambda store: _publish_raw(store, graph(5, 3, np.ones(3))), id="other_width"),
]


@pytest.mark.parametrize("damage", BAD)
async def test_a_bad_model_never_replaces_a_good_one(redis_url, store, tmp_path, caplog, damage):
    good = publish(store, 10)
    write_features(redis_url)
    reader = InMemoryMetricReader()
    telemetry = Telemetry(None, MeterProvider([reader]))
    limits = {"model_verification_seconds": 1.5, "model_memory_bytes": 1 << 28}
    with caplog.at_level(logging.ERROR):
        async with serving(redis_url, store, telemetry, **limits) as server:
            assert (await server.predict(request())).provenance.model_version == good.version
            aside = tmp_path / "aside"
            shutil.copytree(store, aside)
            damage(aside)
            _move_in(aside, store)
            deadline = time.monotonic() + 60
            while "refused models/build-duration/global" not in caplog.text:
                answer = await server.predict(request())
                assert answer.provenance.model_version == good.version
                assert time.monotonic() < deadline, caplog.text
                await asyncio.sleep(0.01)
            answer = await server.predict(request())
            assert answer.provenance.model_version == good.version
            assert seconds(answer.duration) == pytest.approx(expected_median(10))
    found = {m.name for r in reader.get_metrics_data().resource_metrics for s in r.scope_metrics for m in s.metrics}
    assert names.MODEL_REFUSALS in found


async def test_after_a_restart_with_a_bad_champion_the_one_before_serves(redis_url, store):
    good = publish(store, 10)
    _half_graph(store)
    async with serving(redis_url, store) as server:
        assert (await server.predict(request())).provenance.model_version == good.version
        better = publish(store, 30)
        await server.eventually(lambda answer: answer.provenance.model_version == better.version)


async def test_a_mended_model_serves(redis_url, store):
    publish(store, 10)
    async with serving(redis_url, store) as server:
        second = publish(store, 20)
        await server.eventually(lambda answer: answer.provenance.model_version == second.version)
        version = publish(store, 30)
        path = store / ModelScope(PREDICTOR).version_key(version.version)
        content = path.read_bytes()
        path.write_bytes(content[:50])
        await asyncio.sleep(0.2)
        path.write_bytes(content)
        await server.eventually(lambda answer: answer.provenance.model_version == version.version)


async def test_mutated_graphs_never_take_the_server_down(redis_url, store):
    """A short form of the mutation test: each is published properly, so that only the verifier stands in its way."""
    good = publish(store, 10)
    content = graph(5)
    random = np.random.default_rng(11)
    write_features(redis_url)
    async with serving(redis_url, store) as server:
        for _ in range(15):
            mutated = bytearray(content)
            for at in random.integers(0, len(mutated), 3):
                mutated[at] = random.integers(0, 256)
            last = _publish_raw(store, bytes(mutated))
            answer = await server.predict(request())
            assert answer.provenance.model_version == good.version
        final = publish(store, 20)
        await server.eventually(lambda answer: answer.provenance.model_version == final.version)
        assert last.version != final.version


@pytest.mark.parametrize("whole", [True, False])
async def test_a_verification_that_is_broken_off_leaves_no_process(store, whole):
    """``whole``: with its forks. Else only the process that forks is killed, as by the system: the fork ends too."""
    _slow(store, 400 if whole else 8)
    models = ModelStore.open(store)
    model = models.load_pointer(models.resolve(PREDICTOR))
    verifier = Verifier(5.0, 1 << 30)
    asking = asyncio.ensure_future(verifier.verify(model))
    forks = []
    async with asyncio.timeout(60):
        while not forks:
            children = [child for child in psutil.Process().children() if "verifier_child" in " ".join(child.cmdline())]
            forks = [fork for child in children for fork in child.children()]
            await asyncio.sleep(0.01)
        if not whole:
            forks[0].parent().kill()
            with pytest.raises(ModelRefused, match="verifying process failed"):
                await asking
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await verifier.close()
        while any(_runs(process) for process in [*children, *forks]):  # noqa: ASYNC110 - theirs to end
            await asyncio.sleep(0.05)


def _runs(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def test_digests_are_of_the_bytes():
    content = graph(1)
    assert manifest(content).graph.digest == hashlib.sha256(content).hexdigest()


def _move_in(aside, store):
    """Files first, then pointers and the change mark, as a publisher does."""
    files = [path for path in aside.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: ("channels" in path.parts, path.name == "changed")):
        target = store / path.relative_to(aside)
        if not target.exists() or path.name == "changed":
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
