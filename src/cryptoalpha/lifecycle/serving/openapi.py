"""`/openapi.json`: what the server understands and says, made of the very types that decode and encode.

Schemathesis asks a running server everything the document allows, and much that it forbids (`tests/contracts/test_serving_schema.py`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from cryptoalpha import __version__
from cryptoalpha.lifecycle.rollout.split import ArmCounts, Split
from cryptoalpha.lifecycle.serving.admin_messages import EnsurePair, FinishRollout, SplitWrite, SwapVersion
from cryptoalpha.lifecycle.serving.config import ServingConfig
from cryptoalpha.lifecycle.serving.messages import ForecastRequest, ForecastResponse, Problem, Status, VersionsResponse
from cryptoalpha.lifecycle.serving.windows import BINARY, JSON

_PROBLEM = "application/problem+json"
_REASONS = {
    "400": "Malformed, or bars that cannot be", "401": "No token, or a wrong one", "403": "The server has no token, so nobody may",
    "408": "The body did not come in time", "409": "Another hand was there first", "413": "The body is too long",
    "415": "Neither of the two forms", "422": "Understood, but it cannot be done", "500": "The model failed",
    "503": "Too many wait, or the model is being loaded; see Retry-After", "504": "No answer in time",
}  # fmt: skip
_TOKEN = ("400", "401", "403", "408", "409", "413", "422", "500", "503", "504")
_ID = {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"}
_BINARY_TEXT = (
    "The layout of safetensors: length of the header (8 bytes, little endian), header (JSON), raw arrays. `open_time` I64 [T]; `open`, "
    "`high`, `low`, `close`, `volume` and, if known, `taker_buy_volume` F64 [T, N], NaN in all of them where an instrument has no bar; "
    "metadata `request`: JSON with `interval`, `instruments` (in the order of the columns) and, if there are any, `posts` and `readings` "
    "as in the JSON form."
)


def openapi_document(config: ServingConfig) -> dict[str, Any]:
    """The document (OpenAPI 3.1)."""
    kinds = (
        ForecastRequest, ForecastResponse, Problem, Split, ArmCounts, SplitWrite, EnsurePair, FinishRollout, SwapVersion, VersionsResponse,
        Status,
    )  # fmt: skip
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cryptoalpha inference",
            "version": __version__,
            "description": f"Forecasts of a trained forecaster. Bodies up to {config.body_megabytes:g} MB; an answer within "
            f"{config.deadline_seconds:g} s or none. Every answer names its version and its request. Not investment advice.",
        },
        "paths": {**_asking(), **_watching(), **_changing()},
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _asking() -> dict[str, Any]:
    codes = ("400", "408", "413", "415", "422", "500", "503", "504")
    return {
        "/v1/forecast": {
            "post": {
                "operationId": "forecast",
                "summary": "The forecast of a window's newest bar.",
                "parameters": [
                    *_common(),
                    {
                        "name": "X-Sticky-Key", "in": "header", "required": False, "schema": _ID,
                        "description": "Requests of one key are answered by one arm.",
                    },
                    {
                        "name": "X-Deadline-Ms", "in": "header", "required": False,
                        "schema": {"type": "string", "pattern": "^[1-9][0-9]{0,6}$"},
                        "description": "Milliseconds the client waits; the server's own limit holds as well.",
                    },
                ],
                "requestBody": {
                    "required": True,
                    "content": {
                        JSON: {"schema": _ref("ForecastRequest")},
                        BINARY: {"schema": {"type": "string", "format": "binary", "description": _BINARY_TEXT}},
                    },
                },
                "responses": {"200": _answer("The forecast.", "ForecastResponse", arm=True), **_problems(codes)},
            }
        }
    }  # fmt: skip


def _watching() -> dict[str, Any]:
    by_arm = {"type": "object", "properties": {arm: _ref("ArmCounts") for arm in ("stable", "canary")}, "required": ["stable", "canary"]}
    since = {
        "name": "since", "in": "query", "required": False, "description": "UTC nanoseconds; `since` of a split.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    }  # fmt: skip
    return {
        "/v1/versions": {"get": _get("versions", "What is loaded, and what it needs.", "VersionsResponse", ("503",))},
        "/v1/split": {
            "get": _get("readSplit", "Who answers which share of the requests.", "Split", ("503",)),
            "put": _change("writeSplit", "Divide requests anew.", "SplitWrite"),
        },
        "/v1/counts": {
            "get": {
                "operationId": "counts",
                "summary": "What each arm did.",
                "parameters": [*_common(), since],
                "responses": {"200": _content("Counts by arm.", by_arm), **_problems(("400", "503"))},
            }
        },
        "/healthz": {"get": _get("health", "This process answers.", "Status", ())},
        "/readyz": {
            "get": {
                "operationId": "ready",
                "summary": "Requests are welcome.",
                "parameters": _common(),
                "responses": {"200": _answer("Yes.", "Status"), "503": _answer("Not now: loading, or about to end.", "Status")},
            }
        },
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Figures for Prometheus.",
                "parameters": _common(),
                "responses": {
                    "200": {"description": "Text format.", "headers": _headers(), "content": {"text/plain": {"schema": {"type": "string"}}}}
                },
            }
        },
        "/openapi.json": {
            "get": {
                "operationId": "openapi",
                "summary": "This document.",
                "parameters": _common(),
                "responses": {"200": _content("OpenAPI 3.1.", {"type": "object"})},
            }
        },
    }


def _changing() -> dict[str, Any]:
    return {
        "/v1/split/ensure": {
            "post": _change("ensurePair", "Load a stable version and a canary; takes as long as loading takes.", "EnsurePair")
        },
        "/v1/split/finish": {"post": _change("finishRollout", "Let one arm answer everything from now on.", "FinishRollout")},
        "/v1/swap": {"post": _change("swap", "Let another version answer as stable, losing no request.", "SwapVersion")},
    }


def _get(operation: str, summary: str, name: str, codes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "operationId": operation,
        "summary": summary,
        "parameters": _common(),
        "responses": {"200": _answer(summary, name), **_problems(codes)},
    }


def _change(operation: str, summary: str, name: str) -> dict[str, Any]:
    return {
        "operationId": operation,
        "summary": summary,
        "security": [{"token": []}],
        "parameters": _common(),
        "requestBody": {"required": True, "content": {JSON: {"schema": _ref(name)}}},
        "responses": {"200": _answer("The split from now on.", "Split"), **_problems(_TOKEN)},
    }


def _common() -> list[dict[str, Any]]:
    return [
        {
            "name": "X-Request-Id", "in": "header", "required": False, "schema": {"type": "string"},
            "description": "Comes back with the answer if it is 1 to 128 of A-Z a-z 0-9 . _ : -; else one is made up.",
        }
    ]  # fmt: skip


def _headers(*, arm: bool = False) -> dict[str, Any]:
    text = {"schema": {"type": "string"}}
    headers = {"X-Request-Id": text, "X-Model-Version": text}
    return {**headers, "X-Model-Arm": text, "Server-Timing": text} if arm else headers


def _answer(description: str, name: str, *, arm: bool = False) -> dict[str, Any]:
    return _content(description, _ref(name), arm=arm)


def _content(description: str, schema: dict[str, Any], *, arm: bool = False) -> dict[str, Any]:
    return {"description": description, "headers": _headers(arm=arm), "content": {JSON: {"schema": schema}}}


def _problems(codes: tuple[str, ...]) -> dict[str, Any]:
    content = {_PROBLEM: {"schema": _ref("Problem")}}
    return {code: {"description": _REASONS[code], "headers": _headers(), "content": content} for code in codes}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
