"""What `billing_engine.credits` stores: applications, projects and the log of prices."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Final

from billing_engine.credits.model import (
    LEFT_FOR,
    Application,
    ApplicationStatus,
    Project,
    ProjectStatus,
)
from billing_engine.credits.pricing import PriceChange
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

APPLICATIONS: Final = CollectionSpec(
    name="applications",
    text=("user_id", "project_id", "status"),
    integer=("created_at_ms", "attempt"),
    boolean=("is_open",),
    indexes=(
        ("user_id", "created_at_ms"),
        ("user_id", "project_id", "attempt"),
        ("project_id", "status", "created_at_ms"),
        ("is_open", "created_at_ms"),
    ),
)
PROJECTS: Final = CollectionSpec(
    name="projects",
    text=("company_id", "status"),
    integer=("created_at_ms",),
    boolean=("is_closing",),
    indexes=(("company_id", "created_at_ms"), ("status", "created_at_ms"), ("is_closing",)),
)
PRICES: Final = CollectionSpec(name="credit_prices")
_APPLICATION: Final = tuple(field.name for field in fields(Application) if field.name != "id")
_PROJECT: Final = tuple(field.name for field in fields(Project) if field.name != "id")
_PRICE: Final = tuple(field.name for field in fields(PriceChange))
_PAGE: Final = 500
#: Those that took a credit.
_TOOK: Final = [ApplicationStatus.ACTIVE.value, ApplicationStatus.WITHDRAWN.value]


class CollectionApplications:
    """One document an application; its status only goes on."""

    def __init__(self, collection: Collection) -> None:
        self._applications = collection

    @classmethod
    async def open_in(cls, collections: Collections) -> "CollectionApplications":
        return cls(await collections.open(APPLICATIONS))

    async def add(self, application: Application) -> bool:
        try:
            await self._applications.insert({"_id": application.id, **_application_facts(application)})
        except DuplicateId:
            return False
        return True

    async def get(self, application_id: str) -> Application | None:
        doc = await self._applications.get(application_id)
        return None if doc is None else application_of(doc)

    async def latest(self, user_id: str, project_id: str) -> Application | None:
        found = await self._applications.find(
            {"user_id": user_id, "project_id": project_id}, sort=(("attempt", "desc"),), limit=1
        )
        return application_of(found[0]) if found else None

    async def settle(self, application: Application) -> None:
        left = sorted(status.value for status in LEFT_FOR[application.status])
        await self._applications.update(
            application.id, where={"status": {"in": left}}, set_=_application_facts(application)
        )

    async def begin_return(self, application_id: str) -> None:
        where = {"status": ApplicationStatus.ACTIVE.value}
        await self._applications.update(application_id, where=where, set_={"is_open": True})

    async def end_return(self, application_id: str) -> None:
        where = {"status": ApplicationStatus.ACTIVE.value}
        await self._applications.update(application_id, where=where, set_={"is_open": False})

    async def open(self, *, limit: int, after: tuple[int, str] | None) -> list[Application]:
        return await self._page({"is_open": True}, "asc", limit, after)

    async def pending_of(self, project_id: str) -> list[Application]:
        where = {"project_id": project_id, "status": ApplicationStatus.PENDING.value}
        found: list[Application] = []
        after: tuple[int, str] | None = None
        while True:
            page = await self._page(where, "asc", _PAGE, after)
            found += page
            if len(page) < _PAGE:
                return found
            after = page[-1].created_at_ms, page[-1].id

    async def list_for(
        self, user_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> list[Application]:
        return await self._page({"user_id": user_id, "status": {"in": _TOOK}}, "desc", limit, before)

    async def of_project(
        self, project_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> list[Application]:
        where = {"project_id": project_id, "status": ApplicationStatus.ACTIVE.value}
        return await self._page(where, "desc", limit, before)

    async def _page(
        self, where: Doc, direction: str, limit: int, after: tuple[int, str] | None
    ) -> list[Application]:
        if direction == "asc":
            page = await self._applications.find(
                where, sort=(("created_at_ms", "asc"),), limit=limit, after=after
            )
        else:
            page = await self._applications.find(
                where, sort=(("created_at_ms", "desc"),), limit=limit, after=after
            )
        return [application_of(doc) for doc in page]


class CollectionProjects:
    """One document a project, closed once."""

    def __init__(self, collection: Collection) -> None:
        self._projects = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionProjects":
        return cls(await collections.open(PROJECTS))

    async def add(self, project: Project) -> None:
        facts = {name: getattr(project, name) for name in _PROJECT}
        with suppress(DuplicateId):
            await self._projects.insert({"_id": project.id, **facts, "status": project.status.value})

    async def get(self, project_id: str) -> Project | None:
        doc = await self._projects.get(project_id)
        return None if doc is None else project_of(doc)

    async def get_many(self, project_ids: Sequence[str]) -> dict[str, Project]:
        found = await self._projects.get_many(project_ids)
        return {id_: project_of(doc) for id_, doc in found.items()}

    async def close(self, project_id: str, *, at_ms: int) -> None:
        await self._projects.update(
            project_id,
            where={"status": ProjectStatus.OPEN.value},
            set_={"status": ProjectStatus.CLOSED.value, "closed_at_ms": at_ms, "is_closing": True},
        )

    async def closed(self, project_id: str) -> None:
        await self._projects.update(project_id, set_={"is_closing": False})

    async def closing(self, *, limit: int) -> list[Project]:
        return [project_of(doc) for doc in await self._projects.find({"is_closing": True}, limit=limit)]

    async def list_open(self, *, limit: int, before: tuple[int, str] | None) -> list[Project]:
        return await self._newest({"status": ProjectStatus.OPEN.value}, limit, before)

    async def list_of(self, company_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Project]:
        return await self._newest({"company_id": company_id}, limit, before)

    async def _newest(self, where: Doc, limit: int, before: tuple[int, str] | None) -> list[Project]:
        page = await self._projects.find(where, sort=(("created_at_ms", "desc"),), limit=limit, after=before)
        return [project_of(doc) for doc in page]


class CollectionPriceLog:
    """One document a change, named by its number: two admins cannot both make the same one."""

    def __init__(self, collection: Collection) -> None:
        self._changes = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionPriceLog":
        return cls(await collections.open(PRICES))

    async def latest(self) -> PriceChange | None:
        found = await self.newest(limit=1)
        return found[0] if found else None

    async def add(self, change: PriceChange) -> bool:
        facts = {name: getattr(change, name) for name in _PRICE}
        try:
            # As wide as the largest number, so that ids sort as numbers do.
            await self._changes.insert({"_id": f"{change.number:012d}", **facts})
        except DuplicateId:
            return False
        return True

    async def newest(self, *, limit: int) -> list[PriceChange]:
        found = await self._changes.find({}, sort=(("_id", "desc"),), limit=limit)
        return [PriceChange(**{name: doc[name] for name in _PRICE}) for doc in found]


def _application_facts(application: Application) -> Doc:
    facts = {name: getattr(application, name) for name in _APPLICATION}
    return facts | {"status": application.status.value}


def application_of(doc: Doc) -> Application:
    """The stored document as the domain knows it."""
    facts = {name: doc[name] for name in _APPLICATION}
    return Application(id=doc["_id"], **facts | {"status": ApplicationStatus(doc["status"])})


def project_of(doc: Doc) -> Project:
    """The stored document as the domain knows it."""
    facts = {name: doc[name] for name in _PROJECT}
    return Project(id=doc["_id"], **facts | {"status": ProjectStatus(doc["status"])})
