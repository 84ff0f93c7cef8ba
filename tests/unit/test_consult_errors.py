"""The socket's refusals of requests are billing's, word for word: the two packages do not know each other."""

import pytest

from billing_engine.consultations import errors as billing
from billing_engine.errors import BillingError
from chat.consult_errors import BY_CODE

BILLINGS = {
    error.code: error
    for error in vars(billing).values()
    if isinstance(error, type) and issubclass(error, BillingError)
}


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_a_code_means_the_same_over_both_ways(code: str) -> None:
    assert BY_CODE[code].detail == BILLINGS[code].detail
