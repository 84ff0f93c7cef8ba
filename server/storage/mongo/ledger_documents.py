"""Account documents and entry rows as MongoDB keeps them. Every integer is an Int64, a map by account a list of pairs."""

from collections.abc import Mapping
from typing import Any, Final

import bson
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from billing_engine.errors import InvariantBroken
from billing_engine.ledger.model import Account, Entry, KeyState, quantity_of
from billing_engine.ledger.ports import Row, Versioned, Write
from server.storage.ledger_codec import entry_of_json, entry_to_json, holds_of_json, holds_to_json
from server.storage.mongo.integers import int64

Document = dict[str, Any]

#: The server takes 16 MiB a document; the rest is for what a command puts around it.
_MAX_BYTES: Final = 16 * 1024 * 1024 - 16 * 1024
#: What a number beyond 64 bits, a text that is no Unicode and a fact that is no BSON raise before anything is sent.
_UNSAYABLE: Final = (BSONError, OverflowError, TypeError, ValueError)


def encoded(document: Document) -> RawBSONDocument:
    """The document as it will be stored. Raises `InvariantBroken` for what cannot be: so nothing of a call is sent."""
    try:
        raw = bson.encode(int64(document))
    except _UNSAYABLE as exc:
        raise InvariantBroken(rule="the store refuses this write", cause=str(exc)) from exc
    if len(raw) > _MAX_BYTES:
        raise InvariantBroken(rule="the store refuses this write", cause=f"{len(raw)} bytes in one document")
    return RawBSONDocument(raw)


def state_of(write: Write) -> Document:
    """What a write changes of an account's document.

    Raises:
        InvariantBroken: the account would stand below its floor, or hold less than nothing.
    """
    account = write.account
    low = account.floor is not None and account.posted - account.held < account.floor
    if low or account.held < 0:
        raise InvariantBroken(rule="the store refuses this write", account=account.id)
    return {
        "version": write.version,
        "posted": account.posted,
        "held": account.held,
        "seq": account.seq,
        "holds": holds_to_json(account.holds),
        # Beside the holds, for the index by which takeover finds them.
        "owners": sorted({hold.owner for hold in account.holds.values()}),
        "tail": [entry_to_json(entry) for entry in account.tail],
        "credited": account.credited,
        "pending": bool(account.tail or account.credited),
        # A map by whatever names its owner chose: MongoDB keeps the order.
        "facts": dict(account.facts),
    }


def new_account(write: Write) -> Document:
    """The whole document. Raises what `state_of` raises."""
    account = write.account
    return {"_id": account.id, "asset": account.asset, "floor": account.floor, **state_of(write)}


def versioned_of(document: Mapping[str, Any]) -> Versioned:
    account = Account(
        document["_id"],
        document["asset"],
        document["floor"],
        document["posted"],
        document["held"],
        document["seq"],
        holds_of_json(document["holds"]),
        tuple(map(entry_of_json, document["tail"])),
        tuple((key, after) for key, after in document["credited"]),
        # Accounts from before there were any have none.
        document.get("facts") or {},
    )
    return Versioned(document["version"], account)


def touches_of(entry: Entry) -> list[str]:
    """The accounts that its transfers moved; a refused entry moved none."""
    if entry.state is not KeyState.POSTED:
        return []
    return sorted({name for t in entry.transfers for name in (t.debit, t.credit)})


def new_row(entry: Entry) -> Document:
    """A row that is not applied."""
    document = entry_to_json(entry)
    transfers = [
        {"debit": t.debit, "credit": t.credit, "amount": t.amount_minor, "kind": t.kind}
        for t in entry.transfers
    ]
    return {
        "_id": document.pop("key"),
        **document,
        "transfers": transfers,
        "quantity": quantity_of(entry),
        "touches": touches_of(entry),
        "applied": False,
        "creditsAfter": [],
    }


def row_of(document: Mapping[str, Any]) -> Row:
    transfers = [[t["debit"], t["credit"], t["amount"], t["kind"]] for t in document["transfers"]]
    entry = entry_of_json({**document, "key": document["_id"], "transfers": transfers})
    return Row(entry, document["applied"], dict(document["creditsAfter"]))


def same_entry(stored: Entry, entry: Entry) -> bool:
    """Whether they are the same once written: a tuple among the facts comes back as a list."""
    return bool(int64(new_row(stored)) == int64(new_row(entry)))
