"""Applying and withdrawing: the credit and the application together, or neither (LEDGER 5).

A record PENDING, which nobody sees, comes first; the ledger's key decides; the record follows, and healing makes it follow. Whoever
finds a PENDING one may carry it on: the same key gives the same outcome. Nobody concludes anything from a key that is not there:
what shall not happen any more is voided, and whoever was about to do it is refused by his own write.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

from billing_engine.clock import Clock
from billing_engine.credits.errors import (
    AlreadyApplied,
    ApplicationNotFound,
    ProjectClosed,
    ProjectNotFound,
    RefundNotEligible,
)
from billing_engine.credits.model import (
    COST,
    REFUND_WITHIN_MS,
    Application,
    ApplicationStatus,
    NotEligible,
    Project,
    ProjectStatus,
    application_id_of,
    give_back,
    insufficient,
    not_eligible,
    settled_by,
    taking_of,
)
from billing_engine.credits.ports import Applications as ApplicationRows
from billing_engine.credits.ports import Projects as ProjectRows
from billing_engine.errors import Unavailable
from billing_engine.ledger.accounts import application_credits_of
from billing_engine.ledger.model import Account, Entry, KeyState, post
from billing_engine.ledger.rivals import ATTEMPTS, let_rivals_finish
from billing_engine.ledger.service import Ledger
from billing_engine.money import APPLICATION_CREDIT

_ASSET: Final = APPLICATION_CREDIT.code
_PAGE: Final = 500
#: A PENDING application of this age has lost its process: its key is voided. One that was only slow begins anew.
ABANDONED_AFTER_MS: Final = 2_000
#: How much longer than it may be refunded an application is watched: clocks of two processes may differ.
_CLOCKS_APART_MS: Final = 60_000


class Applications:
    """The use cases of applications (SPEC 8)."""

    def __init__(self, *, ledger: Ledger, rows: ApplicationRows, projects: ProjectRows, clock: Clock) -> None:
        self._ledger = ledger
        self._rows = rows
        self._projects = projects
        self._clock = clock

    # -- applying ----------------------------------------------------------------------------------------------------

    async def apply(self, *, user_id: str, project_id: str, operation_id: str) -> Application:
        """Take one credit and apply for the project, or neither. The same operation again answers what it did.

        Raises:
            ProjectNotFound, AlreadyApplied, ProjectClosed, InsufficientCredits: no credit was taken.
            Unavailable: it may be done or not; repeat with the same operation. Without a repeat it is done whole or not at all.
        """
        for attempt in range(ATTEMPTS):
            await let_rivals_finish(attempt)
            project = await self._projects.get(project_id)
            if project is None:
                raise ProjectNotFound(project=project_id)
            latest = await self._rows.latest(user_id, project_id)
            if latest is not None and latest.applied_at_ms and latest.operation_id == operation_id:
                return latest
            if latest is not None and latest.status is ApplicationStatus.ACTIVE:
                raise AlreadyApplied(application=latest.id)
            if latest is None or latest.status is not ApplicationStatus.PENDING:
                latest = await self._begun(project, latest, user_id, operation_id)
            if latest is None:
                continue
            entry = await self._decide(latest)
            application = settled_by(latest, entry)
            await self._rows.settle(application)
            if application.status is ApplicationStatus.ACTIVE:
                if application.operation_id != operation_id:
                    raise AlreadyApplied(application=application.id)
                return application
            if entry.state is KeyState.REFUSED and application.operation_id == operation_id:
                raise insufficient(required=COST, available=entry.posted_before, account=application.account)
            # Voided: by a closing project, which the next round sees, or by healing, which took us for dead. Or another request's.
        raise Unavailable(reason="the application is being made by others", project=project_id)

    async def _begun(
        self, project: Project, latest: Application | None, user_id: str, operation_id: str
    ) -> Application | None:
        """A new PENDING application; None: somebody else of the same person was faster."""
        if project.status is ProjectStatus.CLOSED:
            raise ProjectClosed(project=project.id)
        account = await self._ledger.account(application_credits_of(user_id), _ASSET)
        if account.spendable < COST:
            # Only so that nothing is written for who has none: the write that takes the credit looks itself.
            raise insufficient(required=COST, available=account.spendable, account=account.id)
        attempt = 1 if latest is None else latest.attempt + 1
        application = Application(
            id=application_id_of(user_id, project.id, attempt),
            user_id=user_id,
            project_id=project.id,
            attempt=attempt,
            operation_id=operation_id,
            created_at_ms=self._clock.now_ms(),
        )
        return application if await self._rows.add(application) else None

    async def _decide(self, application: Application) -> Entry:
        """End the key that takes the credit, if it has not ended.

        The project is looked at after the record is there, and closing looks for records after the project is closed: one of the
        two sees the other.
        """
        project = await self._projects.get(application.project_id)
        if project is None or project.status is ProjectStatus.CLOSED:
            return await self._void(application)

        def take(account: Account, known: Entry | None) -> tuple[Account, Entry]:
            if known is not None:
                return account, known
            at_ms = self._clock.now_ms()
            return post(account, taking_of(application), at_ms=at_ms, day=self._ledger.day_of(at_ms))

        entry: Entry = await self._ledger.change(application.account, _ASSET, take, source=application.taking)
        return entry

    async def _void(self, application: Application) -> Entry:
        return await self._ledger.void(application.account, _ASSET, application.taking)

    async def turn_away(self, project_id: str) -> None:
        """Of a closed project: what has begun and has not taken its credit never will; what has, has been in time."""
        for application in await self._rows.pending_of(project_id):
            await self._rows.settle(settled_by(application, await self._void(application)))

    # -- withdrawing -------------------------------------------------------------------------------------------------

    async def eligibility(self, application_id: str, *, user_id: str) -> NotEligible | None:
        """Why the credit would not be given back now; None: it would. Raises `ApplicationNotFound`."""
        application = await self._own(application_id, user_id)
        return not_eligible(
            await self._ledger.entry(application.account, application.taking),
            await self._ledger.entry(application.account, application.returning),
            now_ms=self._clock.now_ms(),
        )

    async def withdraw(self, application_id: str, *, user_id: str, operation_id: str) -> Application:
        """Take the application back and give its credit back, once. The same operation again answers what it did.

        Raises:
            ApplicationNotFound: no such application, or not this person's.
            RefundNotEligible: and why; nothing was changed.
            Unavailable: it may be done or not; repeat with the same operation.
        """
        application = await self._own(application_id, user_id)
        taken = await self._ledger.entry(application.account, application.taking)
        returned = await self._ledger.entry(application.account, application.returning)
        if returned is None or returned.facts.get("operation") != operation_id:
            why = not_eligible(taken, returned, now_ms=self._clock.now_ms())
            if why is not None:
                raise RefundNotEligible(application=application.id, not_eligible=why.value)
            if application.status is ApplicationStatus.PENDING and taken is not None:
                # Its maker is about to say so, or has died: after this, nothing of his comes between.
                await self._rows.settle(settled_by(application, taken))
            # Written first: should we die right after the credit is back, healing knows where to look.
            await self._rows.begin_return(application.id)

        def change(account: Account, known: Entry | None) -> tuple[Account, Entry]:
            at_ms = self._clock.now_ms()
            return give_back(
                account,
                known,
                application=application,
                taken=taken,
                operation_id=operation_id,
                at_ms=at_ms,
                day=self._ledger.day_of(at_ms),
            )

        returned = await self._ledger.change(
            application.account, _ASSET, change, source=application.returning
        )
        return await self._returned(application, taken, returned)

    async def _returned(self, application: Application, taken: Entry | None, returned: Entry) -> Application:
        if taken is None:
            raise Unavailable(
                reason="the entry that took the credit cannot be read", application=application.id
            )
        withdrawn = settled_by(application, taken, returned)
        await self._rows.settle(withdrawn)
        return withdrawn

    async def _own(self, application_id: str, user_id: str) -> Application:
        application = await self._rows.get(application_id)
        if application is None or application.user_id != user_id:
            raise ApplicationNotFound(application=application_id)
        return application

    # -- looking -----------------------------------------------------------------------------------------------------

    async def list_for(
        self, user_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> list[Application]:
        """The person's applications, newest first."""
        return await self._rows.list_for(user_id, limit=limit, before=before)

    async def of_project(
        self, project_id: str, *, company_id: str, limit: int, before: tuple[int, str] | None
    ) -> list[Application]:
        """Who has applied for the company's project, newest first. Raises `ProjectNotFound`."""
        project = await self._projects.get(project_id)
        if project is None or project.company_id != company_id:
            raise ProjectNotFound(project=project_id)
        return await self._rows.of_project(project_id, limit=limit, before=before)

    async def projects_of(self, applications: Sequence[Application]) -> dict[str, Project]:
        """The projects that these are for, by id."""
        return await self._projects.get_many(sorted({one.project_id for one in applications}))

    # -- healing -----------------------------------------------------------------------------------------------------

    async def heal(self, *, abandoned_after_ms: int = ABANDONED_AFTER_MS) -> int:
        """Finish what a crash cut short; how many applications that were. Where no other process is, whoever has begun is dead."""
        healed = 0
        after: tuple[int, str] | None = None
        while True:
            page = await self._rows.open(limit=_PAGE, after=after)
            for application in page:
                healed += await self._heal(application, abandoned_after_ms)
            if len(page) < _PAGE:
                return healed
            after = page[-1].created_at_ms, page[-1].id

    async def _heal(self, application: Application, abandoned_after_ms: int) -> bool:
        entry = partial(self._ledger.entry, application.account)
        taken, returned = await entry(application.taking), await entry(application.returning)
        age_ms = self._clock.now_ms() - application.created_at_ms
        if taken is None:
            if age_ms < abandoned_after_ms:
                return False
            taken = await self._void(application)
        if application.status is ApplicationStatus.PENDING or returned is not None:
            await self._rows.settle(settled_by(application, taken, returned))
            return True
        # Somebody wanted to withdraw it. As long as he may still do so by an old request, it is watched.
        if self._clock.now_ms() < taken.at_ms + REFUND_WITHIN_MS + _CLOCKS_APART_MS:
            return False
        await self._rows.end_return(application.id)
        return True
