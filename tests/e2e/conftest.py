"""One started server for the tests of a module."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.people import World, people_of
from tests.support.server_process import QUICK, ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Ticks of a second and small sums. After the last test its books must be clean and its log without errors."""
    directory: Path = tmp_path_factory.mktemp("server")
    with ServerProcess(directory, **QUICK) as process:
        yield process
        code, output = process.settled_books()
        assert code == 0, output


@pytest_asyncio.fixture
async def world(server: ServerProcess) -> AsyncIterator[World]:
    """New people of the module's server."""
    async with people_of(server) as people:
        yield people
