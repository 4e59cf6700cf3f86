"""The HTTP side of serving: routes, limits, and what each ending is told as. Who computes is `fleet`.

    POST /v1/forecast       a window of bars → the forecast of its newest bar
    GET  /v1/versions       what is loaded, and what it needs
    GET  /v1/split          who answers which share          PUT  /v1/split         divide anew     (token)
    GET  /v1/counts         what each arm did                POST /v1/split/ensure  load a pair     (token)
    POST /v1/swap           another stable version  (token)  POST /v1/split/finish  end a rollout   (token)
    GET  /healthz           this process answers             GET  /readyz           requests are welcome
    GET  /metrics           for Prometheus                   GET  /openapi.json     all this, for machines

Every answer, errors too, carries `X-Request-Id` and `X-Model-Version`; errors are `application/problem+json` (RFC 9457).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cryptoalpha.core.errors import ConfigError, CryptoAlphaError
from cryptoalpha.core.time import SECOND
from cryptoalpha.lifecycle.rollout.router import Routed
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, SplitConflictError
from cryptoalpha.lifecycle.serving.admin_messages import EnsurePair, FinishRollout, SplitWrite, SwapVersion
from cryptoalpha.lifecycle.serving.config import ServingConfig
from cryptoalpha.lifecycle.serving.faults import BusyError, DeadlineError, NoAnswerError
from cryptoalpha.lifecycle.serving.fleet import ChangeUnderWayError, Fleet
from cryptoalpha.lifecycle.serving.messages import ForecastResponse, LoadedVersion, Problem, Status, VersionsResponse
from cryptoalpha.lifecycle.serving.openapi import openapi_document
from cryptoalpha.lifecycle.serving.request_reading import (
    RefusedRequestError,
    deadline_seconds,
    read_body,
    request_id,
    require_token,
    sticky_key,
)
from cryptoalpha.lifecycle.serving.served_model import Reply
from cryptoalpha.lifecycle.serving.serving_metrics import ServingMeter
from cryptoalpha.lifecycle.serving.windows import MEDIA
from cryptoalpha.lifecycle.serving.wire import Ask
from cryptoalpha.monitoring.metrics_exposition import exposition

Wanted = TypeVar("Wanted")
_JSON = "application/json"
_PROBLEM = "application/problem+json"
_LARGEST_ADMIN = 1 << 16
_ADMIN_SECONDS = 10.0
_TITLES = {
    400: "Malformed request", 401: "Token needed", 403: "Forbidden", 404: "Not found", 405: "Method not allowed", 408: "Request too slow",
    409: "Conflict", 413: "Body too long", 415: "Unknown media type", 422: "Cannot be done", 500: "The model failed",
    503: "Not available now", 504: "No answer in time",
}  # fmt: skip


@dataclass
class Service:
    """What the routes share. `draining` is set when the server is about to end: readiness is denied, answers go on."""

    fleet: Fleet
    config: ServingConfig
    now: Callable[[], int]
    new_id: Callable[[], str]
    token: str = ""
    draining: bool = False
    meter: ServingMeter = field(init=False)

    def __post_init__(self) -> None:
        self.meter = ServingMeter(self.config)


def application(service: Service) -> Starlette:
    """The ASGI application."""
    endpoints = _Endpoints(service)
    routes = [
        Route("/v1/forecast", endpoints.forecast, methods=["POST"]),
        Route("/v1/versions", endpoints.versions, methods=["GET"]),
        Route("/v1/split", endpoints.read_split, methods=["GET"]),
        Route("/v1/split", endpoints.write_split, methods=["PUT"]),
        Route("/v1/split/ensure", endpoints.ensure, methods=["POST"]),
        Route("/v1/split/finish", endpoints.finish, methods=["POST"]),
        Route("/v1/counts", endpoints.counts, methods=["GET"]),
        Route("/v1/swap", endpoints.swap, methods=["POST"]),
        Route("/healthz", endpoints.health, methods=["GET"]),
        Route("/readyz", endpoints.ready, methods=["GET"]),
        Route("/metrics", endpoints.metrics, methods=["GET"]),
        Route("/openapi.json", endpoints.openapi, methods=["GET"]),
    ]
    return Starlette(routes=_one_route_per_path(routes), exception_handlers={HTTPException: endpoints.no_route, 500: endpoints.unforeseen})


def _one_route_per_path(routes: list[Route]) -> list[Route]:
    """Routes of one path as one, so that another method is told all that are allowed."""
    merged = []
    for path in dict.fromkeys(route.path for route in routes):
        same = {method: route.endpoint for route in routes if route.path == path for method in (route.methods or ())}

        async def endpoint(request: Request, same: dict[str, Any] = same) -> Response:
            response: Response = await same[request.method](request)
            return response

        merged.append(Route(path, endpoint, methods=sorted(same)))
    return merged


class _Endpoints:
    """One method per route."""

    def __init__(self, service: Service) -> None:
        self._service, self._fleet, self._config = service, service.fleet, service.config

    async def forecast(self, request: Request) -> Response:
        return await self._guarded(request, self._forecast)

    async def _forecast(self, request: Request, number: str) -> Response:
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media not in MEDIA:
            raise RefusedRequestError(415, f"requests of type {media or 'nothing'!r} are not read", "media", f"send {' or '.join(MEDIA)}")
        key, seconds = sticky_key(request) or number, deadline_seconds(request, self._config.deadline_seconds)
        body = await read_body(request, limit=int(self._config.body_megabytes * 1e6), seconds=self._config.deadline_seconds)
        begun = perf_counter()
        latest = self._service.now() + int(self._config.clock_tolerance_seconds * SECOND)
        try:
            async with asyncio.timeout(seconds):
                routed = await self._fleet.answer(key, Ask(media=media, body=body, now=latest))
        except TimeoutError:
            raise DeadlineError(f"there was no answer within {seconds:g} s", hint="ask again, or add a replica") from None
        took = perf_counter() - begun
        self._count(routed, took)
        return self._answered(routed, number, took)

    def _count(self, routed: Routed[Reply], took: float) -> None:
        if routed.fell_back and routed.cause != "busy":
            self._service.meter.failed(CANARY, routed.cause)
        self._service.meter.answered(routed.arm, took)

    def _answered(self, routed: Routed[Reply], number: str, took: float) -> Response:
        reply = routed.answer
        assert reply.answer is not None  # the router lets nothing else through
        said = {name: getattr(reply.answer, name) for name in reply.answer.__struct_fields__}
        response = ForecastResponse(version=reply.version, arm=routed.arm, fell_back=routed.fell_back, request_id=number, **said)
        headers = {
            "x-request-id": number, "x-model-version": reply.version, "x-model-arm": routed.arm,
            "server-timing": f"compute;dur={1e3 * reply.seconds:.1f}, total;dur={1e3 * took:.1f}",
        }  # fmt: skip
        return Response(msgspec.json.encode(response), media_type=_JSON, headers=headers)

    async def versions(self, request: Request) -> Response:
        async def body(_: Request, number: str) -> Response:
            split = self._fleet.split
            loaded = [
                LoadedVersion(
                    **msgspec.structs.asdict(model.about), arm=CANARY if version == split.canary else STABLE, ready=model.is_ready,
                    waiting=model.waiting, memory_bytes=model.memory, replaced=model.replaced,
                )
                for version, model in sorted(self._fleet.models.items())
                if version in (split.stable, split.canary)
            ]  # fmt: skip
            return self._json(VersionsResponse(stable=split.stable, canary=split.canary, versions=loaded), number)

        return await self._guarded(request, body)

    async def read_split(self, request: Request) -> Response:
        async def body(_: Request, number: str) -> Response:
            return self._json(self._fleet.split, number)

        return await self._guarded(request, body)

    async def counts(self, request: Request) -> Response:
        async def body(_: Request, number: str) -> Response:
            given = request.query_params.get("since", "0")
            if not (given.isascii() and given.isdecimal() and int(given) < 2**63):
                raise RefusedRequestError(400, "`since` must be UTC nanoseconds", "malformed")
            return self._json(dict(await self._fleet.routing().counts(int(given))), number)

        return await self._guarded(request, body)

    async def write_split(self, request: Request) -> Response:
        async def body(wanted: SplitWrite) -> object:
            return await self._fleet.routing().write(
                {str(arm): share for arm, share in wanted.weights.items()}, expected_version=wanted.expected_version, shadow=wanted.shadow
            )

        return await self._changing(request, SplitWrite, body)

    async def ensure(self, request: Request) -> Response:
        return await self._changing(request, EnsurePair, lambda wanted: self._fleet.ensure(wanted.stable, wanted.canary))

    async def finish(self, request: Request) -> Response:
        return await self._changing(request, FinishRollout, lambda wanted: self._fleet.finish(wanted.winner))

    async def swap(self, request: Request) -> Response:
        return await self._changing(request, SwapVersion, lambda wanted: self._fleet.swap(wanted.version))

    async def health(self, request: Request) -> Response:
        number = request_id(request) or self._service.new_id()
        return self._json(Status(status="ok", version=self._fleet.stable), number)

    async def ready(self, request: Request) -> Response:
        number = request_id(request) or self._service.new_id()
        ready = self._fleet.is_ready and not self._service.draining
        why = "draining" if self._service.draining else "ready" if ready else "loading"
        return self._json(Status(status=why, version=self._fleet.stable), number, status=200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        text = exposition(await self._service.meter.refresh(self._fleet))
        number = request_id(request) or self._service.new_id()
        return Response(text, media_type="text/plain; version=0.0.4", headers=self._headers(number))

    async def openapi(self, request: Request) -> Response:
        return self._json(openapi_document(self._config), request_id(request) or self._service.new_id())

    async def no_route(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        number = request_id(request) or self._service.new_id()
        return self._problem(error.status_code, str(error.detail), "see /openapi.json", number, headers=dict(error.headers or {}))

    async def unforeseen(self, request: Request, error: Exception) -> Response:
        number = request_id(request) or self._service.new_id()
        return self._problem(500, f"unexpected {type(error).__name__}", "the server's stderr has its traceback", number)

    async def _changing(self, request: Request, kind: type[Wanted], change: Callable[[Wanted], Awaitable[object]]) -> Response:
        """A request that changes something: needs the token, and a body of its kind."""

        async def body(request: Request, number: str) -> Response:
            require_token(request, self._service.token)
            data = await read_body(request, limit=_LARGEST_ADMIN, seconds=_ADMIN_SECONDS)
            try:
                wanted = msgspec.json.decode(data, type=kind)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise RefusedRequestError(400, f"the request cannot be read: {error}", "malformed", "see /openapi.json") from None
            return self._json(await change(wanted), number)

        return await self._guarded(request, body)

    async def _guarded(self, request: Request, body: Callable[[Request, str], Awaitable[Response]]) -> Response:
        """The endings every request can have."""
        number = request_id(request) or self._service.new_id()
        meter = self._service.meter
        try:
            return await body(request, number)
        except RefusedRequestError as error:
            meter.refused(error.reason)
            challenge = {"www-authenticate": "Bearer"} if error.status == 401 else {}
            return self._problem(error.status, str(error), error.hint, number, headers=challenge)
        except NoAnswerError as error:
            meter.refused(error.reason)
            seconds = error.retry_seconds if isinstance(error, BusyError) else 5
            return self._problem(
                error.status, str(error), error.hint, number, headers={"retry-after": str(seconds)} if error.status == 503 else {}
            )
        except (SplitConflictError, ChangeUnderWayError) as error:
            return self._problem(409, str(error), error.hint, number)
        except ConfigError as error:
            return self._problem(422, str(error), error.hint, number)
        except CryptoAlphaError as error:
            late = isinstance(error.__cause__, TimeoutError)
            if request.url.path == "/v1/forecast":
                meter.failed(STABLE, "timeout" if late else "error")
            return self._problem(504 if late else 500, str(error), error.hint, number)

    def _json(self, value: object, number: str, *, status: int = 200) -> Response:
        return Response(msgspec.json.encode(value), status, media_type=_JSON, headers=self._headers(number))

    def _problem(self, status: int, detail: str, hint: str, number: str, *, headers: dict[str, str] | None = None) -> Response:
        problem = Problem(
            type="about:blank", title=_TITLES.get(status, "Error"), status=status, detail=detail, hint=hint, request_id=number,
            version=self._fleet.stable,
        )  # fmt: skip
        return Response(msgspec.json.encode(problem), status, media_type=_PROBLEM, headers={**self._headers(number), **(headers or {})})

    def _headers(self, number: str) -> dict[str, str]:
        return {"x-request-id": number, "x-model-version": self._fleet.stable}
