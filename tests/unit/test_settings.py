"""Settings: a wrong one stops the start with the name of its variable, a misspelt one is not swallowed."""

import re
from decimal import Decimal
from pathlib import Path

import pytest
from dotenv import dotenv_values
from pydantic import SecretStr

from server.settings import DEVELOPMENT_SECRET, Settings, SettingsInvalid, load_settings, misspelt, variables

EXAMPLE = Path(__file__).parents[2] / ".env.example"
SAFE = {"JWT_SECRET": "x" * 32}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in variables():
        monkeypatch.delenv(name, raising=False)


def _load(monkeypatch, **environ: str) -> Settings:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return load_settings(env_file=None)


def test_the_example_lists_every_setting_with_its_default(monkeypatch):
    """A newcomer reads the example and nothing else; what it says must be what happens."""
    example = dotenv_values(EXAMPLE)
    assert set(example) == set(variables())
    assert load_settings(EXAMPLE) == load_settings(None)
    for name, value in example.items():
        default = Settings.model_fields[name.lower()].default
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        assert value == ("" if default == () else str(getattr(default, "value", default))), name


def test_every_setting_of_the_example_is_explained():
    lines = EXAMPLE.read_text().splitlines()
    assert all(len(line) <= 130 for line in lines)


def test_a_file_is_read_and_the_environment_wins(monkeypatch, tmp_path):
    file = tmp_path / ".env"
    file.write_text('PORT=9000\nMIN_BALANCE="75.50"\n')
    monkeypatch.setenv("PORT", "9001")
    settings = load_settings(file)

    assert settings.port == 9001
    assert settings.min_balance_minor == 7550


def test_a_missing_file_is_no_problem(tmp_path):
    assert load_settings(tmp_path / "nothing").port == 8000


def test_empty_counts_as_not_set(monkeypatch):
    assert _load(monkeypatch, PORT="", CORS_ORIGINS="").port == 8000


def test_money_and_percentages_are_exact(monkeypatch):
    settings = _load(
        monkeypatch,
        COMMISSION_PERCENT="12.5",
        RECHARGE_MIN="0.01",
        RECHARGE_MAX="1000000",
        STORE_TIMEOUT_SECONDS="0.25",
    )
    assert settings.commission_bp == 1250
    assert (settings.recharge_min_minor, settings.recharge_max_minor) == (1, 100_000_000)
    assert settings.store_timeout_seconds == Decimal("0.25")
    assert settings.store_timeout_ms == 250


def test_lists_are_separated_by_commas(monkeypatch):
    settings = _load(monkeypatch, CORS_ORIGINS="https://a.example.com/, http://localhost:3000")
    assert settings.cors_origins == ("https://a.example.com", "http://localhost:3000")


