"""Labelled sets, their split, their scores, and the head that is trained on them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError, DataError, DataMissingError, ModelError
from cryptoalpha.core.time import iso, parse_time
from cryptoalpha.lifecycle.recipes.forecaster_sentiment import Labelled, lines, teach_sentiment
from cryptoalpha.lifecycle.recipes.sentiment import HEAD_FIT, train_sentiment
from cryptoalpha.lifecycle.recipes.sentiment_judging import call_by_rule, call_by_shares, commonest, macro_f1, score_all
from cryptoalpha.lifecycle.recipes.sentiment_sets import labelled_set, normalised, read_labelled, require_disjoint, split_of
from cryptoalpha.nets.config import EvoformerConfig, HeadsConfig
from cryptoalpha.signals.config import ForecastConfig, NewsConfig, TextConfig
from cryptoalpha.signals.forecast.model import ForecastDesign
from cryptoalpha.signals.text import EncoderId, SentimentModel
from cryptoalpha.signals.text.lexicon_encoder import LexiconEncoder
from cryptoalpha.store.home import Home

GOOD = ["surges", "rallies", "soars", "gains", "recovers", "jumps"]
BAD = ["plunges", "crashes", "tumbles", "sinks", "collapses", "slumps"]
FLAT = ["pauses", "waits", "stands", "rests", "sleeps", "sits"]


def planted(kinds: dict[str, list[str]], count: int = 60) -> tuple[list[str], list[str]]:
    """Texts whose verb decides the label, with as many different subjects."""

    def subject(i: int) -> str:
        return f"asset number {'abcdefghij'[i % 10] * (1 + i // 10)}"

    rows = [(f"{subject(i)} {verbs[i % 6]}", label) for label, verbs in kinds.items() for i in range(count)]
    return [text for text, _ in rows], [label for _, label in rows]


def three(name: str = "three", count: int = 150):
    return labelled_set(name, *planted({"negative": BAD, "neutral": FLAT, "positive": GOOD}, count))


def two(name: str = "two", count: int = 150):
    return labelled_set(name, *planted({"bullish": GOOD, "bearish": BAD}, count))


def naive_macro_f1(truth, called, classes):
    scores = []
    for k in range(classes):
        hit = sum(t == k == c for t, c in zip(truth, called, strict=True))
        precision = hit / max(1, sum(c == k for c in called))
        recall = hit / max(1, sum(t == k for t in truth))
        scores.append(2 * precision * recall / (precision + recall) if hit else 0.0)
    return sum(scores) / classes


@settings(max_examples=50)
@given(data=st.data(), classes=st.integers(2, 5), count=st.integers(1, 40))
def test_macro_f1_is_the_mean_of_harmonic_means(data, classes, count):
    labels = st.lists(st.integers(0, classes - 1), min_size=count, max_size=count)
    truth, called = data.draw(labels), data.draw(labels)
    assert macro_f1(np.array(truth), np.array(called), classes) == pytest.approx(naive_macro_f1(truth, called, classes))


def test_macro_f1_by_hand():
    # class 0: 2 of 3 called, all true: 2·2/(3+2) = .8; class 1: 1 of 1 called, 1 of 2 true: 2·1/(1+2) = ⅔
    assert macro_f1(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), 2) == pytest.approx((0.8 + 2 / 3) / 2)


def test_the_split_is_of_the_words_alone_and_has_its_golden_values():
    texts = ["Bitcoin rises", "Bitcoin falls", "Ether waits", "SEC sues", "Miners sell"]
    assert [split_of(text) for text in texts] == GOLDEN_SPLIT
    assert all(split_of(f"  {text.upper()}!! ") == split_of(text) for text in texts)
    shares = np.bincount([split_of(f"text number {i}") for i in range(5_000)]) / 5_000
    np.testing.assert_allclose(shares, [0.70, 0.15, 0.15], atol=0.02)


GOLDEN_SPLIT = [1, 1, 0, 0, 2]


def test_repeats_by_words_are_left_out_and_the_first_label_stays():
    texts, labels = planted({"bullish": GOOD, "bearish": BAD})
    one = labelled_set("x", [*texts, texts[0].upper() + "!", "  "], [*labels, "bearish", "bullish"])
    assert len(one.texts) == len(texts) == len({normalised(text) for text in one.texts})
    assert one.repeats == 1
    assert one.classes[one.label[0]] == "bullish"


def test_the_order_of_the_rows_does_not_move_a_text_to_another_split():
    texts, labels = planted({"bullish": GOOD, "bearish": BAD})
    there = dict(zip(labelled_set("x", texts, labels).texts, labelled_set("x", texts, labels).split.tolist(), strict=True))
    back = labelled_set("y", texts[::-1], labels[::-1])
    assert dict(zip(back.texts, back.split.tolist(), strict=True)) == there


def test_no_text_stands_in_two_splits_and_the_check_would_find_one():
    one, other = three(), two()
    require_disjoint([one, other])  # they share texts, and so their splits
    assert set(map(normalised, one.texts)) & set(map(normalised, other.texts))
    moved = replace(other, split=(other.split + 1) % 3)
    with pytest.raises(DataError, match="a leak"):
        require_disjoint([one, moved])


def test_labels_give_the_grades_they_may_be():
    assert three().classes == ("negative", "neutral", "positive")
    assert three().grades.astype(int).tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert two().grades.astype(int).tolist() == [[1, 1, 0, 0, 0], [0, 0, 0, 1, 1]]
    texts, scores = planted({"-1.0": BAD[:1] * 6, "-0.5": BAD[1:2] * 6, "0.0": FLAT, "0.5": GOOD[:1] * 6, "1.0": GOOD[1:2] * 6})
    five = labelled_set("five", texts, [float(score) for score in scores])
    assert five.classes == ("very negative", "negative", "neutral", "positive", "very positive")
    assert (five.grades == np.eye(5, dtype=bool)).all()


def test_bad_sets_are_refused():
    texts, labels = planted({"bullish": GOOD, "bearish": BAD})
    with pytest.raises(ModelError, match="says no side"):
        labelled_set("x", texts, ["joy" if label == "bullish" else "anger" for label in labels])
    with pytest.raises(DataError, match="mean the same"):
        labelled_set("x", [*texts, "one more"], [*labels, "positive"])
    with pytest.raises(DataError, match="score"):
        labelled_set("x", texts, [0.3] * len(texts))
    with pytest.raises(DataError, match="not every class"):
        labelled_set("x", texts[:1] + texts[-1:], labels[:1] + labels[-1:])


def test_rules_call_the_nearest_grade_and_ties_go_to_the_commoner_class():
    tone = np.array([-0.9, -0.2, -0.02, 0.0, 0.05, 0.7])
    assert call_by_rule(three(), tone, cut=0.05).tolist() == [0, 0, 1, 1, 2, 2]
    binary = call_by_rule(two(), tone, cut=0.05)
    assert binary[[0, 1, 2, 4, 5]].tolist() == [0, 0, 0, 1, 1]
    assert binary[3] == commonest(two())


def test_shares_are_summed_over_the_grades_of_a_class():
    shares = np.array([[0.3, 0.0, 0.4, 0.15, 0.15], [0.0, 0.1, 0.45, 0.2, 0.25]])
    assert call_by_shares(three(), shares).tolist() == [1, 1]
    assert call_by_shares(two(), shares).tolist() == [0, 1]  # .3 each: the first; nobody could say neutral


def test_intervals_hold_the_estimate_and_differences_are_paired():
    one = three(count=200)
    rows = one.rows(2)
    truth = one.label[rows]
    wrong = np.where(np.arange(len(rows)) % 3 == 0, (truth + 1) % 3, truth)
    found = {each.model: each for each in score_all(one, rows, {"VADER": wrong, "same": wrong.copy(), "right": truth}, seed=0)}
    assert found["VADER"].over_vader is None
    assert found["same"].over_vader == (0.0, 0.0, 0.0)
    assert found["right"].macro_f1 == found["right"].low == found["right"].high == 1.0
    estimate, low, high = found["right"].over_vader
    assert low < estimate < high
    assert estimate == pytest.approx(1.0 - found["VADER"].macro_f1)
    assert found["VADER"].low < found["VADER"].macro_f1 < found["VADER"].high
    assert score_all(one, rows, {"VADER": wrong}, seed=0) == score_all(one, rows, {"VADER": wrong}, seed=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentiment")
    told: list[tuple[int, int, str]] = []
    fit = HEAD_FIT.model_copy(update={"epochs": 10})
    result = train_sentiment(
        [three(), two()], TextConfig(), folder / "head", fit_config=fit, home=Home(folder), tell=lambda *said: told.append(said)
    )
    return result, told


def test_a_planted_rule_is_learned_and_called_on_texts_never_seen(trained):
    result, _ = trained
    for name in ("three", "two"):
        scores = {scored.model: scored for scored in result.scores[name]}
        assert scores["lexicon + head"].macro_f1 > 0.9 > scores["commonest class"].macro_f1 + 0.3
    assert result.head == "lexicon + head"


def test_the_kept_head_is_the_judged_one_and_knows_where_it_comes_from(trained):
    result, told = trained
    kept = SentimentModel.load(result.out)
    assert kept.digest == result.model.digest
    assert kept.lineage["taught_by"] == ["three", "two"]
    assert kept.lineage["sets"]["two"]["fingerprint"] == two().fingerprint()
    assert kept.lineage["test"]["two"][-1]["model"] == "lexicon + head"
    assert kept.encoder == EncoderId("lexicon", result.model.encoder.revision, 384)
    assert told[-1][0] <= told[-1][1]
    assert {what for _, _, what in told} == {"reading texts (lexicon)", "training a head (lexicon)"}
    assert json.loads(json.dumps(result.as_dict()))["head"] == "lexicon + head"
    assert any("macro-F1" in line for line in result.lines())


def test_the_same_seed_gives_the_same_head(trained, tmp_path):
    result, _ = trained
    fit = HEAD_FIT.model_copy(update={"epochs": 10})
    again = train_sentiment([three(), two()], TextConfig(), tmp_path / "h", fit_config=fit, home=Home(tmp_path))
    assert again.model.digest == result.model.digest


def test_labels_that_a_rule_made_teach_nothing_and_are_not_counted(tmp_path):
    made = three("crypto_headlines_scored")
    assert made.made_by == "VADER"
    with pytest.raises(DataError, match="labelled by people"):
        train_sentiment([made], TextConfig(), tmp_path / "h", home=Home(tmp_path))
    result = train_sentiment(
        [made, two()], TextConfig(), tmp_path / "h", fit_config=HEAD_FIT.model_copy(update={"epochs": 1}), home=Home(tmp_path)
    )
    assert result.model.lineage["taught_by"] == ["two"]
    assert any("VADER's own answers" in note for note in result.notes())


def test_files_are_read_by_their_columns_and_parts_of_one_set_joined(tmp_path):
    texts, labels = planted({"bullish": GOOD, "bearish": BAD})
    half = len(texts) // 2
    for part, rows in (("train", slice(0, half)), ("val", slice(half, None))):
        lines = [f'"{text}",{label}' for text, label in zip(texts[rows], labels[rows], strict=True)]
        (tmp_path / f"mine_{part}.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    (one,), files = read_labelled(tmp_path)
    assert (one.name, len(one.texts)) == ("mine", len(texts))
    assert one.fingerprint() == labelled_set("mine", texts, labels).fingerprint()
    assert sorted(files) == ["mine_train.csv", "mine_val.csv"]
    with pytest.raises(DataMissingError):
        read_labelled(tmp_path / "nothing")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match="columns"):
        read_labelled(tmp_path)


def test_dates_are_read_and_texts_of_the_test_period_named(tmp_path):
    texts, labels = planted({"bullish": GOOD, "bearish": BAD})
    days = ["2020-02-03 04:05:06", "2021-06-07", "", "soon"]
    rows = [f'"{text}",{label},{days[i % 4]}' for i, (text, label) in enumerate(zip(texts, labels, strict=True))]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label,date", *rows]), encoding="utf-8")
    newest = parse_time("2021-06-07")
    labelled = Labelled.read(tmp_path)
    assert [one.newest for one in labelled.sets] == [newest]
    assert labelled.sets[0].fingerprint() == labelled_set("mine", texts, labels).fingerprint()
    encoder = LexiconEncoder()
    design = ForecastDesign(EvoformerConfig(), HeadsConfig(), ForecastConfig(), NewsConfig(), 1, EncoderId.of(encoder), sentiment=True)
    for since, named in ((newest, ["mine"]), (newest + 1, [])):
        lineage = teach_sentiment(labelled, design, encoder, test_since=since, seed=0)[1]
        assert (lineage["after_test_since"], lineage["without_dates"]) == (named, [])
        assert any("texts of the test period taught" in line for line in lines(lineage)) == bool(named)
    with pytest.raises(ConfigError, match="sentiment_classes is 3"):
        teach_sentiment(labelled, replace(design, heads=HeadsConfig(sentiment_classes=3)), encoder, test_since=0, seed=0)


def test_the_real_sets_are_split_without_a_leak_and_one_of_them_is_vaders(market_data):
    vader_sentiment = pytest.importorskip("vaderSentiment.vaderSentiment")
    sets, _ = read_labelled(market_data / "text_labelled")
    require_disjoint(sets)
    by_name = {one.name: one for one in sets}
    assert {name: one.newest and iso(one.newest)[:4] for name, one in by_name.items()} == {
        "crypto_headlines_scored": None, "financial_phrasebank": None, "stockemotions": "2020"
    }  # fmt: skip
    assert {name: len(one.texts) for name, one in by_name.items()} == {
        "crypto_headlines_scored": 8892, "financial_phrasebank": 3862, "stockemotions": 8998
    }  # fmt: skip
    scored, analyser = by_name["crypto_headlines_scored"], vader_sentiment.SentimentIntensityAnalyzer()
    for text, label in list(zip(scored.texts, scored.label.tolist(), strict=True))[::10]:
        compound = analyser.polarity_scores(text)["compound"]
        assert scored.polarity[label] == np.sign(compound) * (1.0 if abs(compound) > 0.5 else 0.5)
