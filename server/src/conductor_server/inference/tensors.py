"""Between the protocol's tensors and numpy's, as a whole: nothing here is done row by row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from conductor.inference.v2.inference_service_pb2 import InferTensorContents, ModelInferRequest, ModelInferResponse
from conductor_rpc.exceptions import BatchTooLarge, InvalidRequest, Violation
from conductor_server.inference.ports import TensorModel

DATATYPE = "FP32"
MAX_ROWS = 8192
"""A bound on the work of one call; 30 columns of that are a megabyte."""
_LITTLE_ENDIAN = np.dtype("<f4")


def decode(request: ModelInferRequest, model: TensorModel) -> NDArray[np.float32]:
    """The request's rows, ``[n, columns]``. The request keeps the rules of ``conductor_rpc.rules.inference``.

    Raises:
        InvalidRequest: the tensor is not the model's: its name, type, shape, size or a value.
        BatchTooLarge: there are too many rows.
    """
    columns = len(model.plan.names)
    if len(request.inputs) != 1:
        raise _invalid("inputs", f"must hold one tensor, {model.input_name!r}")
    tensor = request.inputs[0]
    if tensor.name != model.input_name:
        raise _invalid("inputs[0].name", f"must be {model.input_name!r}")
    if tensor.datatype != DATATYPE:
        raise _invalid("inputs[0].datatype", f"must be {DATATYPE!r}")
    if len(tensor.shape) != 2 or tensor.shape[0] < 1 or tensor.shape[1] != columns:
        raise _invalid("inputs[0].shape", f"must be [rows, {columns}]")
    rows = tensor.shape[0]
    if rows > MAX_ROWS:
        raise BatchTooLarge("inputs[0]", rows, MAX_ROWS)
    values = _raw(request, rows * columns) if request.raw_input_contents else _typed(tensor.contents, rows * columns)
    inputs = values.reshape(rows, columns)
    infinite = np.isinf(inputs)
    if infinite.any():
        row, column = np.unravel_index(np.argmax(infinite), infinite.shape)
        raise _invalid("inputs[0]", f"must not be infinite: row {row}, column {model.plan.names[column]!r}")
    missing = np.isnan(inputs[:, model.plan.required])
    if missing.any():
        row, at = np.unravel_index(np.argmax(missing), missing.shape)
        column = model.plan.required[at]
        raise _invalid(
            "inputs[0]", f"must not be NaN, as the model needs it: row {row}, column {model.plan.names[column]!r}"
        )
    return inputs


def requested_outputs(request: ModelInferRequest, model: TensorModel) -> list[int]:
    """Positions of the outputs that are wanted, in the order asked; all where none is named.

    Raises:
        InvalidRequest: the model has no such output.
    """
    positions = {name: at for at, name in enumerate(model.output_names)}
    if not request.outputs:
        return list(positions.values())
    for at, output in enumerate(request.outputs):
        if output.name not in positions:
            raise _invalid(f"outputs[{at}].name", f"must be one of {', '.join(positions)}")
    return [positions[output.name] for output in request.outputs]


def encode(
    response: ModelInferResponse,
    names: Sequence[str],
    outputs: NDArray[np.float64],
    positions: Sequence[int],
    *,
    raw: bool,
) -> None:
    """Add outputs ``[n, outputs]`` to a response, raw or typed. They were float32 before: nothing is rounded."""
    for at in positions:
        values = outputs[:, at].astype(_LITTLE_ENDIAN)
        tensor = response.outputs.add(name=names[at], datatype=DATATYPE, shape=[len(values)])
        if raw:
            response.raw_output_contents.append(values.tobytes())
        else:
            tensor.contents.fp32_contents.extend(values.tolist())


def _raw(request: ModelInferRequest, count: int) -> NDArray[np.float32]:
    content = request.raw_input_contents[0]
    size = count * _LITTLE_ENDIAN.itemsize
    if len(content) != size:
        raise _invalid("raw_input_contents[0]", f"must be {size} bytes, as the shape says; it is {len(content)}")
    return np.frombuffer(content, _LITTLE_ENDIAN).astype(np.float32, copy=False)


def _typed(contents: InferTensorContents, count: int) -> NDArray[np.float32]:
    for field, _ in contents.ListFields():
        if field.name != "fp32_contents":
            raise _invalid(f"inputs[0].contents.{field.name}", f"must be empty: {DATATYPE} is in fp32_contents")
    values = contents.fp32_contents
    if len(values) != count:
        raise _invalid(
            "inputs[0].contents.fp32_contents",
            f"must hold {count} elements, as the shape says; it holds {len(values)}",
        )
    # The list is asked for element by element; its message, holding nothing else, ends with its elements in a row.
    contents.DiscardUnknownFields()
    return np.frombuffer(contents.SerializeToString()[-count * _LITTLE_ENDIAN.itemsize :], _LITTLE_ENDIAN).astype(
        np.float32, copy=False
    )


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([Violation(field, description)])
