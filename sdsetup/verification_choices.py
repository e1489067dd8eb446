"""On which device a package is verified, and what its numbers are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conversions.events import Listener, Notice
from conversions.options import Target

if TYPE_CHECKING:
    from conversions.providers.devices import Device
    from conversions.verification.references import ReferenceKind


def chosen_reference(asked: ReferenceKind | None, listener: Listener) -> ReferenceKind:
    """Decide what to compare with; without PyTorch, see that the other reference computes what PyTorch did.

    Raises:
        SetupError: ``verify.evaluation``: it does not.
        ConversionError: ``verify.no_pytorch``: what was asked for is not installed.
    """
    from conversions.verification.references import default_reference, demand_installed
    from sdsetup.demo import recorded

    chosen = asked or default_reference()
    demand_installed(chosen)
    if chosen == "float32_graph":
        agreement = min(recorded.check_evaluation(listener).values())
        why = "" if asked else ", which is not installed"
        listener(
            Notice(
                text=f"PyTorch is not asked{why}: numbers are compared with a float32 evaluation of the same "
                "graph on the checkpoint's weights. "
                f"On the demo that agrees with PyTorch to {agreement:.0f} dB."
            )
        )
    return chosen


def device_for(target: Target) -> Device:
    """Return the best hardware device of a target if the installed ONNX Runtime has one, else the CPU."""
    from conversions.providers.onnx_session import require_onnxruntime
    from sdsetup.runtime.devices import choose_device, list_devices

    require_onnxruntime()
    devices = list_devices()
    here = any(device.provider.target == target and not device.software for device in devices)
    return choose_device(devices, target=target if here else "cpu")
