"""The process of one model: reads questions from its standard input, answers on what was its standard output.

    python -m cryptoalpha.lifecycle.serving.model_process VERSION FOLDER      # the two words are for people who read `ps`

One model, one thread, one question at a time. A process of its own, so that the server answers about its health while a model computes,
a model that dies or grows takes nobody along, and another version is loaded beside it. When the pipe closes, however the server ended,
the process ends.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from time import perf_counter
from typing import BinaryIO, TypeVar

import msgspec

from cryptoalpha.core.errors import CryptoAlphaError, ModelError
from cryptoalpha.lifecycle.serving.faults import MalformedWindowError, UnfitWindowError
from cryptoalpha.lifecycle.serving.predictor import Predictor
from cryptoalpha.lifecycle.serving.windows import read_window
from cryptoalpha.lifecycle.serving.wire import LENGTH, Ask, CannotStart, Failed, Opening, Ready, Refused, Told, Word, framed
from cryptoalpha.monitoring.process import memory_used
from cryptoalpha.signals.config import TextConfig

Heard = TypeVar("Heard")


def main() -> None:
    """Load, then answer until there are no more questions."""
    import torch

    torch.set_num_threads(1)
    questions = sys.stdin.buffer
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what a library prints must not get between the answers
        opening = _heard(questions, Opening)
        if opening is None:
            return
        predictor, word = _opened(opening)
        _say(answers, word)
        while predictor is not None and (ask := _heard(questions, Ask)) is not None:
            _say(answers, answered(predictor, ask))


def _opened(opening: Opening) -> tuple[Predictor | None, Word]:
    try:
        predictor = Predictor(Path(opening.folder), opening.version, TextConfig.model_validate(opening.text))
        predictor.warm_up()
    except CryptoAlphaError as error:
        return None, CannotStart(message=str(error), hint=error.hint)
    return predictor, Ready(about=predictor.about, memory=memory_used() or 0)


def answered(predictor: Predictor, ask: Ask) -> Word:
    """What the model says to a question, or whose fault it is that it says nothing."""
    begun = perf_counter()
    try:
        answer = predictor.answer(read_window(ask.body, ask.media, now=ask.now))
    except MalformedWindowError as error:
        return Refused(malformed=True, message=str(error), hint=error.hint)
    except UnfitWindowError as error:
        return Refused(malformed=False, message=str(error), hint=error.hint)
    except (CryptoAlphaError, ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        return Failed(message=f"{type(error).__name__}: {error}")
    return Told(answer=msgspec.Raw(msgspec.msgpack.encode(answer)), seconds=perf_counter() - begun, memory=memory_used() or 0)


def _heard(source: BinaryIO, kind: type[Heard]) -> Heard | None:
    """The next message, None at the end."""
    head = source.read(LENGTH)
    if len(head) < LENGTH:
        return None
    data = source.read(int.from_bytes(head, "little"))
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.DecodeError:
        if len(data) < int.from_bytes(head, "little"):
            return None  # the server died while it spoke
        raise ModelError("the server says what this version does not understand") from None


def _say(to: BinaryIO, word: Word) -> None:
    to.write(framed(word))
    to.flush()


if __name__ == "__main__":
    main()
