"""The Hugging Face Hub: the only user of its library.

``resolve`` finds a model, ``plan`` its needed files, ``download`` brings them.
"""

from sdsetup.hub.download import download
from sdsetup.hub.model_ref import DemoModel, HubModel, Licence, LocalModel, ModelRef, RemoteFile
from sdsetup.hub.plan import DownloadPlan, plan
from sdsetup.hub.resolve import resolve

__all__ = [
    "DemoModel",
    "DownloadPlan",
    "HubModel",
    "Licence",
    "LocalModel",
    "ModelRef",
    "RemoteFile",
    "download",
    "plan",
    "resolve",
]
