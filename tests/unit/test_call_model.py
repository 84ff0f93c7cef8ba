"""What a call is: its states, who is in it, and the credentials of its ways."""

import base64
from dataclasses import replace

import pytest

from chat.calls import model
from chat.calls.errors import AnsweredElsewhere, CallNotFound, CallOver, CallRunning, NotBound, OwnCall
from chat.calls.handlers import CallHandlers
from chat.calls.ice import SLACK_S, IceRules, credential, ice_config, ttl_of
from chat.calls.model import AUDIO, VIDEO, Call, CallState, Device, EndedBy, Signal
from chat.events import CLIENT_EVENTS

NOW = 1_000_000
HERS = Device("user", "u1", "sid-u1")
HERS_TOO = Device("user", "u2", "sid-u2")
HIS = Device("lawyer", "l1", "sid-l1")
HIS_TOO = Device("lawyer", "l2", "sid-l2")


def ring(device: Device = HERS, last: Call | None = None, *, media: str = AUDIO, now_ms: int = NOW) -> Call:
    peer_id = "lawyer" if device.person_id == "user" else "user"
    return model.invite(
        last,
        device,
        session_id="s",
        call_id="c",
        peer_id=peer_id,
        first_id="user",
        media=media,
        now_ms=now_ms,
    )


def test_a_call_rings_is_answered_and_ends() -> None:
    ringing = ring()
    talking = model.accept(ringing, HIS, now_ms=NOW + 5)
    over = model.hang_up(talking, "lawyer", now_ms=NOW + 9)

    assert (ringing.state, ringing.callee, ringing.expires_at_ms) == (CallState.RINGING, None, NOW + 45_000)
    assert (talking.state, talking.callee, talking.answered_at_ms) == (CallState.CONNECTED, HIS, NOW + 5)
    assert (over.state, over.reason, over.ended_at_ms) == (CallState.ENDED, EndedBy.HUNG_UP, NOW + 9)
    assert [ringing.revision, talking.revision, over.revision] == [1, 2, 3]
    assert ring(HIS, over).revision == 4, "the next call is another one on the same document"


@pytest.mark.parametrize(
    ("person", "ends", "reason"),
    [
        ("user", model.hang_up, EndedBy.CANCELLED),
        ("lawyer", model.hang_up, EndedBy.REJECTED),
        ("lawyer", model.reject, EndedBy.REJECTED),
    ],
)
def test_how_a_ringing_call_ends_says_who_wanted_so(person: str, ends: object, reason: EndedBy) -> None:
    over = ends(ring(), person, now_ms=NOW)  # type: ignore[operator]

    assert (over.state, over.reason) == (CallState.ENDED, reason)


def test_the_first_end_stands() -> None:
    over = model.reject(ring(), "lawyer", now_ms=NOW)

    assert model.hang_up(over, "user", now_ms=NOW + 1) is over
    assert model.reject(over, "user", now_ms=NOW + 1) is over
    assert model.ended(over, EndedBy.SESSION_ENDED, now_ms=NOW + 1) is over
    with pytest.raises(CallOver):
        model.accept(over, HIS, now_ms=NOW + 1)


def test_one_device_answers_and_may_say_so_again() -> None:
    talking = model.accept(ring(), HIS, now_ms=NOW)

    assert model.accept(talking, HIS, now_ms=NOW) is talking
    moved = model.accept(talking, replace(HIS, sid="new"), now_ms=NOW)
    assert (moved.callee, moved.revision) == (replace(HIS, sid="new"), talking.revision + 1)
    with pytest.raises(AnsweredElsewhere):
        model.accept(talking, HIS_TOO, now_ms=NOW)
    with pytest.raises(AnsweredElsewhere):
        model.reject(talking, "lawyer", now_ms=NOW)


def test_nobody_answers_their_own_call() -> None:
    with pytest.raises(OwnCall):
        model.accept(ring(), HERS_TOO, now_ms=NOW)
    with pytest.raises(OwnCall):
        model.reject(ring(), "user", now_ms=NOW)


def test_a_call_rings_until_its_instant_and_not_at_it() -> None:
    assert model.accept(ring(), HIS, now_ms=NOW + 44_999).state is CallState.CONNECTED
    with pytest.raises(CallOver):
        model.accept(ring(), HIS, now_ms=NOW + 45_000)
    assert not model.accept(ring(), HIS, now_ms=NOW).has_expired(NOW + 100_000), (
        "a running call does not expire"
    )


