"""Errors end commands with the stated code, seeds give independent streams, sections are frozen and keep secrets."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pydantic import ValidationError

from cryptoalpha.core import errors
from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, Section
from cryptoalpha.core.seeds import stream


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.CryptoAlphaError, 1),
        (errors.ConfigError, 2),
        (errors.DataError, 3),
        (errors.DataMissingError, 3),
        (errors.BarGateError, 3),
        (errors.StoreError, 3),
        (errors.StoreLockedError, 3),
        (errors.JournalDivergenceError, 3),
        (errors.RiskHaltError, 4),
        (errors.VenueError, 5),
        (errors.ValidationFailedError, 6),
        (errors.LookAheadError, 6),
        (errors.AccountingError, 6),
    ],
)
def test_every_error_has_its_exit_code_and_carries_a_hint(error, code):
    raised = error("what was wrong", hint="what to do")
    assert raised.exit_code == code
    assert (str(raised), raised.hint) == ("what was wrong", "what to do")
    assert error("no hint").hint == ""
    assert issubclass(error, errors.CryptoAlphaError)


def test_every_error_stands_in_the_tree_of_the_module_header():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert errors.__doc__ is not None
    assert [kind.__name__ for kind in kinds if kind.__name__ not in errors.__doc__] == []


def test_a_stream_depends_on_seed_and_names_only():
    first = stream(7, "costs", "BTC/USDT").standard_normal(5)
    stream(7, "other").standard_normal(1000)  # what others draw changes nothing
    assert_array_equal(stream(7, "costs", "BTC/USDT").standard_normal(5), first)


def test_different_seeds_and_names_give_different_streams():
    draws = [
        tuple(stream(*arguments).integers(0, 2**62, 4))
        for arguments in [(7,), (8,), (7, "a"), (7, "b"), (7, "a", "b"), (7, "ab"), (7, 1), (7, "1")]
    ]
    assert len(set(draws)) == len(draws)


def test_streams_are_uncorrelated():
    a, b = stream(1, "a").standard_normal(20_000), stream(1, "b").standard_normal(20_000)
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(20_000)  # four standard errors


class VenueSection(Section):
    """[venue] An example."""

    secret: int = 3
    """A key, of which only digits are allowed here."""
    share: Fraction = 0.5
    """A share (0-1)."""
    size: Positive = 1.0
    cost: NonNegative = 0.0
    workers: Count = 1


def test_a_section_is_frozen_and_refuses_keys_it_does_not_know():
    section = VenueSection()
    with pytest.raises(ValidationError, match="frozen"):
        section.share = 0.1
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        VenueSection(sahre=0.1)  # type: ignore[call-arg]


def test_a_mistyped_secret_is_not_printed():
    with pytest.raises(ValidationError) as caught:
        VenueSection(secret="hunter2")  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)
    assert "secret" in str(caught.value)  # but where it went wrong is


def test_attribute_docstrings_describe_the_fields():
    fields = VenueSection.model_fields
    assert fields["share"].description == "A share (0-1)."


@pytest.mark.parametrize(
    "bad",
    [
        {"share": 1.1},
        {"share": -0.1},
        {"share": float("nan")},
        {"size": 0.0},
        {"size": float("inf")},
        {"cost": -1e-9},
        {"workers": 0},
        {"workers": 1.5},
    ],
)
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(ValidationError):
        VenueSection(**bad)


def test_what_to_do_is_in_the_traceback_too():
    assert errors.ConfigError("a is wrong", hint="set it to b").__notes__ == ["→ set it to b"]
    assert not hasattr(errors.ConfigError("a is wrong"), "__notes__")
