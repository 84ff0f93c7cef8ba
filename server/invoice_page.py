"""An invoice as a page to be printed: no script, nothing from elsewhere."""

from datetime import datetime
from html import escape
from typing import Final
from zoneinfo import ZoneInfo

from server.billing_wire import InvoiceOut
from server.routing import Document

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-store",
}
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #111; max-width: 42rem; margin: 3rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem; margin-bottom: 0 }
p { margin: .2rem 0 }
table { width: 100%; border-collapse: collapse; margin-top: 2rem }
th, td { text-align: left; padding: .5rem 0; border-bottom: 1px solid #ccc }
td:last-child, th:last-child { text-align: right; font-variant-numeric: tabular-nums }
.muted { color: #555 }
"""


def invoice_page(invoice: InvoiceOut, *, company_name: str, time_zone: str) -> Document:
    """The page. Days are the company's own."""
    title = f"Invoice {invoice.number}" if invoice.number else "Recharge"
    what = "Automatic wallet recharge" if invoice.automatic else "Wallet recharge"
    facts = [
        ("Billed to", company_name),
        ("Status", invoice.status),
        ("Requested", _day(invoice.created_at, time_zone)),
        ("Paid", "" if invoice.paid_at is None else _day(invoice.paid_at, time_zone)),
        ("Reference", invoice.invoice_id),
    ]
    rows = "".join(
        f'<p><span class="muted">{escape(name)}:</span> {escape(text)}</p>' for name, text in facts if text
    )
    amounts = [(what, invoice.amount)]
    if invoice.refunded_amount != "0.00":
        amounts.append(("Refunded", f"-{invoice.refunded_amount}"))
    lines = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(amount)} {escape(invoice.currency)}</td></tr>"
        for name, amount in amounts
    )
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{rows}"
        f"<table><thead><tr><th>Description</th><th>Amount</th></tr></thead><tbody>{lines}</tbody></table>"
        "</body></html>"
    )
    return Document(page.encode(), "text/html; charset=utf-8", _HEADERS)


def _day(at_ms: int, time_zone: str) -> str:
    return datetime.fromtimestamp(at_ms // 1000, ZoneInfo(time_zone)).strftime("%d %B %Y")
