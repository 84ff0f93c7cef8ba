"""The gateway without money: every charge succeeds at once. The default without keys, refused in production."""

from billing_engine.wallets.ports import Payment


class SimulatedGateway:
    """Charges nothing; the payment's id is a function of the reference, so a repeat is the same payment."""

    name = "simulated"

    async def charge(self, *, reference: str, amount_minor: int, currency: str) -> Payment:  # noqa: ARG002 - the port's words
        return Payment(id=f"sim_{reference}", gateway=self.name)
