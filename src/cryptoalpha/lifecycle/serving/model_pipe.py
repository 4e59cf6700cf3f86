"""The server's end of one model's process: start it, ask it, end it. See `model_process` for the other end."""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec

from cryptoalpha.core.errors import ModelError, WorkerDiedError
from cryptoalpha.lifecycle.serving.messages import ModelAbout
from cryptoalpha.lifecycle.serving.wire import LARGEST, LENGTH, Ask, CannotStart, Failed, Opening, Ready, Refused, Told, Word, framed

_COMMAND = (sys.executable, "-m", "cryptoalpha.lifecycle.serving.model_process")
_END_SECONDS = 5.0
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


class ModelPipe:
    """A loaded model's process. One question at a time.

    A process of its own session: Ctrl-C in a terminal reaches the server alone, which then answers those who wait.
    """

    def __init__(self, process: asyncio.subprocess.Process, ready: Ready) -> None:
        self._process = process
        self.about: ModelAbout = ready.about
        self.memory = ready.memory

    @classmethod
    async def start(cls, opening: Opening, *, seconds: float) -> ModelPipe:
        """A process that has loaded the model and answered a made-up window.

        Raises:
            ModelError: if it says that it cannot, or does not within so many seconds.
        """
        process = await asyncio.create_subprocess_exec(
            *_COMMAND, opening.version, opening.folder,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={**os.environ, **_ONE_THREAD},
            start_new_session=True, limit=1 << 20,
        )  # fmt: skip
        try:
            async with asyncio.timeout(seconds):
                word = await _exchange(process, opening)
        except TimeoutError:
            await _kill(process)
            raise ModelError(
                f"{opening.folder} was not loaded within {seconds:g} s", hint="raise lifecycle.serving.start_seconds"
            ) from None
        except WorkerDiedError as died:
            raise ModelError(f"the process that loaded {opening.folder} ended: {died}", hint="its own words are on stderr") from died
        except BaseException:
            await _kill(process)
            raise
        if isinstance(word, CannotStart):
            await process.wait()
            raise ModelError(f"version {opening.version} cannot be served: {word.message}", hint=word.hint)
        if not isinstance(word, Ready):
            await _kill(process)
            raise ModelError(f"version {opening.version} cannot be served: its process answers before it was asked")
        return cls(process, word)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    async def ask(self, question: Ask) -> Told | Refused | Failed:
        """What the model says.

        Raises:
            WorkerDiedError: if the process ended, or says what cannot be understood; it is gone then.
        """
        word = await _exchange(self._process, question)
        if isinstance(word, Ready | CannotStart):
            await _kill(self._process)
            raise WorkerDiedError("it began anew in the middle")
        if isinstance(word, Told):
            self.memory = word.memory
        return word

    async def end(self) -> None:
        """Close the pipe and wait until the process is gone; it is killed if it lingers."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            await _kill(self._process)

    async def kill(self) -> None:
        """End the process at once."""
        await _kill(self._process)


async def _exchange(process: asyncio.subprocess.Process, question: Opening | Ask) -> Word:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(framed(question))
        await process.stdin.drain()
        length = int.from_bytes(await process.stdout.readexactly(LENGTH), "little")
        if length > LARGEST:
            raise WorkerDiedError(f"it says {length:,} bytes at once")
        word: Word = msgspec.msgpack.decode(await process.stdout.readexactly(length), type=Word)
    except (asyncio.IncompleteReadError, ConnectionError):
        code = await process.wait()
        raise WorkerDiedError(f"exit code {code}", hint="a signal's number if negative: 9 is the system's, for want of memory") from None
    except (msgspec.DecodeError, WorkerDiedError) as error:
        await _kill(process)
        raise WorkerDiedError(f"it says what cannot be understood ({error})") from error
    return word


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        try:
            process.kill()
        except ProcessLookupError:
            return  # it ended by itself a moment ago
    await process.wait()
