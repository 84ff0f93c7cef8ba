"""API keys and a company's record: pure rules."""

from hypothesis import given
from hypothesis import strategies as st

from billing_engine.usage.ports import CompanyTerms, ListChoice
from server.auth.model import RIGHTS_OF, CompanyRight, MemberAccess, Role
from server.companies.key_text import PREFIX, digest_of, is_key_of, key_id_of, new_key
from server.companies.model import USED_EVERY_MS, ApiKey, CompanyRecord, PriceList, Scope
from server.ids import new_id
from server.routes import ROUTES

HOUR_MS = 3_600_000


def _key(**facts):
    usual = {
        "id": "k",
        "company_id": "c",
        "name": "n",
        "scopes": (Scope.USAGE,),
        "digest": "d",
        "created_by": "c",
    }
    return ApiKey(**usual | {"created_at_ms": 0} | facts)


def test_a_key_names_itself_and_is_never_the_same_twice():
    key_id = new_id()
    keys = {new_key(key_id) for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert key_id_of(key) == key_id
        assert is_key_of(key, digest_of(key))
        # 256 bits: 43 characters of six bits each.
        assert len(key.removeprefix(f"{PREFIX}{key_id}_")) == 43


@given(st.text(max_size=120))
def test_what_is_no_key_has_no_id(text):
    assert key_id_of(text) is None


@given(st.integers(0, 78), st.characters())
def test_a_key_with_another_character_is_another_key(place, char):
    """Whoever guesses must guess all of it."""
    key = new_key(new_id())
    other = key[:place] + char + key[place + 1 :]
    assert is_key_of(other, digest_of(key)) == (other == key)


@given(st.sampled_from(["", " ", "\n", "_", "=", "A"]))
def test_what_stands_around_a_key_makes_it_none(more):
    key = new_key(new_id())
    assert (key_id_of(key + more) is None) == bool(more)
    assert (key_id_of(more + key) is None) == bool(more)


def test_no_key_and_no_viewer_manages():
    """A leaked key, or a colleague who only looks, must not be able to let others in."""
    for scopes in ((Scope.USAGE,), (Scope.READ,), tuple(Scope)):
        assert CompanyRight.MANAGE not in _key(scopes=scopes).rights
    assert RIGHTS_OF[MemberAccess.VIEWER] == {CompanyRight.READ}
    assert RIGHTS_OF[MemberAccess.MANAGER] == set(CompanyRight)


def test_only_companies_have_rights_and_admins_name_one():
    for route in ROUTES:
        if route.access.right is not None:
            assert route.access.roles in ({Role.COMPANY}, {Role.COMPANY, Role.ADMIN}), route.name


def test_a_use_is_news_once_a_minute():
    assert _key().is_used_news(0)
    used = _key(last_used_at_ms=1_000)
    assert not used.is_used_news(1_000 + USED_EVERY_MS - 1)
    assert used.is_used_news(1_000 + USED_EVERY_MS)


@given(st.lists(st.tuples(st.sampled_from(list(PriceList)), st.integers(0, HOUR_MS)), max_size=12))
def test_a_change_of_list_never_changes_what_an_earlier_usage_cost(changes):
    """Also if the clock goes back between two changes."""
    record = CompanyRecord("c", "Asia/Kolkata", (ListChoice("tokens", 0),), created_at_ms=0)
    now_ms = 0
    for wanted, at_ms in changes:
        before, now_ms = record, max(now_ms, at_ms)
        record = record.priced_by(wanted, now_ms=at_ms)
        assert record.lists[-1].list_name == wanted
        assert list(record.lists) == sorted(record.lists, key=lambda choice: choice.from_ms)
        terms = [CompanyTerms("c", "Acme", "UTC", one.lists) for one in (before, record)]
        earlier_ms = record.lists[-1].from_ms - 1
        if record is not before and earlier_ms >= 0:
            assert terms[0].list_at(earlier_ms) == terms[1].list_at(earlier_ms)


def test_the_same_list_again_changes_nothing():
    record = CompanyRecord("c", "Asia/Kolkata", (ListChoice("tokens", 0),), created_at_ms=0)
    assert record.priced_by(PriceList.TOKENS, now_ms=9) is record
