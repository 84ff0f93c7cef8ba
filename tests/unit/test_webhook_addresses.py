"""Where a company's webhook may lead. Each row is a door into our own network that somebody has walked through elsewhere."""

import pytest

from server.company_news.addresses import check_url, is_public
from server.company_news.errors import WebhookUrlRefused
from server.company_news.model import JITTER, PAUSES_MS, pause_ms


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        # Clouds' metadata, carriers' shared addresses, documentation, benchmarks, multicast, reserved, broadcast.
        "169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1",
        "240.0.0.1", "255.255.255.255", "192.0.0.192",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1",
        # IPv4 in IPv6: mapped, compatible, NAT64, 6to4, Teredo.
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:7f00:1::1",
        "", "localhost", "127.1", "2130706433", "0x7f000001",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_an_address_of_the_public_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/", "ftp://hooks.example.com/", "hooks.example.com", "//hooks.example.com/", "https://", "https:///path",
        "https://user@hooks.example.com/", "https://user:pw@hooks.example.com/", "https://:@hooks.example.com/", "https://hooks.example.com/#x",
        "https://hooks.example.com:99999/", "https://hooks.example.com:x/", "https://hooks.example.com/a b", "https://hooks.example.com\\@evil/",
        "https://hooks.example.com/\r\nX: y", "https://[::1/", "javascript:alert(1)", "file:///etc/passwd", "https://hooks.example.com:0/",
        "https://localhost/", "https://LOCALHOST./", "https://db.local/", "https://metadata.google.internal/", "https://intranet/",
        "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f.0.0.1/", "https://0x7f000001/", "https://017700000001/",
        "https://10.0.0.1:8443/", "https://169.254.169.254/latest", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[fe80::1%25eth0]/",
        "https://127。0。0。1/", "https://①②⑦.⓪.⓪.①/", "https://hooks.example.com/" + "a" * 2_000,
    ],
)  # fmt: skip
def test_a_url_that_is_refused_when_it_is_set(url: str) -> None:
    with pytest.raises(WebhookUrlRefused) as refused:
        check_url(url, allow_private=False)
    assert refused.value.facts["field"] == "webhookUrl"
    assert refused.value.facts["problem"]


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/a%2Fb?x=1&y=2", "https://hooks.example.com:8443/a", "https://1.1.1.1/", "https://[2606:4700:4700::1111]/x",
        "https://hooks.example.co.uk./",
    ],
)  # fmt: skip
def test_a_url_that_is_taken_as_it_is(url: str) -> None:
    assert check_url(url, allow_private=False) == url


def test_development_may_use_its_own_machine() -> None:
    assert check_url("http://127.0.0.1:8000/x", allow_private=True) == "http://127.0.0.1:8000/x"
    for url in ("http://a:b@127.0.0.1/", "ftp://127.0.0.1/", "http://127.0.0.1/#x"):
        with pytest.raises(WebhookUrlRefused):
            check_url(url, allow_private=True)


def test_an_endpoint_is_given_about_a_day() -> None:
    pauses = [pause_ms(attempts, jitter=0.0) for attempts in range(1, 8)]
    assert pauses == [*PAUSES_MS, None]
    assert 20 * 3_600_000 < sum(PAUSES_MS) < 26 * 3_600_000
    for attempts in range(1, 7):
        late = pause_ms(attempts, jitter=0.999)
        assert late is not None
        assert PAUSES_MS[attempts - 1] < late <= PAUSES_MS[attempts - 1] * (JITTER + 1) // JITTER
