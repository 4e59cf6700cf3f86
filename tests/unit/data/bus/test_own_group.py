"""A group's name carries the home: two homes on one broker are two groups, and a home stays the same one."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from cryptoalpha.core.errors import StoreError
from cryptoalpha.data.bus.config import WorkerConfig
from cryptoalpha.data.bus.inbox import Inbox
from cryptoalpha.data.bus.own_group import FILE, own_group


def test_a_home_keeps_its_name_and_another_has_another(tmp_path):
    one = own_group(tmp_path / "one" / "streams", "book")
    assert one == own_group(tmp_path / "one" / "streams", "book")
    assert one.startswith("book@")
    assert own_group(tmp_path / "one" / "streams", "agent/text").partition("@")[2] == one.partition("@")[2]
    assert own_group(tmp_path / "other" / "streams", "book") != one


def test_processes_that_begin_together_agree(tmp_path):
    code = f"from pathlib import Path; from cryptoalpha.data.bus.own_group import own_group; print(own_group(Path({str(tmp_path)!r}), 'g'))"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({process.communicate(timeout=60)[0] for process in started}) == 1
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_an_identity_that_is_none_is_refused(tmp_path):
    (tmp_path / FILE).write_text("")
    with pytest.raises(StoreError, match="is empty"):
        own_group(tmp_path, "book")
    with pytest.raises(StoreError, match="cannot be used"):
        own_group(tmp_path / FILE / "below", "book")


def test_a_home_whose_identity_is_lost_says_what_to_do_and_that_helps(tmp_path):
    inbox = tmp_path / "inbox_text.sqlite"

    async def handled():
        async with Inbox(inbox, own_group(tmp_path, "agent/text"), WorkerConfig()) as opened:
            return await opened.settle(["one"], {}, [])

    asyncio.run(handled())
    (tmp_path / FILE).write_text("")
    with pytest.raises(StoreError, match="is empty") as empty:
        asyncio.run(handled())
    assert "delete it and the inboxes beside it" in empty.value.hint
    (tmp_path / FILE).unlink()
    with pytest.raises(StoreError, match="belongs to group agent/text@") as others:
        asyncio.run(handled())
    assert "move the inbox away" in others.value.hint
    inbox.rename(tmp_path / "away")
    asyncio.run(handled())
