"""The deployment's files, taken apart just as far as the tests need it."""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

from tests.support.server_process import ROOT

PROCFILE: Final = ROOT / "Procfile"
DOCKERFILE: Final = ROOT / "Dockerfile"
DOCKERIGNORE: Final = ROOT / ".dockerignore"
COMPOSE: Final = ROOT / "docker-compose.yml"
HAPROXY: Final = ROOT / "deploy" / "haproxy.cfg"
MONGO_INIT: Final = ROOT / "deploy" / "mongo-init.js"

#: `${NAME}`, `${NAME:-default}`, `${NAME:?what is missing}`
_VARIABLE: Final = re.compile(r"\$\{(?P<name>\w+)(?::(?P<how>[-?])(?P<rest>[^}]*))?\}")


class VariableMissing(Exception):
    """A `${NAME:?…}` is not set: `docker compose` would refuse."""


def processes() -> dict[str, list[str]]:
    """The Procfile: each process's name, and its command's words."""
    lines = PROCFILE.read_text().splitlines()
    return {name: command.split() for name, _, command in (line.partition(": ") for line in lines)}


@dataclass(frozen=True)
class Instruction:
    """One instruction of the Dockerfile, its continued lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """Of the exec form (a JSON array). Raises ValueError for the shell form, whose process gets no signals."""
        words: list[str] = json.loads(self.text)
        return words


def stages() -> list[list[Instruction]]:
    """The Dockerfile's stages, each from its FROM on, with what stands before the first in the front."""
    text = "\n".join(line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#"))
    found: list[list[Instruction]] = [[]]
    for line in filter(None, text.replace("\\\n", " ").splitlines()):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append(Instruction(name, " ".join(rest.split())))
    return found


def only(stage: list[Instruction], name: str) -> Instruction:
    """The one instruction of this name."""
    (found,) = (instruction for instruction in stage if instruction.name == name)
    return found


def environment_of(stage: list[Instruction]) -> dict[str, str]:
    """What the ENV instructions set."""
    pairs = (pair for i in stage if i.name == "ENV" for pair in i.text.split())
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def compose(**environ: str) -> dict[str, Any]:
    """The compose file with its variables filled in as `docker compose` does. Raises `VariableMissing`."""

    def fill(match: re.Match[str]) -> str:
        value = environ.get(match["name"], "")
        if value:
            return value
        if match["how"] == "?":
            raise VariableMissing(match["name"])
        return match["rest"] or ""

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: filled(value) for key, value in node.items()}
        if isinstance(node, list):
            return [filled(value) for value in node]
        return _VARIABLE.sub(fill, node) if isinstance(node, str) else node

    loaded: dict[str, Any] = filled(yaml.safe_load(COMPOSE.read_text()))
    return loaded


def haproxy() -> dict[str, list[list[str]]]:
    """Each section of the proxy's configuration (`backend ready`): the words of its lines."""
    found: dict[str, list[list[str]]] = {}
    section: list[list[str]] = []
    for line in HAPROXY.read_text().splitlines():
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        if line.startswith(" "):
            section.append(bare.split())
        else:
            section = found[bare] = []
    return found


def seconds(text: str) -> float:
    """`20s`, `250ms`, `1h` as HAProxy and compose write them."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]
