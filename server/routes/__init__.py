"""The route table of the whole server. Within a resource, fixed words stand before parameters of the same place."""

from typing import Final

from server.routes import (
    admin,
    admin_credits,
    admin_lawyers,
    applied_projects,
    auth,
    chat,
    consult,
    docs,
    earnings,
    health,
    lawyers,
    metrics,
    payment_desk,
    payment_methods,
    payment_reports,
    payments,
    payouts,
    projects,
    refunds,
    reviews,
    statements,
    wallet,
    webhooks,
)
from server.routes import credits as application_credits
from server.routing import Route

ROUTES: Final[tuple[Route, ...]] = (
    *health.ROUTES,
    *metrics.ROUTES,
    *auth.ROUTES,
    *wallet.ROUTES,
    *payments.ROUTES,
    *payment_methods.ROUTES,
    *payment_reports.ROUTES,
    *payment_desk.ROUTES,
    *webhooks.ROUTES,
    *earnings.ROUTES,
    *payouts.ROUTES,
    *statements.ROUTES,
    *lawyers.ROUTES,
    *admin_lawyers.ROUTES,
    *admin.ROUTES,
    *consult.ROUTES,
    *refunds.ROUTES,
    *chat.ROUTES,
    *reviews.ROUTES,
    *application_credits.ROUTES,
    *projects.ROUTES,
    *applied_projects.ROUTES,
    *admin_credits.ROUTES,
    *docs.ROUTES,
)
