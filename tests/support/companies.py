"""Companies as their owners make them: members who have chosen a password, and API keys to call with."""

from itertools import count
from typing import Final

from server.notifications.model import Kind
from tests.support.api import Api, Person
from tests.support.http import PASSWORD, Answer, Client
from tests.support.letters import Letters

_NUMBERS: Final = count(1)


async def invited(company: Client, access: str, email: str | None = None, **more: str) -> Answer:
    """The answer to an invitation."""
    email = email or f"member{next(_NUMBERS)}@example.com"
    answer = await company.post(
        "/api/company/members", {"email": email, "name": "Ravi", "access": access}, **more
    )
    assert answer.status == 201, answer.text
    return answer


def letters_of(api: Api) -> Letters:
    """What goes out from now on."""
    outbox = api.services.outbox
    if not isinstance(outbox._notifier, Letters):
        outbox._notifier = Letters()
    return outbox._notifier


async def accept(api: Api, email: str) -> Person:
    """Whoever was invited after `letters_of`, logged in with a password of their choice."""
    await api.idle()
    [letter] = [one for one in letters_of(api).of(Kind.COMPANY_INVITATION) if one.email == email]
    form = {"token": letter.facts["token"], "newPassword": PASSWORD}
    chosen = await api.anonymous.post("/auth/reset", form)
    assert chosen.status == 200, chosen.text
    return await api.log_in(email)


async def a_member(api: Api, company: Client, access: str) -> Person:
    """A member who has accepted."""
    letters_of(api)
    return await accept(api, (await invited(company, access)).json["email"])


async def a_key(company: Client, name: str, scopes: list[str]) -> Client:
    """Somebody who calls with a new key."""
    made = await company.post("/api/company/api-keys", {"name": name, "scopes": scopes})
    assert made.status == 201, made.text
    return company.with_token(made.json["key"])
