"""Runs a Pulumi program without an engine, and records what it would have registered."""

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from pulumi.runtime import mocks, rpc, set_all_config, settings
from pulumi.runtime.stack import run_in_stack

# By token of a function: its arguments go in, its answer comes out; a failure is raised.
Answers = Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]

PROVIDER = "pulumi:providers:"


@dataclass(frozen=True)
class Secret:
    """An input that the program marked as secret."""

    value: Any


@dataclass(frozen=True)
class Registered:
    """A resource as the program handed it to the engine."""

    type: str
    name: str
    urn: str
    parent: str
    """URN of the parent."""
    inputs: dict[str, Any]
    depends_on: frozenset[str]
    """URNs; a component stands for all that is in it."""
    protect: bool | None
    """None where it is left to the parent."""
    retain_on_delete: bool | None
    provider: str
    """Name of the explicit provider, empty where there is none."""
    aliases: frozenset[str]
    """URNs."""


@dataclass(frozen=True)
class Call:
    """A function of a provider that the program called."""

    token: str
    args: dict[str, Any]
    provider: str
    """Name of the explicit provider, empty where there is none."""


@dataclass
class Recording:
    """What a run of the program registered, in order, and how it ended."""

    resources: list[Registered] = field(default_factory=list)
    exports: dict[str, Any] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    """Functions that the program called and the test gave no answer for."""
    error: Exception | None = None

    def one(self, type_: str, name: str | None = None) -> Registered:
        """The only resource of this type, and name where one is given."""
        found = [r for r in self.resources if r.type == type_ and name in (None, r.name)]
        assert len(found) == 1, f"{len(found)} resources of {type_} {name or ''} in {self.types()}"
        return found[0]

    def children(self, of: Registered) -> list[Registered]:
        return [resource for resource in self.resources if resource.parent == of.urn]

    def types(self) -> list[str]:
        return [resource.type for resource in self.resources]

    def besides_providers(self) -> list[str]:
        return [type_ for type_ in self.types() if not type_.startswith(PROVIDER)]


def run(
    program: Callable[[], object],
    *,
    stack: str = "test",
    config: Mapping[str, str] | None = None,
    secret_keys: frozenset[str] = frozenset(),
    answers: Answers | None = None,
) -> Recording:
    """Run `program` as the only one in its stack, to the end of all that it began.

    Args:
        program: called inside the stack; an error of it ends up in the recording.
        stack: its name.
        config: full key to text, as the engine hands it over.
        secret_keys: the full keys of it that are encrypted.
        answers: by token, the functions the program may call; any other ends the run.
    """
    recording = Recording()

    def start() -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)  # before set_mocks, which makes futures
        # No stack was ever deployed.
        nothing: Answers = {"pulumi:pulumi:readStackResourceOutputs": lambda _: {"outputs": {}}}
        monitor = _Monitor(recording, {**nothing, **(answers or {})})
        mocks.set_mocks(monitor.mocks, project="mern", stack=stack, preview=False, monitor=monitor)
        settings.SETTINGS.outputs.clear()  # those of a run that failed, whose loop is closed
        settings.set_root_resource(None)  # run_in_stack makes one, as in a real run
        set_all_config(dict(config or {}), list(secret_keys))
        try:
            loop.run_until_complete(run_in_stack(lambda: _discard(program())))
        except Exception as error:
            recording.error = error
        finally:
            loop.close()
            asyncio.set_event_loop(None)

    # The SDK keeps its state in context variables: a context of its own leaves none behind.
    contextvars.copy_context().run(start)
    assert not recording.unexpected, f"the program calls {recording.unexpected}"
    return recording


def _discard(_: object) -> None:
    return None


class _Mocks(mocks.Mocks):
    def __init__(self, recording: Recording, answers: Answers) -> None:
        self.recording, self.answers = recording, answers

    def call(self, args: mocks.MockCallArgs) -> Any:
        self.recording.calls.append(Call(args.token, args.args, _name_in(args.provider)))
        if args.token not in self.answers:
            self.recording.unexpected.append(args.token)
            raise AssertionError(f"the program calls {args.token}")
        return self.answers[args.token](args.args)

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        outputs = dict(args.inputs)
        if args.typ == "kubernetes:helm.sh/v3:Release":
            outputs["status"] = {"revision": 1, "status": "deployed"}
        elif args.typ.startswith("aws:"):
            outputs["arn"] = f"arn:{args.typ}:{args.name}"
        return f"{args.name}-id", outputs


class _Monitor(mocks.MockMonitor):
    def __init__(self, recording: Recording, answers: Answers) -> None:
        super().__init__(_Mocks(recording, answers))
        self.recording = recording

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802  the name of the engine's call
        answer = super().RegisterResource(request)
        if request.type != "pulumi:pulumi:Stack":
            registered = Registered(
                type=request.type,
                name=request.name,
                urn=answer.urn,
                parent=request.parent,
                inputs=_plain(request.object),
                depends_on=frozenset(request.dependencies),
                protect=request.protect if request.HasField("protect") else None,
                retain_on_delete=(request.retainOnDelete if request.HasField("retainOnDelete") else None),
                provider=_name_in(request.provider),
                aliases=frozenset([*request.aliasURNs, *(it.urn for it in request.aliases if it.urn)]),
            )
            self.recording.resources.append(registered)
        return answer

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802
        if "::pulumi:pulumi:Stack::" in request.urn:
            self.recording.exports = _plain(request.outputs)
        return super().RegisterResourceOutputs(request)


def _name_in(reference: str) -> str:
    """The name of the provider in a reference, which is URN::ID."""
    return reference.split("::")[-2] if reference else ""


def _plain(struct: Any) -> Any:
    # Not the SDK's own deserialization, which moves the mark of a secret up to the outermost key.
    return _opened(MessageToDict(struct))


def _opened(value: Any) -> Any:
    """`value` with `Secret` in place of the SDK's marks."""
    if rpc.is_rpc_secret(value):
        return Secret(_opened(rpc.unwrap_rpc_secret(value)))
    if isinstance(value, dict):
        return {key: _opened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_opened(item) for item in value]
    return value


class _Failed(grpc.RpcError):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNKNOWN

    def details(self) -> str:
        return self.text


def fails(text: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The answer of a function that failed: the error that the engine sends on."""

    def answer(_: dict[str, Any]) -> dict[str, Any]:
        raise _Failed(text)

    return answer
