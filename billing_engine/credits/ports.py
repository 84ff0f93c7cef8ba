"""What credits need from the outside, in their own words."""

from collections.abc import Sequence
from typing import Protocol

from billing_engine.credits.model import Application, Project
from billing_engine.credits.pricing import PriceChange
from billing_engine.payments.model import Payment


class Applications(Protocol):
    """The stored applications. All methods raise `Unavailable`."""

    async def add(self, application: Application) -> bool:
        """Insert; False if the id exists."""
        ...

    async def get(self, application_id: str) -> Application | None: ...

    async def latest(self, user_id: str, project_id: str) -> Application | None:
        """The person's last try for the project."""
        ...

    async def settle(self, application: Application) -> None:
        """Write how it ended, if the record has not come as far (`LEFT_FOR`)."""
        ...

    async def begin_return(self, application_id: str) -> None:
        """Remember of an ACTIVE one that its credit may be given back any moment (`is_open`)."""
        ...

    async def end_return(self, application_id: str) -> None:
        """It was not given back, and cannot be any more."""
        ...

    async def open(self, *, limit: int, after: tuple[int, str] | None) -> list[Application]:
        """Those with `is_open`, oldest first; `after` is (created_at_ms, id) of the last one of the previous page."""
        ...

    async def pending_of(self, project_id: str) -> list[Application]:
        """Those of the project that are PENDING."""
        ...

    async def list_for(
        self, user_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> list[Application]:
        """The person's that took a credit, withdrawn ones too, newest first."""
        ...

    async def of_project(
        self, project_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> list[Application]:
        """The project's ACTIVE ones, newest first."""
        ...


class Projects(Protocol):
    """The stored projects. All methods raise `Unavailable`."""

    async def add(self, project: Project) -> None:
        """Insert; harmless if the id exists."""
        ...

    async def get(self, project_id: str) -> Project | None: ...

    async def get_many(self, project_ids: Sequence[str]) -> dict[str, Project]:
        """Those that exist, by id."""
        ...

    async def close(self, project_id: str, *, at_ms: int) -> None:
        """CLOSED and `is_closing`, if it is OPEN."""
        ...

    async def closed(self, project_id: str) -> None:
        """Everybody who came too late has been turned away."""
        ...

    async def closing(self, *, limit: int) -> list[Project]:
        """Those with `is_closing`."""
        ...

    async def list_open(self, *, limit: int, before: tuple[int, str] | None) -> list[Project]:
        """The open ones, newest first."""
        ...

    async def list_of(self, company_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Project]:
        """The company's, newest first."""
        ...


class PriceLog(Protocol):
    """Every price that a credit has had; the last one counts. All methods raise `Unavailable`."""

    async def latest(self) -> PriceChange | None: ...

    async def add(self, change: PriceChange) -> bool:
        """Insert; False if there is one of this number."""
        ...

    async def newest(self, *, limit: int) -> list[PriceChange]:
        """The last ones first."""
        ...


class UnpaidOrders(Protocol):
    """How many orders of somebody wait to be paid."""

    async def unpaid(self, payer_id: str) -> int: ...


class Standing(Protocol):
    """Whether accounts are shut."""

    async def any_shut(self, person_ids: tuple[str, ...]) -> bool: ...


class PurchaseNews(Protocol):
    """Sends the receipt. On return it will be sent, once for the same payment; raises `Unavailable`."""

    async def credits_purchased(self, payment: Payment, *, credits_after: int) -> None: ...
