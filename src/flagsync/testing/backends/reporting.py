"""The state of the store, and who sends."""

# ruff: noqa: D102, S101, PLR2004 - it consists of tests, whose names say what they are for

from flagsync._clock import monotonic
from flagsync._outbox.backend import Totals
from flagsync._outbox.contract import Destination
from flagsync.testing.backends.support import (
    BEGAN,
    HERE,
    THERE,
    WAIT_SECONDS,
    Connect,
    claim,
    deliver,
    own_totals,
    reading,
    settle,
    store,
)


class ReportingContract:
    """What ``status``, ``totals`` and the lease of a ``Backend`` say."""

    # Status and totals

    def test_status_changes_nothing(self, connect: Connect) -> None:
        one, other = connect(), connect()
        assert one.status([HERE])[:4] == other.status([THERE])[:4]
        store(one, "ann=1", "bob=1")
        before = claim(one), one.totals().every
        seen = [backend.status([HERE]) for backend in (one, other) * 2]
        assert [reading(status) for status in seen[:2]] == [reading(status) for status in seen[2:]]
        assert (claim(one), one.totals().every) == before
        assert other.try_acquire_lease() is False

    def test_status_has_what_became_of_own_messages(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=1", "bob=1")
        store(other, "cid=1")
        ann, bob, _ = claim(one)
        settle(one, accepted=[ann], rejected=[bob])
        assert (own_totals(one), own_totals(other)) == (
            Totals(accepted=2, delivered=1, rejected=1),
            Totals(accepted=1),
        )
        assert own_totals(connect()) == Totals()

    def test_status_counts_what_waits_for_all_destinations(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=1")
        store(other, "bob=1", "cid=1", destination=THERE)
        assert [backend.status([]).pending for backend in (one, other)] == [3, 3]
        assert (own_totals(one).pending, own_totals(other).pending) == (1, 2)

    def test_status_says_how_long_the_first_message_has_waited(self, connect: Connect) -> None:
        backend = connect()
        assert backend.status([HERE]).oldest_seconds == 0.0
        store(backend, "ann=1", second=400)
        store(backend, "bob=1", second=700, destination=THERE)
        assert 600 <= backend.status([HERE]).oldest_seconds <= monotonic() - BEGAN - 400
        assert 600 <= backend.totals().oldest_seconds <= monotonic() - BEGAN - 400
        deliver(backend, resting=[THERE])
        assert 300 <= backend.status([HERE]).oldest_seconds <= monotonic() - BEGAN - 700
        deliver(backend)
        assert backend.status([HERE]).oldest_seconds == backend.totals().oldest_seconds == 0.0

    def test_unchanged_message_makes_the_first_message_wait_no_shorter(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", second=100)
        store(backend, "ann=1", second=900)
        assert backend.status([HERE]).oldest_seconds >= 900

    def test_status_has_the_first_version_of_the_destinations_asked_for(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1")
        store(backend, "bob=1", destination=THERE)
        [ann], [bob] = claim(backend, resting=[THERE]), claim(backend, resting=[HERE])
        asked: tuple[list[Destination], ...] = (
            [],
            [HERE],
            [THERE],
            [THERE, HERE],
            [Destination("https://unknown.invalid")],
        )
        firsts = [backend.status(destinations).first_version for destinations in asked]
        assert firsts == [None, ann.version, bob.version, ann.version, None]
        settle(backend, accepted=[bob])
        assert [backend.status(where).first_version for where in ([HERE], [THERE])] == [ann.version, None]

    def test_status_has_a_last_version_that_no_later_message_is_below(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1")
        status = backend.status([HERE])
        assert status.first_version is not None
        assert status.first_version < status.last_version
        store(backend, "ann=2", "cid=1", second=2)
        assert all(message.version > status.last_version for message in claim(backend)[1:])
        store(backend, "ann=2", second=3)
        assert backend.status([HERE]).last_version == claim(backend)[-1].version

    def test_status_has_the_number_of_the_store(self, connect: Connect) -> None:
        one, other, elsewhere = connect(), connect(), connect("elsewhere")
        store(one, "ann=1")
        numbers = [backend.status([]).store for backend in (one, other, elsewhere)]
        assert numbers[0] == numbers[1] != numbers[2]
        assert 0 not in numbers
        one.close()
        assert one.status([]).store == numbers[0]

    def test_status_of_the_sending_process_is_not_silent(self, connect: Connect) -> None:
        one, other = connect(), connect()
        assert [backend.status([]).silent_seconds for backend in (one, other)] == [0.0, 0.0]
        assert one.try_acquire_lease()
        assert one.status([]).silent_seconds == 0.0
        assert 0.0 <= other.status([]).silent_seconds < WAIT_SECONDS

    def test_totals_count_the_messages_of_all_processes(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=1", "bob=1")
        store(other, "ann=1", "bob=2", "cid=1", second=2)
        ann, bob, _ = claim(one)
        settle(one, accepted=[ann], rejected=[bob])
        expected = Totals(accepted=5, delivered=1, unchanged=1, superseded=1, rejected=1)
        other.close()
        assert [backend.totals().every for backend in (one, other, connect())] == [expected] * 3

    # Properties

    def test_absences_are_kept_for_all_processes(self, connect: Connect) -> None:
        one, other = connect(), connect()
        assert one.note_absences(HERE, {}) == {}
        assert one.note_absences(HERE, {"[1]": 0.0, "[2]": 0.0}) == {"[1]": 0.0, "[2]": 0.0}
        assert other.note_absences(HERE, {"[2]": 1.8e9 + 0.25}) == {"[1]": 0.0, "[2]": 1.8e9 + 0.25}
        one.close()
        assert (
            one.note_absences(HERE, {"[2]": 0.0}) == other.note_absences(HERE, {}) == {"[1]": 0.0, "[2]": 0.0}
        )

    def test_absences_of_two_destinations_or_stores_do_not_mix(self, connect: Connect) -> None:
        backend = connect()
        backend.note_absences(HERE, {"[1]": 5.0})
        assert backend.note_absences(THERE, {"[1]": 6.0, "[3]": 0.0}) == {"[1]": 6.0, "[3]": 0.0}
        assert backend.note_absences(HERE, {}) == {"[1]": 5.0}
        assert connect("elsewhere").note_absences(HERE, {}) == {}

    # The lease

    def test_lease_is_held_by_one_process_at_a_time(self, connect: Connect) -> None:
        one, other = connect(), connect()
        assert one.try_acquire_lease()
        assert one.try_acquire_lease()
        assert not other.try_acquire_lease()
        store(other, "ann=1")
        assert deliver(one) == ["ann=1"]
        assert not other.try_acquire_lease()

    def test_lease_is_released_when_a_backend_is_closed(self, connect: Connect) -> None:
        one, other = connect(), connect()
        assert one.try_acquire_lease()
        one.close()
        one.close()
        assert other.try_acquire_lease()
        one.close()
        assert not one.try_acquire_lease()

    def test_leases_of_two_stores_are_two(self, connect: Connect) -> None:
        assert connect().try_acquire_lease()
        assert connect("elsewhere").try_acquire_lease()

    def test_close_loses_nothing_and_can_be_followed_by_more(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1")
        backend.close()
        backend.close()
        store(backend, "bob=1")
        assert deliver(backend) == ["ann=1", "bob=1"]
        assert own_totals(backend) == Totals(accepted=2, delivered=2)
