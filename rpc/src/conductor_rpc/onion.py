"""What every call passes through on its way in and out. The order is read in ``Onion._layers``."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2  # type: ignore[import-untyped, unused-ignore]

from conductor_rpc import errors, names, rules
from conductor_rpc.admission import Admission
from conductor_rpc.audit import Audit
from conductor_rpc.authentication import Authenticator
from conductor_rpc.call import HANDED_TIME, NO_DEADLINE, Call, Deadline, Stage, set_current_call
from conductor_rpc.departures import send
from conductor_rpc.exceptions import ConductorError, DeadlineTooShort, InvalidRequest, Violation
from conductor_rpc.gate import Gate
from conductor_rpc.handed_calls import HandedCalls
from conductor_rpc.items import Handler, ItemStreams
from conductor_rpc.roles import AUDITED, access, require_role
from conductor_rpc.settings import RpcSettings
from conductor_rpc.telemetry import Telemetry
from conductor_rpc.tenancy import require_tenant
from conductor_rpc.work import Work

_Context = grpc.aio.ServicerContext[Any, Any]
_Limit = AbstractAsyncContextManager[object]
_NO_LIMIT: _Limit = nullcontext()
_Answer = TypeVar("_Answer")


class Onion(grpc.aio.ServerInterceptor):
    """Wraps every method but those that ``roles.py`` opens to probes, which have no credentials."""

    def __init__(
        self,
        settings: RpcSettings,
        authenticator: Authenticator | None,
        telemetry: Telemetry,
        audit: Audit,
        work: Mapping[str, Work],
    ) -> None:
        """What all calls have in common.

        Args:
            settings: Bounds and defaults.
            authenticator: Who callers are; None believes them.
            telemetry: Where calls are told.
            audit: Where administrative calls are told.
            work: What calls of a method are, by its full name with a slash at its beginning.
        """
        self._settings, self._authenticator, self._telemetry, self._audit = settings, authenticator, telemetry, audit
        self._asks_for_certificates = settings.tls_client_ca_file is not None
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self.handed_count = 0
        """Calls that gRPC has handed to us, of whatever method."""
        self.handed_calls = HandedCalls()
        self.gate = Gate(settings, telemetry, work)
        self.item_streams = ItemStreams(self.item, settings, self.gate.stream_item_count)

    async def around(
        self,
        call: Call,
        context: _Context,
        request: object | None,
        admission: Admission,
        answer: Callable[[], Awaitable[_Answer]],
    ) -> _Answer | None:
        """All layers around a call: what goes wrong ends it, without an answer.

        ``request`` is None where requests are a stream: each is checked as it comes.
        """
        set_current_call(call)
        with self._telemetry.call(call):  # sees the code that the call ends with
            try:
                limit = self._time_limit(call, streaming=request is None)
                response = await self._layers(call, request, limit, admission, answer)
                await self._audit.ended(call, request)
                return response
            except asyncio.CancelledError as cancelled:  # nobody is left to answer
                call.code = "CANCELLED"
                cancelled.__traceback__ = None  # a stream's task group stands in it
                await self._audit.ended(call, request)
                raise
            except grpc.aio.AbortError:
                call.code = "ABORTED"
                await self._audit.ended(call, request)
                raise
            except Exception as exception:
                status = _failed(call, exception)
                await self._audit.ended(call, request, status)
                await errors.end(context, status, getattr(exception, "retry_seconds", None))
                return None

    async def identify(self, call: Call) -> None:
        """Tell whose call it is, and that he may make it: as it begins, and again whenever a stream goes on.

        Raises:
            CredentialsInvalid: there are no credentials, or they do not hold (any more).
            RoleRequired: they do not allow this method.
        """
        if self._authenticator is not None:
            call.identity = await self._authenticator.authenticate(call)
            require_role(call.identity, call.method)

    async def item(self, call: Call, request: Message, handler: Handler) -> Message | status_pb2.Status:
        """All layers around one item of a stream, in a task of its own: what goes wrong is its answer, a Status."""
        set_current_call(call)
        HANDED_TIME.set(0.0)  # that was the stream
        with self._telemetry.call(call):
            try:
                limit = asyncio.timeout(call.deadline.remaining_seconds())
                return await self._layers(call, request, limit, self.gate.calls, lambda: handler(request))
            except asyncio.CancelledError:
                call.code = "CANCELLED"
                raise
            except Exception as exception:
                return _failed(call, exception)

    async def _layers(
        self,
        call: Call,
        request: object | None,
        limit: _Limit,
        admission: Admission,
        answer: Callable[[], Awaitable[_Answer]],
    ) -> _Answer:
        """The layers, outermost first."""
        try:
            async with limit:
                call.deadline.require(self._settings.minimum_deadline_seconds)
                if self._authenticator is not None and call.identity is None:  # an item has its stream's
                    with self._telemetry.stage(names.AUTH):
                        await self.identify(call)
                tenant_id = call.identity.tenant_id if call.identity else ""
                if request is not None:
                    tenant_id = call.tenant_id = require_tenant(call.identity, _decoded(request))
                with self._telemetry.stage(names.ADMISSION):
                    place = self.gate.admit(admission, call, tenant_id, request)
                answered = False
                try:
                    if request is not None:
                        rules.validate(_decoded(request))
                    await self._audit.begun(call, request)
                    response = await answer()
                    answered = True
                    return response
                finally:
                    self.gate.release(admission, call, place, answered=answered)
        except TimeoutError:
            if limit is _NO_LIMIT:
                raise
            raise DeadlineTooShort from None

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a method within all layers."""
        self.handed_count += 1
        method = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None:
            handler = await continuation(handler_call_details)
            if handler is None:  # gRPC answers UNIMPLEMENTED
                return None
            handler = self.wrapped(method, handler)
        return handler if handler.request_streaming else self._noted(handler)

    def _noted(self, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler of the call of this task."""
        handed, task = self.handed_calls.handed(), asyncio.current_task()
        if task is not None:
            task.add_done_callback(lambda _: self.handed_calls.left(handed))
        return self.handed_calls.reading(handed, handler)

    def wrapped(self, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler of a method within all layers; the same one each time."""
        known = self._handlers.get(method)
        if known is None:
            is_open = access(method).without_credentials
            known = self._handlers[method] = _readable(handler) if is_open else self._within(method, handler)
        return known

    def _within(self, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        onion, admit = self, self._call

        async def unary_unary(request: Any, context: _Context) -> Any:
            call = admit(method, context)
            response = await onion.around(
                call, context, request, onion.gate.calls, lambda: handler.unary_unary(request, context)
            )
            _tell_timings(call, context)
            return response

        async def stream_unary(requests: AsyncIterator[Any], context: _Context) -> Any:
            call = admit(method, context, streams=True)
            checked = onion._checked(call, requests)
            response = await onion.around(
                call, context, None, onion.gate.calls, lambda: handler.stream_unary(checked, context)
            )
            _tell_timings(call, context)
            return response

        async def unary_stream(request: Any, context: _Context) -> None:
            call = admit(method, context, streams=True)

            async def answer() -> None:
                async for response in _responses(handler.unary_stream(request, context)):
                    await onion.identify(call)
                    call.first_answered = call.first_answered or time.monotonic()
                    await send(context.write, response)

            await onion.around(call, context, request, onion.gate.places_of(method), answer)

        async def stream_stream(requests: AsyncIterator[Any], context: _Context) -> None:
            call = admit(method, context, streams=True)

            async def answer() -> None:
                async for response in _responses(handler.stream_stream(onion._checked(call, requests), context)):
                    await send(context.write, response)

            await onion.around(call, context, None, onion.gate.streams, answer)

        serializers = (_tolerant(handler.request_deserializer), handler.response_serializer)
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(stream_stream, *serializers)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(stream_unary, *serializers)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(unary_stream, *serializers)
        return grpc.unary_unary_rpc_method_handler(unary_unary, *serializers)

    async def _checked(self, call: Call, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Each message of a stream, checked before it is handed on."""
        async for request in requests:
            await self.identify(call)
            require_tenant(call.identity, _decoded(request))
            rules.validate(_decoded(request))
            yield request

    def _call(self, method: str, context: _Context, *, streams: bool = False) -> Call:
        metadata = _metadata(context)
        remaining = context.time_remaining()
        deadline = NO_DEADLINE if remaining is None else Deadline.after(remaining)
        stages: list[Stage] | None = [] if names.SERVER_TIMING in metadata else None
        began = HANDED_TIME.get() or time.monotonic()
        call = Call(method, metadata, deadline, streams=streams, stages=stages, began=began)
        if self._asks_for_certificates:
            call.certificate = b"".join(context.auth_context().get("x509_pem_cert", ()))
        if method in AUDITED:
            call.peer = context.peer()
        return call

    def _time_limit(self, call: Call, *, streaming: bool) -> _Limit:
        """gRPC itself ends a call at its caller's deadline. A unary call without one gets one; a stream may be long."""
        if call.deadline is not NO_DEADLINE or streaming:
            return _NO_LIMIT
        call.deadline = Deadline.after(self._settings.default_deadline_seconds)
        return asyncio.timeout(self._settings.default_deadline_seconds)


def _metadata(context: _Context) -> Mapping[str, str | bytes]:
    """The headers by name. Credentials that stand there twice are none: a proxy may have believed the other ones."""
    headers = tuple(context.invocation_metadata() or ())
    metadata = dict(headers)
    if len(metadata) < len(headers) and sum(name == names.AUTHORIZATION for name, _ in headers) > 1:
        metadata[names.AUTHORIZATION] = ""
    return metadata


def _failed(call: Call, exception: Exception) -> status_pb2.Status:
    status = errors.to_status(exception)
    call.code = errors.code_of(status).name
    if call.stages is not None:
        call.attributes[names.ERROR_REASON] = errors.reason_of(exception)
    exception.__traceback__ = None  # some stand in a frame that they have passed through: a circle
    return status


async def _responses(responses: Any) -> AsyncIterator[Any]:
    if inspect.isawaitable(responses):  # a servicer that writes to the context itself
        await responses
        return
    async for response in responses:
        yield response


def _readable(handler: Any) -> Any:
    """An open method asks nothing of its callers but a message that can be read; none of them takes a stream."""

    async def unary_unary(request: Any, context: _Context) -> Any:
        async with _told(context):
            return await handler.unary_unary(_decoded(request), context)

    async def unary_stream(request: Any, context: _Context) -> AsyncIterator[Any]:
        async with _told(context):
            async for response in _responses(handler.unary_stream(_decoded(request), context)):
                yield response

    serializers = (_tolerant(handler.request_deserializer), handler.response_serializer)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(unary_stream, *serializers)
    return grpc.unary_unary_rpc_method_handler(unary_unary, *serializers)


@asynccontextmanager
async def _told(context: _Context) -> AsyncIterator[None]:
    """What goes wrong ends the call in the one way: gRPC would send the exception's own text to the caller."""
    try:
        yield
    except (asyncio.CancelledError, grpc.aio.AbortError):
        raise
    except Exception as exception:
        await errors.end(context, errors.to_status(exception))


def _tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Bytes that are no such message, or would be too large a one, become the error, raised when it is their turn:
    gRPC would send the parser's own text to the caller."""
    kind: type[Message] = getattr(deserialize, "__self__", Message)  # a message's FromString

    def tolerant(content: bytes) -> Any:
        try:
            rules.require_bounds(content, kind)
            return deserialize(content)
        except DecodeError:
            return InvalidRequest([Violation("", "the request is not a message of this method")])
        except ConductorError as error:
            return error

    return tolerant


def _decoded(request: object) -> Message:
    if isinstance(request, Message):
        return request
    raise request if isinstance(request, ConductorError) else TypeError(request)


def _tell_timings(call: Call, context: _Context) -> None:
    if names.SERVER_TIMING not in call.metadata or context.done():
        return
    timings: dict[str, float] = {}
    for stage in call.stages or ():
        if stage.ended is not None:
            timings[stage.name] = timings.get(stage.name, 0.0) + stage.ended - stage.began
    if timings:
        timing = ", ".join(f"{stage};dur={seconds * 1000:.3f}" for stage, seconds in timings.items())
        context.set_trailing_metadata(((names.SERVER_TIMING, timing),))
