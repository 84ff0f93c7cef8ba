"""The commit protocol of LEDGER, explored whole: two and three processes, frozen or dead at every store call.

`test_ledger_interleavings.py` drives the real committer, two at a time: it proves the code. This drives a model: it reaches three
processes, lost messages, fail-overs, sessions and claims, and above all it can break a rule. So it proves that each rule
of LEDGER is needed, and that these checks would notice its loss. What ties it to the code: it decides with the product's own
functions, and its store calls are held to the same order as a recording of the real committer.

Not in the model: the committer's remembered documents and its batches (the real code is explored for those). A write that is
delivered late or twice is in it as a process that freezes before its write and dies after it.
"""

import re

import pytest

from tests.support.commit_model import Checker, Do, Scenario, Violation
from tests.support.commit_model_order import disorder, kept_by_committer, kept_by_model
from tests.support.commit_model_programs import Protocol, Rule
from tests.support.commit_model_scenarios import CHANGES, NOTICED_BY, SCENARIOS


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(scenario, marks=pytest.mark.slow if scenario.slow else ())
        for scenario in SCENARIOS.values()
    ],
    ids=str,
)
def test_no_order_of_steps_crashes_and_lost_messages_breaks_the_books(scenario: Scenario) -> None:
    report = Checker(scenario, Protocol(CHANGES)).run()
    assert report.worlds > 20
    assert report.ends > 0
    print(report)


@pytest.mark.parametrize("rule", Rule, ids=lambda rule: rule.name)
def test_a_rule_that_is_broken_on_purpose_is_noticed(rule: Rule) -> None:
    """Who removes a rule of LEDGER finds here the shortest way in which it costs money."""
    with pytest.raises(Violation) as noticed:
        Checker(SCENARIOS[NOTICED_BY[rule]], Protocol(CHANGES, broken=rule)).run()
    print(f"{rule.name}: {rule.value}\n{noticed.value}")
    assert re.search(r"^ +\d+ ", str(noticed.value), re.MULTILINE), "a counterexample is a list of steps"


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=str)
async def test_the_committer_leaves_what_the_model_leaves_and_keeps_its_order(scenario: Scenario) -> None:
    names = [name for do in (*scenario.before, *scenario.processes) for name in _changes_in(do)]
    model = kept_by_model(names, Protocol(CHANGES))
    product = await kept_by_committer([CHANGES[name] for name in names])
    assert product.accounts == model.accounts
    assert product.rows == model.rows
    assert product.told == model.told
    assert disorder(model.events) == []
    assert disorder(product.events) == []


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (Rule.ACCOUNT_BEFORE_KEY, "the key was not looked for after the account was read"),
        (Rule.TARGET_BEFORE_MARK, "the row was not looked at after the account was read"),
        (Rule.CREDIT_WITH_KEY, "without an entry and without a remembered key"),
        (Rule.FORGET_AFTER_MARK, "forgotten by earnings:e before its row was marked"),
        (Rule.TAIL_AFTER_MARK, "cut from the tail of wallet:w before its row was marked"),
    ],
    ids=lambda value: value.name if isinstance(value, Rule) else "",
)
def test_a_recording_in_the_wrong_order_is_noticed(rule: Rule, told: str) -> None:
    """Else the real committer's recording could pass unread."""
    wrong = kept_by_model(["recharge 100", "pay 70 a"], Protocol(CHANGES, broken=rule))
    assert any(told in one for one in disorder(wrong.events))


def _changes_in(do: Do) -> list[str]:
    if do.program == "change":
        return [do.args[0]]
    return [name for arg in do.args if isinstance(arg, Do) for name in _changes_in(arg)]
