"""The check of the model that is to be converted."""

from __future__ import annotations

from sdsetup.doctor import commands
from sdsetup.doctor.commands import memory, size
from sdsetup.doctor.finding import Fix, Verdict, failure, ok, skipped
from sdsetup.doctor.registry import Look, check

# These say something of the network or of this machine, which other findings judge; nothing of the model.
_OUT_OF_REACH = frozenset(
    {
        "hub.offline", "hub.unreachable", "hub.server", "hub.proxy", "hub.certificate", "hub.not-in-cache",
        "hub.rate-limited", "plan.packages", "",
    }
)  # fmt: skip


@check(
    "model.plan",
    "Plan of the conversion",
    why="What a model needs differs tenfold, and some checkpoints cannot be converted at all.",
    reads="plan machine",
    kinds=frozenset({"anything", "convert"}),
)
def plan(look: Look) -> Verdict:
    """Say what converting the named model takes, or why it cannot be converted."""
    found = look.plan
    if not found.model:
        return skipped("no model was named; --for convert OWNER/NAME plans its conversion")
    if found.error and found.code in _OUT_OF_REACH:
        return skipped(found.error)
    if found.error:
        return failure(
            found.error,
            Fix(
                says=found.hint or "Take another checkpoint, or see all that convert says about this one",
                commands=(commands.sdsetup(look, "convert", found.model, "--dry-run"),),
            ),
        )
    pictures = (
        "pictures: known once its graphs are traced"
        if found.vram_bytes is None
        else f"pictures of {found.side} x {found.side}: {memory(found.vram_bytes)} of adapter memory"
    )
    if found.largest_side:
        pictures += f", at most {found.largest_side} x {found.largest_side} on this machine's adapter"
    return ok(
        f"downloads {size(found.download_bytes)}, writes {size(found.package_bytes)}, "
        f"takes {memory(found.ram_bytes)} of main memory; {pictures}"
    )
