"""Find and download models on the Hugging Face Hub; the only user of ``huggingface_hub``.

``resolve`` finds a model, ``plan`` selects its files, ``download`` downloads them.
"""

from sdsetup.hub.cache import folder as cache_folder
from sdsetup.hub.download import download
from sdsetup.hub.model_ref import DemoModel, HubModel, Licence, LocalModel, ModelRef, RemoteFile
from sdsetup.hub.plan import DownloadPlan, plan
from sdsetup.hub.remote_storage import HubStorage
from sdsetup.hub.resolve import resolve
from sdsetup.hub.snapshot import Snapshot

__all__ = [
    "DemoModel",
    "DownloadPlan",
    "HubModel",
    "HubStorage",
    "Licence",
    "LocalModel",
    "ModelRef",
    "RemoteFile",
    "Snapshot",
    "cache_folder",
    "download",
    "plan",
    "resolve",
]
