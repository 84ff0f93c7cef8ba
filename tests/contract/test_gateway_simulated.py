"""The gateway without money keeps what every gateway keeps."""

import pytest

from billing_engine.payments.errors import GatewayRefused
from billing_engine.payments.model import AttemptStatus, Wish
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


def wish(reference: str = "r_1", *, save_method: bool = False) -> Wish:
    return Wish(reference, 50_000, "INR", "Wallet recharge", "payer@example.com", save_method=save_method)


async def test_a_saved_method_comes_with_the_payment_that_was_to_keep_it() -> None:
    gateway = SimulatedGateway()
    keeping = await gateway.create_order(wish(save_method=True))
    (attempt,) = await gateway.attempts(keeping.id)
    (other,) = await gateway.attempts((await gateway.create_order(wish())).id)

    assert attempt.method is not None
    assert await gateway.attempt(attempt.id) == attempt
    assert other.method is None
    assert attempt.id != other.id


async def test_a_page_keeps_one_at_once_and_it_can_be_charged() -> None:
    gateway = SimulatedGateway()
    order = await gateway.setup_order(Wish("s_1", 0, "INR", "Save", ""))
    method = await gateway.kept_method(order.id)
    assert method is not None

    charged = await gateway.charge_saved(wish("c_1"), method)

    assert (charged.status, charged.reference, charged.amount_minor) == (
        AttemptStatus.COLLECTED,
        "c_1",
        50_000,
    )
    assert await gateway.find_charge(wish("c_1"), method) == charged


@pytest.mark.parametrize("id_", ["", "sim", "sim_r_x_INR", "simorder_r_1_INR", "nothing_r_1_INR", "sim_1"])
async def test_an_attempt_that_was_never_given_out_is_refused(id_: str) -> None:
    with pytest.raises(GatewayRefused):
        await SimulatedGateway().attempt(id_)
