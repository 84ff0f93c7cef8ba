"""Document 004 again, every line of it, over two processes on MongoDB's protocol and Redis: each call and each device meets the next
one of them. The same tests, so the same promises.
"""

from collections.abc import Iterator

import pytest

from tests.e2e import test_document_004 as document
from tests.support.cluster import Cluster
from tests.support.server_process import QUICK


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Where `world` of the whole folder finds its people."""
    with Cluster(tmp_path_factory.mktemp("cluster"), **QUICK) as cluster:
        yield cluster
        code, output = cluster.settled_books()
        assert code == 0, output


test_from_its_first_line_to_its_last = document.test_document_004_from_its_first_line_to_its_last
test_balance_and_warnings = (
    document.test_the_lawyer_never_sees_the_balance_and_warnings_come_at_120_60_and_30_seconds
)
test_either_party_ends_it = document.test_either_party_ends_it_and_a_repeat_answers_the_same
test_twenty_starts_at_once = document.test_twenty_starts_at_once_make_one_session_and_a_second_one_is_refused
test_a_stranger = document.test_a_stranger_finds_nothing_and_hears_nothing
test_a_bad_token = document.test_a_bad_token_is_refused_and_a_client_that_polls_first_is_told_so
test_both_devices = document.test_both_devices_of_one_person_hear_everything
test_a_recharge = document.test_a_recharge_during_the_session_extends_it_without_a_gap
test_a_device_that_comes_back = (
    document.test_a_device_that_comes_back_gets_what_it_missed_and_a_repeated_send_is_stored_once
)
test_logging_out = document.test_logging_out_closes_the_sockets_of_that_login_only
