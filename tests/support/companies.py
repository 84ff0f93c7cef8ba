"""Companies as their owners make them: members who have chosen a password, and API keys to call with."""

from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from server.auth.model import Role
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


@dataclass(frozen=True)
class Company:
    """A company: its owner, and its back end, whose key neither expires nor manages."""

    owner: Person
    back_end: Client

    @property
    def id(self) -> str:
        return self.owner.id

    async def uses(self, type_: str, **report: Any) -> Any:
        """The answer to a usage that is taken."""
        answer = await self.back_end.post(f"/api/usage/{type_}", report)
        assert answer.status == 201, answer.text
        return answer.json

    async def recharged(self, amount: str, **more: Any) -> Any:
        answer = await self.owner.post("/api/billing/recharge", {"amount": amount, **more})
        assert answer.status == 201, answer.text
        return answer.json

    async def sees(self, path: str) -> Any:
        """`/status`, `/usage?days=7`, … of the billing page."""
        answer = await self.back_end.get(f"/api/billing{path}")
        assert answer.status == 200, answer.text
        return answer.json

    async def everything_of(self, path: str) -> list[Any]:
        """All items of a list, page by page, two a page."""
        found: list[Any] = []
        sign = "&" if "?" in path else "?"
        cursor = ""
        while True:
            answer = await self.back_end.get(f"{path}{sign}limit=2{cursor}")
            assert answer.status == 200, answer.text
            assert len(answer.json["items"]) <= 2
            found += answer.json["items"]
            if answer.json["nextCursor"] is None:
                return found
            cursor = f"&cursor={answer.json['nextCursor']}"

    async def in_zone(self, time_zone: str) -> None:
        set_ = await self.owner.call("PUT", "/api/company", json={"timeZone": time_zone})
        assert set_.status == 200, set_.text


async def a_company(api: Api, balance: str | None = None, **more: Any) -> Company:
    """A new company, with money."""
    owner = await api.register(Role.COMPANY, **more)
    company = Company(owner, await a_key(owner, "back end", ["usage", "read"]))
    # Its first use in a minute is written down: it has happened.
    await company.back_end.get("/api/company")
    if balance is not None:
        await company.recharged(balance)
    return company
