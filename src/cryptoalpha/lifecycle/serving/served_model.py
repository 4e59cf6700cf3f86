"""One model under supervision: its process, the line before it, and what happens when either goes wrong.

Promises:
- Requests are answered in the order in which they came, one at a time. At most `queue` wait; the next is refused at once (`BusyError`).
- Who gives up waiting (deadline, closed connection) costs nothing if the computation has not begun.
- A process that dies, is stuck or says nonsense fails the request it was asked and is replaced; those that wait are refused at once rather
  than kept until a new one has loaded. One that outgrows its memory is replaced by a fresh one between two requests; nobody waits for it.
- `retire` answers everybody who waits, then ends the process.

One event loop owns it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from cryptoalpha.core.backoff import Backoff
from cryptoalpha.core.errors import ModelError, WorkerDiedError
from cryptoalpha.core.seeds import stream
from cryptoalpha.lifecycle.serving.config import ServingConfig
from cryptoalpha.lifecycle.serving.faults import BusyError, MalformedWindowError, UnavailableError, UnfitWindowError
from cryptoalpha.lifecycle.serving.messages import ForecastAnswer, ModelAbout, fault_of
from cryptoalpha.lifecycle.serving.model_pipe import ModelPipe
from cryptoalpha.lifecycle.serving.wire import Ask, Failed, Opening, Refused, Told

Say = Callable[[str], None]
_TYPICAL_SECONDS = 0.05


@dataclass(frozen=True)
class Reply:
    """What a model said. `fault`: why it cannot be used (a cause of `rollout.split`); then there may be no answer."""

    answer: ForecastAnswer | None
    fault: str | None
    seconds: float
    version: str
    """Id of the model that said it."""


@dataclass
class _Waiting:
    question: Ask
    reply: asyncio.Future[Reply]


class ServedModel:
    """A version that answers. `await ServedModel.start(…)`; `retire` it in the end.

    Args:
        opening: what its processes load.
        say: told, in a line, what went wrong and what is done about it.
    """

    def __init__(self, opening: Opening, pipe: ModelPipe, config: ServingConfig, say: Say) -> None:
        self._opening, self._config, self._say = opening, config, say
        self._pipe: ModelPipe | None = pipe
        self.about: ModelAbout = pipe.about
        self.memory = pipe.memory
        self.replaced = 0
        self._line: deque[_Waiting] = deque()
        self._more = asyncio.Event()
        self._retiring = False
        self._seconds = _TYPICAL_SECONDS
        self._fresh: asyncio.Task[ModelPipe] | None = None
        self._backoff = Backoff(0.5, 60.0, random=stream(0, "serving", opening.version))
        self._work = asyncio.create_task(self._run())

    @classmethod
    async def start(cls, opening: Opening, config: ServingConfig, say: Say = lambda text: None) -> ServedModel:
        """Load a version and warm it up.

        Raises:
            ModelError: if it cannot be loaded.
        """
        return cls(opening, await ModelPipe.start(opening, seconds=config.start_seconds), config, say)

    @property
    def version(self) -> str:
        """Its id."""
        return self._opening.version

    @property
    def is_ready(self) -> bool:
        """Whether it answers now."""
        return self._pipe is not None and not self._retiring

    @property
    def pid(self) -> int | None:
        """Number of the process that answers now, None where none does."""
        return None if self._pipe is None else self._pipe.pid

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return sum(not one.reply.done() for one in self._line)

    async def ask(self, question: Ask) -> Reply:
        """The model's reply, when it is this request's turn.

        Raises:
            BusyError: if too many wait.
            UnavailableError: if its process is gone, or went before this request's turn.
            MalformedWindowError, UnfitWindowError: if the request cannot be answered.
            ModelError: if the model failed.
        """
        if not self.is_ready:
            raise UnavailableError(f"version {self.version} is being loaded or replaced", hint="ask again in a few seconds")
        waiting = self.waiting
        if waiting >= self._config.queue:
            seconds = max(1, math.ceil(waiting * self._seconds))
            raise BusyError(
                f"{waiting} requests wait for version {self.version}", retry_seconds=seconds, hint="ask later, or add a replica"
            )
        one = _Waiting(question, asyncio.get_running_loop().create_future())
        self._line.append(one)
        self._more.set()
        return await one.reply

    async def retire(self) -> None:
        """Answer who waits, then end. Idempotent."""
        self._retiring = True
        self._more.set()
        if self._pipe is None:
            self._work.cancel()  # it waits for a process that nobody will ask
        await asyncio.wait({self._work})

    async def _run(self) -> None:
        while True:
            while self._line:
                one = self._line.popleft()
                if not one.reply.done():
                    await self._answer(one)
            if self._retiring:
                break
            self._more.clear()
            await self._more.wait()
        if self._fresh is not None and not self._fresh.cancel() and self._fresh.exception() is None:
            await self._fresh.result().end()
        if self._pipe is not None:
            await self._pipe.end()
            self._pipe = None

    async def _answer(self, one: _Waiting) -> None:
        """Have one request computed and tell it what came of it."""
        assert self._pipe is not None
        pipe = self._pipe
        try:
            async with asyncio.timeout(self._config.stuck_seconds):
                word = await pipe.ask(one.question)
        except (TimeoutError, WorkerDiedError) as error:
            why = f"was stuck for {self._config.stuck_seconds:g} s" if isinstance(error, TimeoutError) else f"ended ({error})"
            if isinstance(error, TimeoutError):
                await pipe.kill()
            _fail(one, ModelError(f"the process of version {self.version} {why}"))
            await self._replace(why)
            return
        self.memory = pipe.memory
        if not one.reply.done():
            _tell(one, word, self.version)
        if isinstance(word, Told):
            self._seconds += 0.1 * (word.seconds - self._seconds)
        await self._keep_small()

    async def _replace(self, why: str) -> None:
        """Load the version anew; refuse who waits meanwhile. Tries until it works or the model is retired."""
        self._pipe = None
        while not self._retiring:
            while self._line:
                _fail(
                    self._line.popleft(), UnavailableError(f"version {self.version} is being replaced", hint="ask again in a few seconds")
                )
            self._say(f"the process of version {self.version} {why}; another one is started")
            try:
                self._pipe = await ModelPipe.start(self._opening, seconds=self._config.start_seconds)
            except ModelError as error:
                why = f"could not be started: {error}"
                await asyncio.sleep(self._backoff.wait())
                continue
            self._backoff.reset()
            self.replaced += 1
            return

    async def _keep_small(self) -> None:
        """Have a fresh process take over when the memory in use is above its budget."""
        if self._fresh is not None and self._fresh.done():
            fresh, self._fresh = self._fresh, None
            if fresh.exception() is None:
                old, self._pipe = self._pipe, fresh.result()
                self.memory = self._pipe.memory
                self.replaced += 1
                assert old is not None
                await old.end()
            else:
                self._say(f"no fresh process for version {self.version}: {fresh.exception()}")
        elif self._fresh is None and self.memory > self._config.memory_megabytes * 1e6:
            self._say(f"version {self.version} has {self.memory / 1e6:,.0f} MB in use; a fresh process takes its place")
            self._fresh = asyncio.create_task(ModelPipe.start(self._opening, seconds=self._config.start_seconds))


def _tell(one: _Waiting, word: Told | Refused | Failed, version: str) -> None:
    match word:
        case Told():
            answer, fault = _read(word.answer)
            one.reply.set_result(Reply(answer, fault, word.seconds, version))
        case Refused():
            kind = MalformedWindowError if word.malformed else UnfitWindowError
            one.reply.set_exception(kind(word.message, hint=word.hint))
        case Failed():
            one.reply.set_exception(ModelError(word.message))


def _fail(one: _Waiting, error: Exception) -> None:
    if not one.reply.done():
        one.reply.set_exception(error)


def _read(data: msgspec.Raw) -> tuple[ForecastAnswer | None, str | None]:
    """An answer as it came from a process, and what is wrong with it."""
    try:
        answer = msgspec.msgpack.decode(data, type=ForecastAnswer)
    except msgspec.ValidationError as error:
        if _has_nan(msgspec.msgpack.decode(data)):
            return None, "nan"
        return None, "out_of_range" if "`float` >=" in str(error) or "`float` <=" in str(error) else "schema"
    except msgspec.DecodeError:
        return None, "schema"
    return answer, fault_of(answer)


def _has_nan(value: object) -> bool:
    """Whether a number anywhere in it is not finite."""
    if isinstance(value, dict):
        return any(map(_has_nan, value.values()))
    if isinstance(value, list):
        return any(map(_has_nan, value))
    return isinstance(value, float) and not math.isfinite(value)
