"""A stock tritonclient, run as a process of its own: its descriptors and ours can't share one. Imports nothing of ours.

Arguments: address, file of the authority, token. Each line on standard input is a request: a list of a method of the
client and its arguments; each line on standard output is its answer, or its error.
"""

from __future__ import annotations

import base64
import json
import sys

import grpc
import numpy as np
import tritonclient.grpc as triton
from google.protobuf.json_format import MessageToDict, ParseDict
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc


def main(address: str, authority: str, token: str) -> None:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    client = triton.InferenceServerClient(address, ssl=bool(authority), root_certificates=authority or None)
    credentials = grpc.ssl_channel_credentials(_read(authority)) if authority else None
    channel = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def infer(model, name, rows, outputs=(), **options):
        """As the client's users do: numpy in, numpy out."""
        values = np.array(rows, np.float32)
        tensor = triton.InferInput(name, list(values.shape), "FP32")
        tensor.set_data_from_numpy(values)
        wanted = [triton.InferRequestedOutput(output) for output in outputs] or None
        result = client.infer(model, [tensor], outputs=wanted, headers=headers, **options)
        response = result.get_response()
        return {
            "outputs": {output.name: result.as_numpy(output.name).tolist() for output in response.outputs},
            "shapes": {output.name: list(output.shape) for output in response.outputs},
            "id": response.id,
            "version": response.model_version,
            "parameters": {name: value.string_param for name, value in response.parameters.items()},
        }

    def send(content):
        """Any message at all, by the client's stubs."""
        request = ParseDict(content, service_pb2.ModelInferRequest())
        return MessageToDict(stub.ModelInfer(request, metadata=list(headers.items())), preserving_proto_field_name=True)

    def descriptors():
        files = (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
        return [base64.b64encode(file.serialized_pb).decode() for file in files]

    ours = {"infer": infer, "send": send, "descriptors": descriptors}
    for line in sys.stdin:
        method, arguments, options = json.loads(line)
        if options.pop("with_token", False):
            options["headers"] = headers
        try:
            answer = (ours.get(method) or getattr(client, method))(*arguments, **options)
        except triton.InferenceServerException as error:
            answer = {"error": error.status(), "message": error.message()}
        except grpc.RpcError as error:
            answer = {"error": str(error.code()), "message": error.details()}
        print(json.dumps(answer), flush=True)
    assert not any(name.split(".")[0].startswith("conductor") for name in sys.modules)


def _read(file: str) -> bytes:
    with open(file, "rb") as content:  # noqa: PTH123
        return content.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
