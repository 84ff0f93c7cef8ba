"""The gateway without money keeps what every gateway keeps."""

import pytest

from server.gateways.simulated import SimulatedGateway
from tests.contract.gateway_contract import GatewayContract, Paid


class SimulatedWorld:
    """`GatewayWorld`: wishing is paying, so paying does nothing."""

    amount_minor = 50_000
    currency = "INR"
    step_minor = 1
    saves_methods = True

    def __init__(self) -> None:
        self.gateway = SimulatedGateway()

    async def pay(self, order_id: str, *, save_method: bool = False) -> Paid:
        del save_method
        (attempt,) = await self.gateway.attempts(order_id)
        return Paid(attempt.id, None)


class TestSimulatedGateway(GatewayContract):
    @pytest.fixture
    def world(self) -> SimulatedWorld:
        return SimulatedWorld()
