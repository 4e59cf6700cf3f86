"""A gap in the stream, and how it is closed: by searching, rule by rule and page by page, newest first, until the posts known before.

No clock, no I/O: it says what to ask next and is told what came, so a search that fails goes on where it was and no page is paid for twice.
What is found goes on oldest first, and only when all of it is there: a gap that is half closed would look like none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptoalpha.core.values import Post
from cryptoalpha.data.sources.posts import Fault, TextPage
from cryptoalpha.data.sources.x_client import SEARCH_LEAST, SEARCH_MOST
from cryptoalpha.data.sources.x_parsing import XMessage, number_in


@dataclass(frozen=True)
class Question:
    """A page to ask for."""

    query: str
    since: int
    most: int
    following: str


class Gap:
    """Everything the rules match after `since`.

    Args:
        rules: what to search for.
        since: posts with higher ids are asked for.
        most: posts that may be read.
    """

    def __init__(self, rules: Sequence[str], since: int, most: int) -> None:
        self._todo = [(rule, "") for rule in rules]
        self._since, self._left = since, most
        self._posts: dict[str, Post] = {}
        self._faults: list[Fault] = []
        self._published = 0
        self.cut = False
        """Whether more was there than could be read."""

    def question(self) -> Question | None:
        """What to ask next; None: that is all, or all that may be read."""
        if not self._todo:
            return None
        if self._left < SEARCH_LEAST:
            self.cut = True
            return None
        rule, following = self._todo[0]
        return Question(rule, self._since, min(self._left, SEARCH_MOST), following)

    def took(self, message: XMessage) -> int:
        """A page that came; how many posts it held."""
        page = message.page
        count = len(page.posts) + len(page.faults)
        self._left -= count
        self._published = max(self._published, page.published)
        self._faults.extend(page.faults)
        for post in page.posts:
            self._posts.setdefault(f"{post.post_id}:{post.revision}", post)
        rule, before = self._todo.pop(0)
        if page.following and page.following != before:
            self._todo.insert(0, (rule, page.following))
        return count

    def skip(self) -> str:
        """Give up the rule that was asked for; its words."""
        self.cut = True
        return self._todo.pop(0)[0]

    def page(self) -> TextPage:
        """What was found, oldest first."""
        posts = sorted(self._posts.values(), key=number_in)
        return TextPage(posts=tuple(posts), faults=tuple(self._faults), published=self._published)

    def newest(self) -> int:
        """Highest id found; 0: none."""
        return max((number_in(post) for post in self._posts.values()), default=0)
