"""A gRPC server that makes a Python object a plugin of Pulumi's engine."""

import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import empty_pb2, struct_pb2
from google.protobuf.json_format import MessageToDict, ParseDict
from pulumi.runtime.proto import plugin_pb2
from pulumi.runtime.proto import provider_pb2 as messages

Properties = dict[str, Any]
"""Inputs or a state, by Pulumi's names; what is null is left out."""

REQUESTS: dict[str, Any] = {
    "Configure": messages.ConfigureRequest,
    "Check": messages.CheckRequest,
    "Diff": messages.DiffRequest,
    "Create": messages.CreateRequest,
    "Read": messages.ReadRequest,
    "Update": messages.UpdateRequest,
    "Delete": messages.DeleteRequest,
}
"""The calls that a provider answers, each by its method of that name in lower case. Without the others the
engine can do."""


def to_dict(struct: struct_pb2.Struct) -> Properties:
    """A message of the engine as a dict."""
    return {key: value for key, value in MessageToDict(struct).items() if value is not None}


def to_struct(properties: Properties) -> struct_pb2.Struct:
    """A dict as a message to the engine."""
    return ParseDict(properties, struct_pb2.Struct())


def run(provider: object, version: str) -> None:
    """Serve on a free port of loopback, which is printed, until standard input is closed.

    The engine holds it open for as long as it lives. SIGTERM and SIGINT end the process too.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is under way that has to be cleaned up
    methods = {name: (getattr(provider, name.lower()), request) for name, request in REQUESTS.items()}
    methods["GetPluginInfo"] = (lambda _: plugin_pb2.PluginInfo(version=version), empty_pb2.Empty)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _answering(method),
            request_deserializer=request.FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
        for name, (method, request) in methods.items()
    }
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    service = grpc.method_handlers_generic_handler("pulumirpc.ResourceProvider", handlers)
    server.add_generic_rpc_handlers([service])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(grace=None)


def _answering(method: Callable[[Any], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
    """A method whose errors, whatever they are, the engine shows to its user."""

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(request)
        except Exception as error:
            return context.abort(grpc.StatusCode.UNKNOWN, f"{method.__name__}: {error}")

    return answer
