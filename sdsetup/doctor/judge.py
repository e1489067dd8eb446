"""Facts and a purpose in, findings out."""

from __future__ import annotations

from collections.abc import Sequence

from sdsetup.doctor.checks import checks
from sdsetup.doctor.finding import Finding, Fix, Verdict, failure, skipped
from sdsetup.doctor.purpose import Purpose
from sdsetup.doctor.registry import Check, CheckContext, NotReadError
from sdsetup.errors import UsageError
from sdsetup.machine.facts import Environment


def select(kind: str, only: Sequence[str] = ()) -> tuple[Check, ...]:
    """Choose the checks of a purpose.

    Args:
        kind: The purpose's kind.
        only: Ids, or topics such as ``"hub"``; these are taken whatever the purpose.

    Raises:
        UsageError: ``only`` names something that does not exist.
    """
    known = checks()
    if not only:
        return tuple(check for check in known if kind in check.kinds)
    chosen: set[str] = set()
    for wanted in only:
        found = {check.id for check in known if wanted in {check.id, check.id.partition(".")[0]}}
        if not found:
            raise UsageError(
                "doctor.unknown-check",
                f"There is no check called {wanted!r}.",
                "sdsetup doctor --list names them all.",
            )
        chosen |= found
    return tuple(check for check in known if check.id in chosen)


def judge(chosen: Sequence[Check], environment: Environment, purpose: Purpose) -> tuple[Finding, ...]:
    """Run checks over facts. A check that crashes becomes a finding of its own."""
    context = CheckContext(environment=environment, purpose=purpose)
    return tuple(
        Finding(id=check.id, title=check.title, why=check.why, verdict=_verdict(check, context))
        for check in chosen
    )


def _verdict(check: Check, context: CheckContext) -> Verdict:
    try:
        return check.judge(context)
    except NotReadError as missing:
        field = str(missing.args[0])
        return skipped(context.environment.unknown.get(field, f"{field} was not read"))
    except Exception as error:  # noqa: BLE001 - one broken check must not hide the others
        return failure(
            f"this check itself failed: {type(error).__name__}: {error}",
            Fix(says="Report this with what `sdsetup doctor --report` prints; the other checks still hold"),
        )
