"""The embedded log against a list per partition, through any order of writing, committing and opening again."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.data.bus.config import TopicConfig
from cryptoalpha.data.bus.contract import Place, Progress
from cryptoalpha.data.bus.log import Entry, Log
from cryptoalpha.data.bus.resume import Extent, decide, marks

PLACES = [Place("t", 0), Place("t", 1), Place("u", 0)]
BATCHES = st.lists(st.tuples(st.sampled_from(PLACES), st.binary(max_size=60)), max_size=12)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), BATCHES),
        st.tuples(st.just("commit"), st.tuples(st.sampled_from(["g", "h"]), st.sampled_from(PLACES), st.integers(0, 30))),
        st.tuples(st.just("open"), st.none()),
    ),
    max_size=25,
)


def settings_of(overflow: str, records: int, megabytes: float):
    def of(topic: str) -> TopicConfig:
        return TopicConfig(partitions=2 if topic == "t" else 1, records=records, megabytes=megabytes, overflow=overflow)

    return of


@settings(max_examples=40, deadline=None)
@given(STEPS, st.sampled_from(["block", "drop_oldest"]), st.integers(1, 12), st.sampled_from([1.0, 200e-6]))
def test_a_log_holds_what_was_written_but_the_oldest(steps, overflow, records, megabytes):
    of = settings_of(overflow, records, megabytes)
    written: dict[Place, list[bytes]] = {place: [] for place in PLACES}
    progress: dict[tuple[str, Place], Progress] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.sqlite"
        log = Log(path, of)
        for step, what in steps:
            if step == "open":
                log.close()
                log = Log(path, of)
            elif step == "commit":
                group, place, following = what
                log.ensure(place.topic)
                progress[group, place] = Progress(max(min(following, len(written[place])), log.parts[place].start), 0, "x", 9)
                log.write([], {(group, place): progress[group, place]}, now=1)
            else:
                for topic in {place.topic for place, _ in what}:
                    log.ensure(topic)
                first = log.write([Entry(place, len(written[place]), data) for place, data in what])
                assert first == {place: len(written[place]) for place, _ in what}
                for place, data in what:
                    written[place].append(data)
            for place, part in log.parts.items():
                everything = written[place]
                assert part.end == len(everything)
                held = everything[part.start :]
                assert [record.data for record in log.read(place, 0, 999)] == held
                assert [record.offset for record in log.read(place, part.start + 1, 2)] == list(range(part.start + 1, part.end))[:2]
                assert part.size == sum(map(len, held))
                wanted = min((p.following for (_, at), p in progress.items() if at == place), default=part.end)
                if overflow == "block":
                    assert part.start <= wanted
                else:
                    assert part.end - part.start <= records
                    assert part.size <= megabytes * 1e6 or part.end - part.start == 1
            assert {(g, place): p for g, all_of in log.progress.items() for place, p in all_of.items()} == progress
        log.close()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=20, unique=False),
    st.integers(0, 20),
    st.integers(0, 25),
    st.lists(st.sampled_from("abcdefgh"), max_size=30),
    st.integers(0, 5),
)
def test_a_reader_goes_on_only_where_its_last_message_lies_and_else_reads_everything_that_could_be_new(ids, read, cut, regrown, overlap):
    """The log is lost at `cut` and grows again with other messages; publication times are offsets of the whole story."""
    read = min(read, len(ids))
    log = [(number, name) for number, name in enumerate(ids)][:cut]
    log += [(len(ids) + number, name) for number, name in enumerate(regrown)]
    known = [Progress(read, read - 1, ids[read - 1], read - 1)] if read else []
    extent = Extent(0, len(log))
    found = {offset: log[offset][1] for offset in marks(known, extent)}
    decision = decide(known, extent, found, start="earliest", overlap_ns=overlap)
    since = None if decision.since is None else next((at for at, (time, _) in enumerate(log) if time >= decision.since), None)
    following, regress = decision.settled(Place("t", 0), extent, since)
    assert 0 <= following <= len(log)
    unread = [time for at, (time, _) in enumerate(log) if time >= read]
    given_out = [time for time, _ in log[following:]]
    same_by_chance = read > cut and regress is None and read - 1 < len(log)  # another message under the same id: a repeat, by what ids mean
    if not same_by_chance:
        assert set(unread) <= set(given_out), "nothing unread is passed over"
    if cut >= len(ids):
        assert regress is None
        assert following == read
