"""`ReportRows` over one collection, and a report as a document: the command line is sent one, too."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from billing_engine.payments.report_model import (
    Amount,
    Difference,
    DifferenceKind,
    Foreign,
    Report,
    ReportStatus,
)
from server.storage.collection import Collection, Collections, CollectionSpec, Doc

REPORTS: Final = CollectionSpec(name="payment_reports")


class CollectionReports:
    """One document a gateway and day."""

    def __init__(self, collection: Collection) -> None:
        self._reports = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionReports":
        return cls(await collections.open(REPORTS))

    async def put(self, report: Report) -> None:
        # Two that are made at the same time compare the same; the later one stays.
        await self._reports.upsert({"_id": f"{report.gateway}:{report.day}", **report_doc(report)})

    async def get(self, gateway: str, day: str) -> Report | None:
        doc = await self._reports.get(f"{gateway}:{day}")
        return None if doc is None else report_of(doc)


def report_doc(report: Report) -> Doc:
    """JSON's own types."""
    return {
        **asdict(report),
        "status": report.status.value,
        "differences": [_difference_doc(one) for one in report.differences],
        "healed": [_difference_doc(one) for one in report.healed],
        "not_ours": [asdict(one) for one in report.not_ours],
    }


def report_of(doc: Mapping[str, Any]) -> Report:
    """The report that a document tells."""
    told = {name: value for name, value in doc.items() if name != "_id"}
    return Report(
        **{
            **told,
            "status": ReportStatus(doc["status"]),
            "differences": tuple(map(_difference, doc["differences"])),
            "healed": tuple(map(_difference, doc["healed"])),
            "not_ours": tuple(
                Foreign(one["gateway_id"], Amount(**one["amount"]), one["is_refund"])
                for one in doc["not_ours"]
            ),
        }
    )


def _difference_doc(difference: Difference) -> Doc:
    return {**asdict(difference), "kind": difference.kind.value}


def _difference(doc: Doc) -> Difference:
    return Difference(
        kind=DifferenceKind(doc["kind"]),
        our_id=doc["our_id"],
        gateway_id=doc["gateway_id"],
        ours=None if doc["ours"] is None else Amount(**doc["ours"]),
        theirs=None if doc["theirs"] is None else Amount(**doc["theirs"]),
    )
