"""Hears Alertmanager: POST /v1/alerts with a bearer token, answered when what is due is done and written down.

Alertmanager tries again what is not answered with 2xx, so a deed that failed is answered with 502 and nothing is lost; what it tells again
changes nothing (`actions`). Every refusal is a status and one line, and names no secret:

    200  heard; the body says what was done      400  not a webhook of Alertmanager     401  no token, or another
    413  larger than `LARGEST_BODY`               502  heard, but a deed failed          503  the book cannot be written

GET /healthz says that it listens. It is no public service: put it behind the cluster's network policy, or on 127.0.0.1.
"""

from __future__ import annotations

import hmac
import logging
from typing import TYPE_CHECKING

from cryptoalpha.core.errors import ConfigError, DataError, StoreError
from cryptoalpha.lifecycle.alerts.actions import AlertActions
from cryptoalpha.lifecycle.alerts.notices import LARGEST_BODY, notices_of_webhook

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse

PATH = "/v1/alerts"
SHORTEST_TOKEN = 16
_LOG = logging.getLogger(__name__)


class AlertWebhook:
    """The application; `app` is what a server runs.

    Raises:
        ConfigError: if the token is shorter than `SHORTEST_TOKEN` characters: without one anybody could scale and retrain.
    """

    def __init__(self, actions: AlertActions, token: str) -> None:
        from starlette.applications import Starlette
        from starlette.routing import Route

        if len(token) < SHORTEST_TOKEN:
            raise ConfigError(f"the token of the alerts' webhook has fewer than {SHORTEST_TOKEN} characters", hint="make a longer one")
        self._actions, self._expected = actions, f"Bearer {token}".encode()
        self.app: Starlette = Starlette(routes=[Route(PATH, self._hear, methods=["POST"]), Route("/healthz", _healthy, methods=["GET"])])

    async def _hear(self, request: Request) -> JSONResponse:
        from starlette.responses import JSONResponse

        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._expected):
            return JSONResponse({"error": "a bearer token is needed"}, 401, {"WWW-Authenticate": "Bearer"})
        body = await _body(request)
        if body is None:
            return JSONResponse({"error": f"at most {LARGEST_BODY} bytes"}, 413)
        try:
            deeds = await self._actions.take(notices_of_webhook(body))
        except StoreError as error:
            _LOG.error("alerts were heard but could not be written down: %s", error)
            return JSONResponse({"error": "what was heard could not be written down"}, 503)
        except DataError as error:
            return JSONResponse({"error": str(error)}, 400)
        done = [{"kind": deed.kind, "alert": deed.alert, "state": deed.state, "words": deed.words} for deed in deeds]
        return JSONResponse({"done": done}, 502 if any(deed.state == "failed" for deed in deeds) else 200)


async def _body(request: Request) -> bytes | None:
    """The body, None of one that is too large; no more than that is read."""
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > LARGEST_BODY:
            return None
    return bytes(parts)


async def _healthy(request: Request) -> JSONResponse:
    from starlette.responses import JSONResponse

    return JSONResponse({"status": "listening"})