def test_paths_of_the_database(monkeypatch):
    assert _load(monkeypatch).sqlite_path == Path("data/tarazu.db")
    assert _load(monkeypatch, DATABASE_URL="sqlite:////var/lib/t.db").sqlite_path == Path("/var/lib/t.db")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APP_ENV", "prod"),
        ("PORT", "http"),
        ("PORT", "70000"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "app.example.com"),
        ("CORS_ORIGINS", "https://a.example.com/path"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
        ("DATABASE_URL", "postgres://x"),
        ("DATABASE_URL", "sqlite:///"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("SQLITE_SYNCHRONOUS", "MAYBE"),
        ("STORE_TIMEOUT_SECONDS", "0"),
        ("JWT_SECRET", "short"),
        ("ACCESS_TOKEN_MINUTES", "0"),
        ("REFRESH_TOKEN_DAYS", "x"),
        ("REFRESH_GRACE_SECONDS", "-1"),
        ("BCRYPT_COST", "3"),
        ("RATE_LIMIT_LOGIN_FAILURES", "many"),
        ("RATE_LIMIT_RECHARGE_ACCOUNT", "0/minute"),
        ("RATE_LIMITS", "maybe"),
        ("TRUSTED_PROXIES", "-1"),
        ("NOTIFIER", "pigeon"),
        ("RESET_URL", "https://app.example.com/reset"),
        ("SMTP_USER", "without a password"),
        ("SMTP_SECURITY", "a little"),
        ("TIMEZONE", "Mars/Olympus"),
        ("TIMEZONE", "../etc/passwd"),
        ("CURRENCY", "XYZ"),
        ("TICK_SECONDS", "0"),
        ("LEAD_SECONDS", "1"),
        ("MIN_BALANCE", "-1"),
        ("MIN_BALANCE", "1.001"),
        ("MIN_BALANCE", "NaN"),
        ("MIN_BALANCE", "1e3"),
        ("MIN_SECONDS", "0"),
        ("COMMISSION_PERCENT", "100.01"),
        ("COMMISSION_PERCENT", "1.234"),
        ("COMMISSION_PERCENT", "-1"),
        ("COMMISSION_PERCENT", "1."),
        ("COMMISSION_PERCENT", "1.\uff11"),
        ("ABANDON_SECONDS", "x"),
        ("FAIR_METERING", "maybe"),
        ("PEER_GRACE_SECONDS", "0"),
        ("PEER_GONE_SECONDS", "15"),
        ("RECHARGE_MIN", "200000"),
        ("RECHARGE_MAX", "9" * 20),
        ("PAYMENT_GATEWAY", "razorpay"),
        ("ADMIN_EMAIL", "a@example.com"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch, name, value):
    with pytest.raises(SettingsInvalid) as caught:
        _load(monkeypatch, **{name: value})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [name]


def test_all_wrong_settings_are_named_at_once(monkeypatch):
    with pytest.raises(SettingsInvalid) as caught:
        _load(monkeypatch, PORT="x", TICK_SECONDS="0")
    assert {problem.partition(":")[0] for problem in caught.value.problems} == {"PORT", "TICK_SECONDS"}


def test_a_lead_covers_two_store_timeouts(monkeypatch):
    with pytest.raises(SettingsInvalid, match="LEAD_SECONDS"):
        _load(monkeypatch, STORE_TIMEOUT_SECONDS="1.6")


def test_production_refuses_what_is_for_machines_on_desks(monkeypatch):
    """Tokens signed with a published secret open every wallet."""
    with pytest.raises(SettingsInvalid) as caught:
        _load(monkeypatch, APP_ENV="production", BCRYPT_COST="9", SQLITE_SYNCHRONOUS="OFF")
    assert {problem.partition(":")[0] for problem in caught.value.problems} == {
        "JWT_SECRET",
        "PAYMENT_GATEWAY",
        "BCRYPT_COST",
        "SQLITE_SYNCHRONOUS",
    }


def test_production_lets_no_company_reach_into_its_network(monkeypatch):
    with pytest.raises(SettingsInvalid, match="COMPANY_WEBHOOKS_PRIVATE"):
        _load(monkeypatch, APP_ENV="production", COMPANY_WEBHOOKS_PRIVATE="on", **SAFE)


def test_no_message_and_no_repr_tells_a_secret(monkeypatch):
    with pytest.raises(SettingsInvalid) as caught:
        _load(monkeypatch, JWT_SECRET="hunter2-hunter2")
    assert "hunter2" not in str(caught.value)
    settings = _load(
        monkeypatch, JWT_SECRET="hunter2" * 8, ADMIN_EMAIL="a@example.com", ADMIN_PASSWORD="swordfish1"
    )
    assert "hunter2" not in repr(settings)
    assert "swordfish" not in repr(settings)


def test_a_public_host_with_the_published_secret_is_warned_about(monkeypatch):
    assert not list(_load(monkeypatch).warnings())
    assert any("JWT_SECRET" in warning for warning in _load(monkeypatch, HOST="0.0.0.0").warnings())
    assert not list(_load(monkeypatch, HOST="0.0.0.0", **SAFE).warnings())


def test_several_processes_without_redis_are_warned_about(monkeypatch):
    mongo = {"DATABASE_URL": "mongodb://db.example.com/tarazu?replicaSet=rs0"}
    assert any("REDIS_URL" in warning for warning in _load(monkeypatch, **mongo).warnings())
    assert not list(_load(monkeypatch, REDIS_URL="redis://x", **mongo).warnings())
    assert not list(_load(monkeypatch, REDIS_URL="redis://x").warnings())


def test_the_password_of_a_database_is_not_shown(monkeypatch):
    settings = _load(
        monkeypatch, DATABASE_URL="mongodb://tarazu:hunter2@db.example.com/tarazu?replicaSet=rs0"
    )
    assert settings.database_name == "mongodb://db.example.com/tarazu?replicaSet=rs0"
    assert "hunter2" not in repr(settings)
    assert settings.is_shared


@pytest.mark.parametrize(
    ("name", "value"), [("DATABASE_URL", "mongodb://"), ("REDIS_URL", "localhost:6379"), ("LEASE_MS", "100")]
)
def test_an_address_that_is_none_is_refused_by_name(monkeypatch, name, value):
    with pytest.raises(SettingsInvalid) as caught:
        _load(monkeypatch, **{name: value})
    assert caught.value.problems[0].startswith(f"{name}: ")


def test_misspelt_variables_are_warned_about(tmp_path):
    """COMISSION_PERCENT=20 is silently 0 %: the platform works for free."""
    file = tmp_path / ".env"
    file.write_text("PORT=1\nSOMETHING_ELSE=1\nTICK_SECOND=5\n")
    warnings = misspelt(
        {"COMISSION_PERCENT": "20", "TARAZU_PORT": "1", "PATH": "x", "HOSTNAME": "x", "HOME": "x"}, file
    )

    assert {warning.split()[0] for warning in warnings} == {
        "COMISSION_PERCENT",
        "SOMETHING_ELSE",
        "TARAZU_PORT",
        "TICK_SECOND",
    }
    assert any("did you mean COMMISSION_PERCENT?" in warning for warning in warnings)
    assert misspelt({"PORT": "1"}, None) == ()


def test_nobody_else_reads_the_environment():
    """A second reader would have a second set of defaults and no check."""
    root = Path(__file__).parents[2]
    reading = re.compile(r"os\.environ\.get|os\.environ\[|os\.getenv|from os import")
    readers = [
        str(path.relative_to(root))
        for package in ("server", "billing_engine", "chat")
        for path in (root / package).rglob("*.py")
        if reading.search(path.read_text())
    ]
    assert readers == []


def test_the_published_secret_is_in_one_place():
    root = Path(__file__).parents[2]
    assert DEVELOPMENT_SECRET not in "".join(
        path.read_text() for path in (root / "server").rglob("*.py") if path.name != "settings.py"
    )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"NOTIFIER": "smtp", "SMTP_FROM": "a@example.com"}, "SMTP_HOST"),
        ({"NOTIFIER": "smtp", "SMTP_HOST": "mail", "SMTP_FROM": "nobody"}, "SMTP_FROM"),
        ({"NOTIFIER": "webhook", "NOTIFY_WEBHOOK_SECRET": "x" * 32}, "NOTIFY_WEBHOOK_URL"),
        ({"NOTIFIER": "webhook", "NOTIFY_WEBHOOK_URL": "https://a.example.com/"}, "NOTIFY_WEBHOOK_SECRET"),
    ],
)
def test_a_way_of_notifying_needs_where_to(monkeypatch, settings, named):
    """Found out at the start, and not when the first person has forgotten a password."""
    with pytest.raises(SettingsInvalid) as refused:
        _load(monkeypatch, **settings)
    assert any(problem.startswith(named) for problem in refused.value.problems)


