"""Checks of main memory."""

from __future__ import annotations

from sdsetup.doctor import shell
from sdsetup.doctor.finding import Fix, Verdict, failure, ok, skipped, warning
from sdsetup.doctor.registry import CheckContext, check
from sdsetup.doctor.shell import memory


@check(
    "memory.ram",
    "Main memory",
    why="With too little the system swaps for minutes or ends the program.",
    reads="machine plan",
)
def ram(context: CheckContext) -> Verdict:
    """Compare memory with what the purpose needs at its peak."""
    total, available = context.machine.ram_bytes, context.machine.ram_available_bytes
    needed = context.purpose.ram_bytes
    if total is None:
        return skipped("the system does not tell how much there is")
    seen = memory(total) + (f", {memory(available)} of it available" if available is not None else "")
    if context.purpose.unknown:
        return skipped(f"{seen}; what {context.purpose.model} needs is not known, see model.plan")
    wanted = f"{memory(needed)} are needed for {context.purpose.basis}"
    least = context.purpose.ram_least_bytes or needed
    if total < 0.9 * least:  # what firmware and graphics keep for themselves is missing from the total
        return failure(f"{seen}; {wanted}", _less(context))
    if total < 0.9 * needed or (available is not None and available < needed):
        return warning(f"{seen}; {wanted}", _less(context))
    return ok(f"{seen}; {wanted}")


def _less(context: CheckContext) -> Fix:
    if context.purpose.kind == "generate":
        return Fix(
            says="Close other programs, and keep one submodel loaded at a time",
            commands=(
                shell.sdsetup(
                    context, "generate", context.purpose.model or "PACKAGE", "PROMPT", "--low-vram"
                ),
            ),
        )
    return Fix(
        says="Close other programs; a conversion without its parity check and first image needs 2 GiB",
        commands=(shell.sdsetup(context, "convert", context.purpose.model or "MODEL", "--no-verify"),),
    )


@check(
    "memory.commit",
    "Commit limit",
    why="Windows gives memory out up to RAM plus page file; past that every program's requests fail.",
    reads="machine plan",
)
def commit(context: CheckContext) -> Verdict:
    """Compare what the system may still promise with what the purpose needs."""
    limit, used = context.machine.commit_limit_bytes, context.machine.commit_used_bytes
    if limit is None or used is None:
        return skipped("this system promises more memory than it has")
    left = limit - used
    seen = f"{memory(left)} of {memory(limit)} can still be promised"
    if context.purpose.unknown:
        return skipped(f"{seen}; what {context.purpose.model} needs is not known, see model.plan")
    if left >= context.purpose.ram_bytes:
        return ok(seen)
    if context.machine.platform == "win32":
        return warning(
            f"{seen}; {memory(context.purpose.ram_bytes)} may be asked for",
            Fix(
                says="Let Windows manage the page file: Advanced, Performance, Virtual memory",
                commands=("SystemPropertiesAdvanced.exe",),
            ),
        )
    return warning(
        f"{seen}; {memory(context.purpose.ram_bytes)} may be asked for",
        Fix(says="Add swap, or relax vm.overcommit_memory", commands=("sudo sysctl vm.overcommit_memory=0",)),
    )