def test_a_device_that_asks_again_gets_its_call_and_another_one_does_not() -> None:
    ringing = ring()
    assert ring(HERS, ringing) is ringing
    with pytest.raises(CallRunning):
        ring(HERS_TOO, ringing)
    talking = model.accept(ringing, HIS, now_ms=NOW)
    assert ring(HERS, talking) is talking
    assert ring(HIS, talking) is talking
    for device in (HERS_TOO, HIS_TOO):
        with pytest.raises(CallRunning):
            ring(device, talking)


@pytest.mark.parametrize(("hers", "his"), [(AUDIO, AUDIO), (AUDIO, VIDEO), (VIDEO, AUDIO), (VIDEO, VIDEO)])
def test_glare_has_one_outcome_whoever_was_first(hers: str, his: str) -> None:
    user_first = ring(HIS, ring(HERS, media=hers), media=his)
    lawyer_first = ring(HERS, ring(HIS, media=his), media=hers)

    assert user_first == lawyer_first
    assert (user_first.state, user_first.caller, user_first.callee) == (CallState.CONNECTED, HERS, HIS)
    assert (user_first.callee_id, user_first.glare) == ("lawyer", True)
    assert user_first.media == (VIDEO if hers == his == VIDEO else AUDIO), (
        "nobody's camera is switched on unasked"
    )


def test_only_the_socket_of_a_device_in_the_call_speaks_for_it() -> None:
    talking = model.accept(ring(), HIS, now_ms=NOW)

    assert model.bound(talking, "user", "sid-u1") == HERS
    assert model.bound(talking, "lawyer", "sid-l1") == HIS
    for person, sid in (("user", "sid-l1"), ("lawyer", "sid-u1"), ("user", "sid-u2")):
        with pytest.raises(NotBound):
            model.bound(talking, person, sid)
    with pytest.raises(NotBound):
        model.bound(ring(), "lawyer", "sid-l1")
    with pytest.raises(CallNotFound):
        model.named(talking, "another")
    with pytest.raises(CallNotFound):
        model.named(None, "c")


def a_signal(n: int, size_bytes: int) -> Signal:
    return Signal("s", "c", "user", "u1", n, "offer", "v=0", None, NOW, size_bytes)


def test_what_is_said_again_is_bounded_and_the_newest() -> None:
    half = model.REPLAY_BYTES // 2
    signals = [a_signal(n, half) for n in (1, 2, 3)]

    assert [signal.n for signal in model.fitting(signals)] == [2, 3]
    assert model.fitting([a_signal(1, model.REPLAY_BYTES + 1)]) == []
    assert model.fitting([]) == []


def test_every_event_of_calls_has_its_handler() -> None:
    handlers = CallHandlers(None)  # type: ignore[arg-type]
    assert set(handlers.by_name) == {name for name in CLIENT_EVENTS if name.startswith("rtc:")}


# --- credentials


def test_the_credential_is_the_one_that_turn_servers_reckon() -> None:
    """RFC 2202's second vector for HMAC-SHA-1, in base64: https://www.rfc-editor.org/rfc/rfc2202#section-3"""
    vector = bytes.fromhex("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")

    assert credential("Jefe", "what do ya want for nothing?") == base64.b64encode(vector).decode()
    # And one that `printf %s '1795253400:ses:usr' | openssl dgst -sha1 -hmac north -binary | base64` gives.
    assert credential("north", "1795253400:ses:usr") == "/OvgUwPmfZWfulBve8FwfnjxlcA="


def test_a_credential_lasts_as_long_as_the_money_and_the_setting_at_most() -> None:
    rules = IceRules(ttl_s=3_600)

    assert ttl_of(rules, 95) == 95 + SLACK_S
    assert ttl_of(rules, 0) == ttl_of(rules, -5) == SLACK_S
    assert ttl_of(rules, 1_000_000) == 3_600
    assert ttl_of(rules, None) == 3_600, "what the lawyer may not know cannot be told by a credential either"


def test_each_secret_makes_a_credential_of_its_own() -> None:
    rules = IceRules(("stun:s",), ("turn:t", "turns:t"), ("old", "new"), 600, relay_only=True)

    config = ice_config(rules, session_id="ses", person_id="usr", remaining_s=None, now_ms=1_500)

    username = "601:ses:usr"
    assert config.servers == [
        {"urls": ["stun:s"], "username": None, "credential": None},
        *(
            {"urls": ["turn:t", "turns:t"], "username": username, "credential": credential(secret, username)}
            for secret in ("old", "new")
        ),
    ]
    assert (config.policy, config.ttl_s, config.expires_at_ms) == ("relay", 600, 601_000)
    assert "old" not in repr(rules)
    bare = ice_config(IceRules(), session_id="ses", person_id="usr", remaining_s=5, now_ms=0)
    assert (bare.servers, bare.policy) == ([], "all")
