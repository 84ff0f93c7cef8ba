"""The command line: serve, create-admin, verify-ledger, payments-report, backup, demo, worker."""

import os
import sqlite3
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

import typer
import uvloop

from billing_engine.errors import BillingError
from billing_engine.payments.report_model import Report, ReportStatus
from billing_engine.verification import Finding, Findings, Verdict
from server.control import ControlFailed, ask_server
from server.logs import configure_logging
from server.settings import Settings, SettingsInvalid, load_settings, misspelt
from server.storage.errors import CannotOpen, StoreUnavailable
from server.storage.sqlite.filelock import DatabaseInUse

T = TypeVar("T")

#: The exit codes of `verify-ledger` (SPEC 12); 1 is a failure of the command itself, 2 of its use or settings.
EXIT_OF: Final = {Verdict.CLEAN: 0, Verdict.UNFINISHED: 3, Verdict.BROKEN: 4}
_AUDIT_TIMEOUT_MS: Final = 60_000
#: The exit codes of `payments-report`. That nobody knows is a failure, and never clean.
REPORT_EXIT_OF: Final = {
    ReportStatus.CLEAN: 0,
    ReportStatus.UNAVAILABLE: 1,
    ReportStatus.DIFFERENCES: 3,
}
#: A gateway's list of a long day has many pages.
_REPORT_TIMEOUT_S: Final = 600
#: How many findings of a kind are printed.
_SHOWN: Final = 50

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # The pretty tracebacks can print local variables, and those hold secrets (see `server.logs`).
    pretty_exceptions_enable=False,
    help="A real-time consultation billing server.",
)


def main() -> None:
    """The entry point of `tarazu`."""
    app()


@app.command()
def serve(
    *,
    announce_address: Annotated[
        bool, typer.Option(help="Print the address on standard output once ready.")
    ] = False,
) -> None:
    """Serve HTTP and Socket.IO until SIGTERM or SIGINT."""
    from server.serve import serve as run_server  # noqa: PLC0415 - the other commands start without the web server

    settings = _settings()
    try:
        code = _run(run_server(settings, announce_address=announce_address))
    except (DatabaseInUse, CannotOpen, OSError) as exc:
        _fail(str(exc))
    except StoreUnavailable as exc:
        _fail(f"the server cannot start: {exc}")
    raise typer.Exit(code)


@app.command()
def worker() -> None:
    """Run background work beside several web processes. The embedded database has one process, which does it itself."""
    from server.serve import work  # noqa: PLC0415 - see serve

    settings = _settings()
    if not settings.is_shared:
        _fail(
            "a worker needs a database that several processes share; with SQLite `tarazu serve` does this work itself"
        )
    try:
        code = _run(work(settings))
    except (CannotOpen, StoreUnavailable) as exc:
        _fail(f"the worker stops: {exc}")
    raise typer.Exit(code)


@app.command("create-admin")
def create_admin(
    email: Annotated[str, typer.Option(prompt=True)],
    name: Annotated[str, typer.Option()] = "Administrator",
    password: Annotated[
        str | None, typer.Option(help="8 to 72 bytes. Asked for when not given.", envvar="ADMIN_PASSWORD")
    ] = None,
) -> None:
    """Make an account with the role ADMIN, also beside a running server."""
    settings = _settings()
    chosen = password or typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    try:
        admin_id = _run(_create_admin(settings, email=email, name=name, password=chosen))
    except (ControlFailed, CannotOpen) as exc:
        _fail(str(exc))
    except BillingError as exc:
        problem = exc.facts.get("problem", "")
        _fail(f"{exc.detail} {exc.facts.get('field', '')} {problem}".strip())
    typer.echo(f"admin {email} has the id {admin_id}")


async def _create_admin(settings: Settings, *, email: str, name: str, password: str) -> str:
    from server.composition import build_accounts  # noqa: PLC0415 - see serve

    try:
        async with build_accounts(settings) as accounts:
            return str((await accounts.create_admin(email=email, password=password, name=name)).id)
    except DatabaseInUse:
        arguments = {"email": email, "password": password, "name": name}
        answer = await ask_server(settings.sqlite_path, "create-admin", arguments)
        return str(answer["id"])


@app.command("verify-ledger")
def verify_ledger() -> None:
    """Recompute every balance and every bill from the entries, beside a running server; exit 0 clean, 3 unfinished, 4 broken."""
    settings = _settings()
    now_ms, abandon_ms = time.time_ns() // 1_000_000, settings.abandon_seconds * 1000
    try:
        if settings.is_shared:
            found = _run(_verify_shared(settings, now_ms=now_ms, abandon_ms=abandon_ms))
        else:
            found = _verify_file(settings.sqlite_path, now_ms=now_ms, abandon_ms=abandon_ms)
    except (CannotOpen, StoreUnavailable, sqlite3.Error) as exc:
        _fail(f"cannot read {settings.database_name}: {exc}")
    _print_findings("broken", found.broken)
    _print_findings("unfinished", found.unfinished)
    counted = ", ".join(f"{count} {name}" for name, count in found.counted.items())
    typer.echo(f"{found.verdict.value}: {counted}")
    raise typer.Exit(EXIT_OF[found.verdict])