def test_production_limits_rates_and_sends_no_link_in_the_clear(monkeypatch):
    webhook = {
        "NOTIFIER": "webhook",
        "NOTIFY_WEBHOOK_URL": "http://a.example.com/",
        "NOTIFY_WEBHOOK_SECRET": "x" * 32,
    }
    with pytest.raises(SettingsInvalid) as refused:
        _load(monkeypatch, APP_ENV="production", RATE_LIMITS="off", **webhook, **SAFE)
    named = {problem.partition(":")[0] for problem in refused.value.problems}
    assert {"RATE_LIMITS", "NOTIFY_WEBHOOK_URL"} <= named


@pytest.mark.parametrize("price", ["0", "0.99", "100000.01"])
def test_a_credit_has_a_price_that_an_admin_could_set(monkeypatch, price: str):
    with pytest.raises(SettingsInvalid) as refused:
        _load(monkeypatch, CREDIT_PRICE=price)
    assert "CREDIT_PRICE: must be from 1.00 to 100000.00" in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "package = 5",
        "[[package]]\nid = 1\nname = 'A'\n",
        "[[package]]\nid = 1\nname = 'A'\ncredits = 0\n",
        "[[package]]\nid = 1\nname = 'A'\ncredits = 5.5\n",
        "[[package]]\nid = true\nname = 'A'\ncredits = 5\n",
        "[[package]]\nid = 1\nname = ''\ncredits = 5\n",
        "[[package]]\nid = 1\nname = 'A'\ncredits = 5\n" * 2,
        "not toml",
    ],
)
def test_a_file_of_packages_that_cannot_be_used_stops_the_start(monkeypatch, tmp_path: Path, text: str):
    """Somebody would pay for what nobody meant to sell."""
    file = tmp_path / "packages.toml"
    file.write_text(text)
    with pytest.raises(SettingsInvalid) as refused:
        _load(monkeypatch, CREDIT_PACKAGES=str(file))
    assert f"CREDIT_PACKAGES: {file}" in str(refused.value)


