"""What a named model needs, where its plan can be made here; else what its kind needs."""

from __future__ import annotations

from sdsetup.doctor.purpose import Kind, Purpose, purpose


def purpose_for(kind: Kind, model: str) -> Purpose:
    """Say what a use of a model needs.

    Args:
        kind: The use.
        model: A Hub repository, a folder, or empty.
    """
    from dataclasses import replace

    return replace(purpose(kind), model=model)
