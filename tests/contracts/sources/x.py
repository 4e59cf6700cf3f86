"""X: a message is a post; what the stream misses while it is broken, search knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cryptoalpha.data.sources.text_config import XSection
from cryptoalpha.data.sources.x import open_source

STREAM, RULES, SEARCH = "/2/tweets/search/stream", "/2/tweets/search/stream/rules", "/2/tweets/search/recent"
RULE = "bitcoin"
FIRST_MS = 1_700_000_000_000 - 1_288_834_974_657


def name(number: int) -> str:
    return str((FIRST_MS + number * 1000) << 22)


def tweet(number: int) -> dict[str, Any]:
    return {"id": name(number), "text": f"bitcoin number {number}", "author_id": "7"}


def line(number: int) -> bytes:
    return json.dumps({"data": tweet(number), "matching_rules": [{"id": "1", "tag": "cryptoalpha"}]}).encode() + b"\r\n"


class X:
    name, faults, keyed, extra = "x", frozenset({"429", "500", "cut", "drop", "401"}), True, "httpx"
    repeats = disorder = garbage = skew = True

    def open(self, fake: Any, tools: Any) -> Any:
        environment = {"X_BEARER_TOKEN": "a-token"}
        return open_source(XSection(base_url=fake.url, rules=(RULE,), silence_seconds=5.0), replace(tools, environment=environment))

    def serve(self, fake: Any, numbers: Sequence[int], *, first: str = "", garbage: bool = False) -> None:
        lines = [line(number) for number in numbers]
        half = len(lines) // 2
        lines[2:2] = [b'{"data": {"id": "what?"}}\r\n'] if garbage else []
        later = fake.Script([fake.PING, lines[-1]])  # the others were written while nobody listened
        scripts = {
            "": [fake.Script([fake.PING, *lines])],
            "429": [fake.Reply(status=429, headers={"Retry-After": "7"}), fake.Script(lines)],
            "500": [fake.Reply(status=500), fake.Script(lines)],
            "cut": [fake.Script([*lines[:half], lines[half][:20]], then="drop"), later],
            "drop": [fake.Script(lines[:half], then="drop"), later],
            "401": [fake.Script(lines[:half], then="end"), fake.Reply(status=401), later],
        }
        fake.streams(STREAM, *scripts[first])
        fake.answers(RULES, fake.Reply({"data": [{"id": "1", "value": RULE, "tag": "cryptoalpha"}], "meta": {}}))

        def search(asked: Any) -> Any:
            found = [tweet(number) for number in sorted(set(numbers), reverse=True) if int(name(number)) > int(asked.query["since_id"])]
            start = int(asked.query.get("next_token", 0))
            more = {"next_token": str(start + 3)} if start + 3 < len(found) else {}
            return fake.Reply({"data": found[start : start + 3], "meta": more})

        fake.answers(SEARCH, search)

    def ids(self, numbers: Sequence[int]) -> set[str]:
        return {f"x/{name(number)}:0" for number in numbers}


CASES = [X()]