def test_another_file_of_packages_is_used(monkeypatch, tmp_path: Path):
    file = tmp_path / "packages.toml"
    file.write_text("[[package]]\nid = 7\nname = 'One'\ncredits = 1\n")
    (package,) = _load(monkeypatch, CREDIT_PACKAGES=str(file)).packages()
    assert (package.id, package.name, package.credits) == (7, "One", 1)
    assert [one.credits for one in _load(monkeypatch, CREDIT_PACKAGES="").packages()] == [5, 10, 25, 50]


def test_prices_of_usage_that_cannot_be_used_stop_the_start(monkeypatch, tmp_path: Path):
    """Companies would be charged what nobody meant."""
    file = tmp_path / "prices.toml"
    file.write_text("version = 1\n")
    for name, value in (
        ("PRICE_BOOK", str(file)),
        ("USAGE_PRICES", "tokens.cv=1"),
        ("COMPANY_CURRENCY", "EUR"),
    ):
        with monkeypatch.context() as patch, pytest.raises(SettingsInvalid) as refused:
            _load(patch, **{name: value})
        assert f"{name}: " in str(refused.value)
    with pytest.raises(SettingsInvalid, match=r"PRICE_BOOK: .*currency is USD, COMPANY_CURRENCY is INR"):
        _load(monkeypatch, COMPANY_CURRENCY="INR")


TURN = {
    "TURN_URLS": "turn:a.example.com:3478, turns:a.example.com:443?transport=tcp",
    "TURN_SECRETS": f"{'a' * 32}, {'b' * 32}",
}


def test_what_calls_need_is_read(monkeypatch):
    rules = _load(monkeypatch, **TURN, STUN_URLS="stun:s.example.com", ICE_POLICY="relay").ice_rules()

    assert rules.turn_urls == ("turn:a.example.com:3478", "turns:a.example.com:443?transport=tcp")
    assert rules.secrets == ("a" * 32, "b" * 32)
    assert (rules.stun_urls, rules.ttl_s, rules.relay_only) == (("stun:s.example.com",), 3_600, True)


@pytest.mark.parametrize(
    ("named", "environ"),
    [
        ("TURN_URLS", {"TURN_URLS": TURN["TURN_URLS"]}),
        ("TURN_URLS", {"TURN_SECRETS": "a" * 32}),
        ("TURN_URLS", TURN | {"TURN_URLS": "https://turn.example.com"}),
        ("TURN_URLS", TURN | {"TURN_URLS": "stun:turn.example.com"}),
        ("STUN_URLS", {"STUN_URLS": "stun:a b"}),
        ("TURN_SECRETS", TURN | {"TURN_SECRETS": "a" * 31}),
        ("TURN_SECRETS", TURN | {"TURN_SECRETS": ",".join(c * 32 for c in "abcd")}),
        ("TURN_TTL_SECONDS", {"TURN_TTL_SECONDS": "59"}),
        ("ICE_POLICY", {"ICE_POLICY": "relay"}),
        ("ICE_POLICY", {"ICE_POLICY": "none"}),
    ],
)
def test_calls_that_could_not_work_are_refused_at_the_start(monkeypatch, named, environ):
    with pytest.raises(SettingsInvalid) as refused:
        _load(monkeypatch, **environ)

    assert {problem.partition(":")[0] for problem in refused.value.problems} == {named}
    assert "a" * 31 not in str(refused.value)
