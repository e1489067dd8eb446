from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub_server import HubServer
from tests.hub_server.client import Machine


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def machine(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(endpoint=hub.endpoint, home=tmp_path_factory.mktemp("machine")) as user:
        yield user
