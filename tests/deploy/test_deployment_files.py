"""The deployment's files name things of the product: settings, commands, paths, ports. Here each is held to what there is.

No container engine is asked. What these tests cannot see: whether an image builds and whether the engines named in it start.
"""

import http.server
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from typing import Any, Final

import pytest

from server.cli import app
from server.realtime.options import SocketOptions
from server.routes import ROUTES
from server.settings import AppEnv, Settings, variables
from tests.deploy import parsed
from tests.support.operations import OPERATIONS
from tests.support.server_process import ROOT

SECRET: Final = "0123456789abcdef0123456789abcdef"
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMMANDS: Final = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback is not None}
PATHS: Final = {route.path for route in ROUTES}
PORT: Final = str(Settings.model_fields["port"].default)


@pytest.fixture
def final() -> list[parsed.Instruction]:
    """The Dockerfile's last stage: what ships."""
    return parsed.stages()[-1]


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = parsed.compose(JWT_SECRET=SECRET)["services"]
    return found


@pytest.fixture
def ours(services: dict[str, Any]) -> dict[str, Any]:
    """The services that run our image."""
    return {name: service for name, service in services.items() if "build" in service}


# -- Procfile -----------------------------------------------------------------------------------------------------


def test_the_procfile_runs_a_web_process_and_a_worker_by_commands_that_exist() -> None:
    processes = parsed.processes()
    assert set(processes) == {"web", "worker"}
    for program, command in processes.values():
        assert program in PROJECT["project"]["scripts"]
        assert command in COMMANDS


# -- the image ----------------------------------------------------------------------------------------------------


def test_the_images_python_is_one_that_the_package_runs_on() -> None:
    front, build, final = parsed.stages()
    tag = parsed.only(front, "ARG").text.removeprefix("PYTHON=")
    image = re.fullmatch(r"(\d+)\.(\d+)-slim(-\w+)?", tag)
    assert image is not None, "a slim image, pinned to a minor version"
    needed = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert (int(image[1]), int(image[2])) >= tuple(int(part) for part in needed.split("."))
    # The environment is copied from one to the other with its absolute paths and its compiled modules.
    assert parsed.only(build, "FROM").text == "python:${PYTHON} AS build"
    assert parsed.only(final, "FROM").text == "python:${PYTHON}"


def test_the_image_installs_what_is_pinned_with_its_hashes_and_nothing_else() -> None:
    text = " ".join(i.text for i in parsed.stages()[1] if i.name == "RUN")
    installs = re.findall(r"install (?:--\S+ (?::all: )?)*.*?(?=&&|;|$)", text.replace("uninstall", "remove"))
    assert len(installs) == 3
    for install in installs:
        hashed = "--require-hashes" in install and "-r requirements/" in install
        assert hashed or "--no-deps --no-build-isolation ." in install, install
    # The optional driver comes from the tests' pins by this expression.
    assert r"sed -n '/^motor==/,/[^\\]$/p' requirements/dev.txt" in text
    pins = (ROOT / "requirements" / "dev.txt").read_text()
    assert re.search(r"^motor==\S+ \\\n(    --hash=sha256:\w{64}( \\)?\n)+", pins, re.MULTILINE)


def test_the_image_runs_as_nobody_special_and_gets_its_signals(final: list[parsed.Instruction]) -> None:
    user, _, group = parsed.only(final, "USER").text.partition(":")
    assert int(user) > 0, "by number: an orchestrator's runAsNonRoot believes no names"
    assert int(group) > 0
    assert parsed.only(final, "STOPSIGNAL").text == "SIGTERM"
    assert parsed.only(final, "ENTRYPOINT").words == list(PROJECT["project"]["scripts"])[:1]
    (command,) = parsed.only(final, "CMD").words
    assert command in COMMANDS


def test_the_image_sets_only_what_is_a_setting_and_listens_where_it_says(
    final: list[parsed.Instruction],
) -> None:
    env = parsed.environment_of(final)
    assert {name for name in env if not name.startswith(("PATH", "PYTHON"))} <= set(variables())
    assert env["HOST"] == "0.0.0.0", "a loopback address of a container is reached by nobody"
    assert env["PORT"] == parsed.only(final, "EXPOSE").text == PORT
    assert not any(name in env for name in ("JWT_SECRET", "DATABASE_URL", "APP_ENV")), (
        "not the image's business"
    )


