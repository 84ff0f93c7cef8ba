"""Who is dead is judged by each observer with its own eyes and its own clock."""

from billing_engine.consultations.liveness import Liveness
from billing_engine.consultations.ports import Lease

LEASE_MS = 1_200
BEAT_MS = 200


def lease(owner: str = "a", beat: int = 1, role: str = "web") -> Lease:
    return Lease(owner, beat, role)


def watching(owner: str = "me") -> Liveness:
    return Liveness(owner, lease_ms=LEASE_MS)


def watch(liveness: Liveness, leases: list[Lease], *, from_ms: int, to_ms: int) -> None:
    for now_ms in range(from_ms, to_ms + 1, BEAT_MS):
        liveness.look(leases, now_ms)


def test_a_lease_that_does_not_move_for_its_time_is_stale_and_not_a_moment_sooner() -> None:
    liveness = watching()
    watch(liveness, [lease()], from_ms=0, to_ms=LEASE_MS - BEAT_MS)
    assert liveness.dead() == []
    assert liveness.alive() == {"a"}
    liveness.look([lease()], LEASE_MS)
    assert liveness.dead() == [lease()]
    assert liveness.alive() == frozenset()


def test_a_beat_is_life_whatever_its_number() -> None:
    """A process that starts again, or whose document was written anew, may count from one."""
    liveness = watching()
    for k, beat in enumerate([7, 8, 1, 2, 1, 2, 1]):
        liveness.look([lease(beat=beat)], k * LEASE_MS // 2)
    assert liveness.dead() == []


def test_who_comes_back_after_being_taken_for_dead_is_alive() -> None:
    liveness = watching()
    watch(liveness, [lease()], from_ms=0, to_ms=LEASE_MS)
    assert liveness.dead()
    liveness.look([lease(beat=2)], LEASE_MS + BEAT_MS)
    assert liveness.dead() == []
    assert liveness.alive() == {"a"}


def test_one_who_stood_still_himself_has_not_watched_meanwhile() -> None:
    """A frozen process that wakes sees every lease as it left it: the others must have the time to beat, or it would rob them all."""
    liveness = watching()
    liveness.look([lease()], 0)
    liveness.look([lease()], 60_000)
    watch(liveness, [lease()], from_ms=60_000, to_ms=60_000 + LEASE_MS * 2 // 3 - BEAT_MS)
    assert liveness.dead() == []
    liveness.look([lease()], 60_000 + LEASE_MS * 2 // 3)
    assert liveness.dead() == [lease()]


def test_one_who_is_slow_comes_to_know_it_all_the_same() -> None:
    """On a machine that is overloaded each look takes its time; the dead's sessions must not wait until it is idle."""
    liveness = watching()
    for now_ms in (0, 1_500, 3_000):
        liveness.look([lease()], now_ms)
    assert liveness.dead() == []
    liveness.look([lease()], 4_500)
    assert liveness.dead() == [lease()]


def test_who_gives_up_his_lease_is_gone_at_once() -> None:
    liveness = watching()
    liveness.look([lease(), lease("b")], 0)
    liveness.look([lease("b")], BEAT_MS)
    assert liveness.dead() == [lease()]
    assert liveness.alive() == {"b"}


def test_the_dead_stay_on_the_list_until_they_are_buried() -> None:
    liveness = watching()
    liveness.look([lease()], 0)
    watch(liveness, [], from_ms=BEAT_MS, to_ms=5 * BEAT_MS)
    assert liveness.dead() == [lease()]
    liveness.buried("a")
    liveness.look([], 6 * BEAT_MS)
    assert liveness.dead() == []


def test_nobody_watches_himself() -> None:
    liveness = watching()
    watch(liveness, [lease("me")], from_ms=0, to_ms=3 * LEASE_MS)
    assert liveness.dead() == []
    assert liveness.alive() == frozenset()


def test_roles_are_told_apart() -> None:
    liveness = watching()
    liveness.look([lease("a"), lease("w", role="worker")], 0)
    assert liveness.alive() == {"a", "w"}
    assert liveness.alive(role="web") == {"a"}
