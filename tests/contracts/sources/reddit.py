"""Reddit: a message is a submission of the listing of new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cryptoalpha.data.sources.reddit import open_source
from cryptoalpha.data.sources.text_config import RedditSection

NEW, TOKEN = "/r/Bitcoin/new", "/api/v1/access_token"


def name(number: int) -> str:
    return f"t3_a{'0123456789abcdefghijklmnopqrstuvwxyz'[number]}"


def thing(number: int) -> dict[str, Any]:
    return {"kind": "t3", "data": {"name": name(number), "title": f"bitcoin number {number}", "created_utc": 1_700_000_000 + number}}


def listing(things: Sequence[Any]) -> dict[str, Any]:
    return {"kind": "Listing", "data": {"children": list(things), "after": None}}


class Reddit:
    name, faults, keyed, extra = "reddit", frozenset({"429", "500", "cut", "401"}), True, "asyncpraw"
    repeats = disorder = garbage = skew = True

    def open(self, fake: Any, tools: Any) -> Any:
        keys = {"REDDIT_CLIENT_ID": "an-id", "REDDIT_CLIENT_SECRET": "a-secret"}
        section = RedditSection(oauth_url=fake.url, reddit_url=fake.url, subreddits=("Bitcoin",), comments=False)
        return open_source(section, replace(tools, environment=keys))

    def serve(self, fake: Any, numbers: Sequence[int], *, first: str = "", garbage: bool = False) -> None:
        things = [thing(number) for number in numbers][::-1]
        things[2:2] = [{"kind": "t3", "data": {"name": "what?"}}] if garbage else []

        wrong = {
            "": [],
            "429": [fake.Reply(status=429, headers={"Retry-After": "7"})],
            "500": [fake.Reply(status=500)],
            "cut": [fake.Reply(listing(things), cut=40)],
            "401": [fake.Reply(listing(things[-2:])), fake.Reply(status=401)],
        }
        fake.answers(TOKEN, fake.Reply({"access_token": "t", "expires_in": 3600, "scope": "*", "token_type": "bearer"}))
        fake.answers(NEW, *wrong[first], fake.Reply(listing(things)))

    def ids(self, numbers: Sequence[int]) -> set[str]:
        return {f"reddit/{name(number)}:0" for number in numbers}


CASES = [Reddit()]