def test_all_that_the_image_is_built_from_is_sent_to_the_builder() -> None:
    ignored, *kept = [
        line for line in parsed.DOCKERIGNORE.read_text().splitlines() if not line.startswith("#")
    ]
    assert ignored == "*"
    sent = {line.removeprefix("!").rstrip("/") for line in kept if line.startswith("!")}
    for path in sent:
        assert (ROOT / path).exists(), path
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = [
        i.text for stage in parsed.stages() for i in stage if i.name == "COPY" and "--from" not in i.text
    ]
    sources = {text.rpartition(" ")[0].rstrip("/") for text in copied} - {".", "requirements"}
    needed = {
        *wheel["packages"],
        *wheel["force-include"],
        PROJECT["project"]["readme"],
        PROJECT["project"]["license"]["file"],
        "pyproject.toml",
        "requirements/run.txt",
        *sources,
    }
    assert needed <= sent
    assert not any("test" in path or path.startswith(".") for path in sent)


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers `/healthz` with the status that its server holds."""

    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/healthz" else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (None, 1)])
def test_the_health_check_says_what_healthz_says(
    final: list[parsed.Instruction], status: int | None, code: int
) -> None:
    assert "/healthz" in PATHS
    check = parsed.only(final, "HEALTHCHECK").text.partition("CMD ")[2]
    program, script = parsed.Instruction("CMD", check).words
    assert program == "python"
    assert any(
        i.text == f"deploy/healthcheck.py {script.rpartition('/')[0]}/" for i in final if i.name == "COPY"
    )
    with http.server.HTTPServer(("127.0.0.1", 0), Answering) as server:
        server.status = status  # type: ignore[attr-defined]
        port = server.server_port
        if status is None:
            server.server_close()
        else:
            threading.Thread(target=server.handle_request, daemon=True).start()
        ran = subprocess.run(
            [sys.executable, ROOT / "deploy" / "healthcheck.py"],
            env={"PORT": str(port)},
            capture_output=True,
            check=False,
            timeout=20,
        )
    assert (ran.returncode, ran.stderr) == (code, b"")


# -- the compose file ---------------------------------------------------------------------------------------------


def test_a_compose_without_a_secret_is_refused_and_with_one_makes_valid_settings(
    ours: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(parsed.VariableMissing, match="JWT_SECRET"):
        parsed.compose()
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    for service in ours.values():
        assert set(service["environment"]) <= set(variables())
        with monkeypatch.context() as patch:
            for name, value in service["environment"].items():
                assert isinstance(value, str), f"{name}: YAML's own types are not the environment's"
                patch.setenv(name, value)
            settings = Settings(_env_file=None)
        assert settings.database_url.startswith("mongodb://")
        assert settings.redis_url.startswith("redis://")
        assert settings.trusted_proxies == 1
        assert settings.app_env is AppEnv.DEVELOPMENT, "until there is a gateway that production takes"


def test_every_process_of_the_compose_file_runs_a_command_that_exists(ours: dict[str, Any]) -> None:
    assert set(ours) == {"web1", "web2", "worker"}
    assert [ours[name].get("command") for name in ("web1", "web2")] == [None, None], "the image's own: serve"
    assert ours["worker"]["command"] == ["worker"]
    assert "worker" in COMMANDS
    # The image's health check asks there, whichever command runs.
    assert "healthcheck" not in ours["worker"]
    assert str(ours["worker"]["environment"]["WORKER_PORT"]) == PORT
    for service in ours.values():
        assert service["read_only"] is True
        assert parsed.seconds(service["stop_grace_period"]) >= 15, "it drains within 10 s"


def test_services_depend_on_start_and_reach_only_what_is_there(services: dict[str, Any]) -> None:
    whole = parsed.compose(JWT_SECRET=SECRET)
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            condition = how["condition"]
            assert other in services
            if condition == "service_healthy":
                assert "healthcheck" in services[other] or "build" in services[other], (
                    f"{name} waits for ever"
                )
            if condition == "service_completed_successfully":
                assert services[other]["restart"] in ("no", "on-failure"), f"{other} would never be through"
        assert set(service["networks"]) <= set(whole["networks"])
        assert service["restart"] in ("unless-stopped", "on-failure")
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            found = (ROOT / source).is_file() if source.startswith(".") else source in whole["volumes"]
            assert found, f"{name}: {volume}"
        tag = service["image"].rpartition(":")[2]
        assert "build" in service or re.search(r"\d+\.\d+", tag), f"{service['image']} moves"


def test_only_the_proxy_is_reached_from_outside(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    assert parsed.compose(JWT_SECRET=SECRET)["networks"]["inside"] == {"internal": True}
    for name in ("mongo1", "mongo2", "mongo3", "redis"):
        assert services[name]["networks"] == ["inside"]


def test_the_replica_set_of_the_url_is_the_one_that_is_made(
    services: dict[str, Any], ours: dict[str, Any]
) -> None:
    url = re.fullmatch(
        r"mongodb://([^/]+)/\w+\?replicaSet=(\w+)", ours["web1"]["environment"]["DATABASE_URL"]
    )
    assert url is not None
    members = url[1].split(",")
    assert len(members) == 3, "two of three are a majority when one is gone"
    script = parsed.MONGO_INIT.read_text()
    made = re.search(r"^const members = (\[.*\]);", script, re.MULTILINE)
    assert made is not None
    assert parsed.Instruction("", made[1]).words == members
    assert f'_id: "{url[2]}"' in script
    for member in members:
        service = services[member.removesuffix(":27017")]
        assert ["--replSet", url[2]] == service["command"][1:3]
        assert any(volume.endswith(":/data/db") for volume in service["volumes"])
    init = services["mongo-init"]
    assert any(f":{init['command'][-1]}:" in volume for volume in init["volumes"])
    assert set(init["depends_on"]) == {member.removesuffix(":27017") for member in members}


def test_redis_keeps_what_it_has_over_a_restart_and_evicts_no_lock(services: dict[str, Any]) -> None:
    command = services["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert "redis:/data" in services["redis"]["volumes"]


# -- the proxy ----------------------------------------------------------------------------------------------------


def test_the_proxy_knows_every_web_process_and_asks_it_on_paths_that_exist(ours: dict[str, Any]) -> None:
    sections = parsed.haproxy()
    web = [[name, f"{name}:{PORT}"] for name in ours if name != "worker"]
    asked = {}
    for backend in ("ready", "living"):
        lines = sections[f"backend {backend}"]
        assert [line[1:3] for line in lines if line[0] == "server"] == web
        asked[backend] = next(line[3] for line in lines if line[:2] == ["option", "httpchk"])
    assert asked == {"ready": "/readyz", "living": "/healthz"}
    denied = next(line for line in sections["frontend clients"] if line[0] == "http-request")
    assert {*asked.values(), denied[-2]} <= PATHS
    assert denied[-2] == "/metrics"


def test_the_proxy_lets_an_idle_socket_live_and_repeats_nothing_that_was_sent() -> None:
    defaults = parsed.haproxy()["defaults"]
    patience = {line[1]: parsed.seconds(line[2]) for line in defaults if line[0] == "timeout"}
    options = SocketOptions()
    assert patience["tunnel"] > 2 * (options.ping_interval_s + options.ping_timeout_s)
    assert ["retry-on", "conn-failure"] in defaults
    assert ["http-reuse", "never"] in defaults
    assert ["option", "forwardfor"] in defaults, "TRUSTED_PROXIES=1 believes its last address"


def test_the_proxy_has_files_for_all_its_connections(services: dict[str, Any]) -> None:
    most = next(int(line[1]) for line in parsed.haproxy()["global"] if line[0] == "maxconn")
    assert services["proxy"]["ulimits"]["nofile"]["hard"] > 2 * most, "HAProxy would not start"


# -- what the person on call reads --------------------------------------------------------------------------------


def test_every_series_that_the_operations_page_names_is_one_that_a_process_has() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "server").rglob("*.py"))
    known = set(re.findall(r'"(tarazu_\w+)[{"]', code))
    exact: Callable[[str], bool] = lambda name: any(  # noqa: E731
        name in (series, f"{series}_total", f"{series}_bucket") for series in known
    )
    named = set(re.findall(r"tarazu_[a-z_]+", OPERATIONS.read_text()))
    assert len(named) > 15
    assert [n for n in sorted(named) if not exact(n) and not n.startswith("tarazu_store_queue_")] == []
