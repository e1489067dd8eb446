"""A server on loopback that speaks the Hub's API as huggingface_hub 2.4 uses it, and misbehaves on demand."""

from tests.hub_server.faults import Fault
from tests.hub_server.repos import Account, Repo
from tests.hub_server.server import HubServer

__all__ = ["Account", "Fault", "HubServer", "Repo"]