def _verify_file(path: Path, *, now_ms: int, abandon_ms: int) -> Findings:
    from server.storage.sqlite.books import verify_books  # noqa: PLC0415 - see serve

    if not path.exists():
        _fail(f"there is no database at {path}")
    return verify_books(path, now_ms=now_ms, abandon_ms=abandon_ms)


async def _verify_shared(settings: Settings, *, now_ms: int, abandon_ms: int) -> Findings:
    from server.storage.mongo.books import verify_books  # noqa: PLC0415 - see serve
    from server.storage.mongo.client import MongoOptions, open_mongo  # noqa: PLC0415 - see serve

    # Whole collections are read: that takes longer than a write of the engine may.
    options = MongoOptions(settings.database_url, settings.mongo_driver, _AUDIT_TIMEOUT_MS)
    async with open_mongo(options) as db:
        return await verify_books(db, now_ms=now_ms, abandon_ms=abandon_ms)


def _print_findings(kind: str, findings: list[Finding]) -> None:
    for finding in findings[:_SHOWN]:
        typer.echo(f"{kind}: {finding.rule}: {finding.subject}: {finding.detail}")
    if len(findings) > _SHOWN:
        typer.echo(f"{kind}: and {len(findings) - _SHOWN} more")


@app.command("payments-report")
def payments_report(
    day: Annotated[str, typer.Option(help="A local day, such as 2026-11-21.")],
    gateway: Annotated[str, typer.Option(help="One alone; without it all of them.")] = "",
) -> None:
    """Compare a day's payments with the gateways' lists, also beside a running server; exit 0 clean, 3 with differences."""
    from server.payment_reports import printed  # noqa: PLC0415 - see serve

    settings = _settings()
    try:
        made = _run(_payments_report(settings, day, gateway or None))
    except (ControlFailed, CannotOpen) as exc:
        _fail(str(exc))
    except BillingError as exc:
        _fail(f"no report: {exc.detail}")
    for report in made:
        for line in printed(report):
            typer.echo(line)
    # What is known to differ says more than what nobody knows.
    raise typer.Exit(max((REPORT_EXIT_OF[report.status] for report in made), default=0))


async def _payments_report(settings: Settings, day: str, gateway: str | None) -> list[Report]:
    from server.composition import build_reports  # noqa: PLC0415 - see serve
    from server.payment_reports import make_reports  # noqa: PLC0415 - see serve
    from server.storage.repositories.payment_reports import report_of  # noqa: PLC0415 - see serve

    try:
        async with build_reports(settings) as reports:
            return await make_reports(reports, day, gateway)
    except DatabaseInUse:
        answer = await ask_server(
            settings.sqlite_path,
            "payments-report",
            {"day": day, "gateway": gateway},
            timeout_s=_REPORT_TIMEOUT_S,
        )
        return [report_of(doc) for doc in answer["reports"]]


@app.command()
def backup(target: Annotated[Path, typer.Argument(help="A file that does not exist yet.")]) -> None:
    """Write a consistent copy of the database, beside a running server."""
    from server.storage.sqlite.backup import backup_to  # noqa: PLC0415 - see serve

    settings = _settings()
    if settings.is_shared:
        _fail(
            "no backup: a replica set is backed up with mongodump --oplog or its volumes' snapshots; see docs/operations.md"
        )
    try:
        backup_to(settings.sqlite_path, target)
    except (CannotOpen, FileExistsError, sqlite3.Error, OSError) as exc:
        _fail(f"no backup: {exc}")
    typer.echo(f"{settings.sqlite_path} is copied to {target}")


@app.command()
def demo(
    url: Annotated[
        list[str] | None,
        typer.Option(help="A running server; without it one is started. Twice: the user's and the lawyer's."),
    ] = None,
    admin_email: Annotated[str, typer.Option(envvar="ADMIN_EMAIL")] = "",
    admin_password: Annotated[str, typer.Option(envvar="ADMIN_PASSWORD")] = "",
) -> None:
    """Show a whole paid consultation, live."""
    from server.demo import DemoFailed, run_demo  # noqa: PLC0415 - see serve

    if url and not (admin_email and admin_password):
        _fail("against a running server, say who its admin is: --admin-email and --admin-password")
    try:
        _run(run_demo(tuple(url or ()), admin_email=admin_email, admin_password=admin_password))
    except DemoFailed as exc:
        _fail(f"the demo failed: {exc}")


def _settings() -> Settings:
    try:
        settings = load_settings()
    except SettingsInvalid as exc:
        for problem in exc.problems:
            typer.echo(f"settings: {problem}", err=True)
        raise typer.Exit(2) from exc
    configure_logging(settings.log_level, settings.log_format)
    for warning in (*settings.warnings(), *misspelt(os.environ)):
        typer.echo(f"settings: {warning}", err=True)
    return settings


def _run(work: Coroutine[Any, Any, T]) -> T:
    return uvloop.run(work)


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)
