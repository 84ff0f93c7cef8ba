"""What subscriptions and AI calls earn and cost (SPEC 10). docs/admin-metrics.md defines every figure."""

from typing import Final

from server.admin.ai_metrics import AiMetrics
from server.admin.ai_metrics_wire import AiMetricsOut
from server.auth.model import Role
from server.routing import Call, Route, only


async def ai_metrics(call: Call[None, None]) -> AiMetricsOut:
    metrics: AiMetrics = call.services.ai_metrics
    return AiMetricsOut.of(await metrics.report(), metrics.asset, metrics.timezone)


ROUTES: Final = (
    Route(
        method="GET",
        path="/admin/metrics",
        handler=ai_metrics,
        summary="Subscriptions and AI calls: today, this month, by provider, at most five seconds old",
        access=only(Role.ADMIN),
        response=AiMetricsOut,
        tags=("admin",),
    ),
)
