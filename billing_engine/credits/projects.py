"""A company posts projects and closes them (SPEC 8)."""

from typing import Final

from billing_engine.clock import Clock
from billing_engine.credits.applications import Applications
from billing_engine.credits.errors import ProjectNotFound
from billing_engine.credits.model import Project, ProjectStatus
from billing_engine.credits.ports import Projects as ProjectRows

_PAGE: Final = 100


class Projects:
    """The use cases of projects."""

    def __init__(self, *, rows: ProjectRows, applications: Applications, clock: Clock) -> None:
        self._rows = rows
        self._applications = applications
        self._clock = clock

    async def post(self, *, company_id: str, title: str, description: str, operation_id: str) -> Project:
        """A new open project; its id is the operation's, so that a repeat finds the first. Raises `Unavailable`."""
        project = Project(
            id=operation_id,
            company_id=company_id,
            title=title,
            description=description,
            created_at_ms=self._clock.now_ms(),
        )
        await self._rows.add(project)
        return await self._rows.get(operation_id) or project

    async def close(self, project_id: str, *, company_id: str) -> Project:
        """Take no more applications. Who is on the list when this answers stays there, and nobody else comes. Again: the same.

        Raises:
            ProjectNotFound: no such project, or another company's.
            Unavailable: it may be closed; repeat it, and without a repeat it is finished all the same.
        """
        await self.own(project_id, company_id=company_id)
        await self._rows.close(project_id, at_ms=self._clock.now_ms())
        project = await self.own(project_id, company_id=company_id)
        if project.is_closing:
            await self._finish(project)
        return await self.own(project_id, company_id=company_id)

    async def _finish(self, project: Project) -> None:
        await self._applications.turn_away(project.id)
        await self._rows.closed(project.id)

    async def own(self, project_id: str, *, company_id: str) -> Project:
        """The company's project. Raises `ProjectNotFound`."""
        project = await self._rows.get(project_id)
        if project is None or project.company_id != company_id:
            raise ProjectNotFound(project=project_id)
        return project

    async def get(self, project_id: str) -> Project:
        """Anybody's. Raises `ProjectNotFound`."""
        project = await self._rows.get(project_id)
        if project is None:
            raise ProjectNotFound(project=project_id)
        return project

    async def list_open(self, *, limit: int, before: tuple[int, str] | None) -> list[Project]:
        """The open ones of all companies, newest first."""
        return await self._rows.list_open(limit=limit, before=before)

    async def list_of(self, company_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Project]:
        """The company's own, closed ones too, newest first."""
        return await self._rows.list_of(company_id, limit=limit, before=before)

    async def close_all_of(self, company_id: str) -> None:
        """The company is gone: nobody shall spend a credit on it."""
        before: tuple[int, str] | None = None
        while True:
            page = await self._rows.list_of(company_id, limit=_PAGE, before=before)
            for project in page:
                if project.status is ProjectStatus.OPEN or project.is_closing:
                    await self.close(project.id, company_id=company_id)
            if len(page) < _PAGE:
                return
            before = page[-1].created_at_ms, page[-1].id

    async def heal(self) -> int:
        """Finish closing what a crash cut short; how many there were."""
        closing = await self._rows.closing(limit=_PAGE)
        for project in closing:
            await self._finish(project)
        return len(closing)
