"""Every check: the modules that hold them, imported so that they register themselves."""

from __future__ import annotations

from sdsetup.doctor import graphics, hub, memory, model, packages, python, runtime, storage, system
from sdsetup.doctor.registry import Check, registered

_ = (python, system, model, memory, storage, graphics, packages, runtime, hub)  # importing registers


def checks() -> tuple[Check, ...]:
    """List every check, topic by topic, in the order a person wants to read them."""
    return registered()
