"""The first half of ``sdsetup install``: plan, one question, environment. The second half runs in it.

Standard library only.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sdsetup.bootstrap import (
    bundle,
    command_name,
    console,
    environment_maker,
    handover,
    install_options,
    install_plan,
    installer,
    made_already,
    places,
)
from sdsetup.bootstrap.console import say
from sdsetup.bootstrap.install_options import InstallOptions
from sdsetup.errors import SetupError


def begin(arguments: Sequence[str]) -> int | None:
    """Make the environment ready, and go on in it.

    Args:
        arguments: What follows the program's name.

    Returns:
        The exit status where all is done; None where the command line is to go on in this very process.

    Raises:
        SetupError: A step failed, and why.
    """
    options = install_options.read(arguments)
    environment = places.environment_folder()
    if handover.was_prepared(environment):  # a plan is asked about once
        return None
    opened = bundle.open_bundle(options.offline) if options.offline is not None else None
    if opened is not None:
        opened.use()
    flavour = installer.flavour_for(
        sys.platform, options.flavour or (None if opened is None else opened.flavour)
    )
    lean = environment_maker.was_lean(environment) if options.lean is None else options.lean
    extras = () if lean else ("convert",)
    if opened is not None and not set(extras) <= set(opened.extras):
        if options.lean is False:
            raise SetupError(
                "install.bundle",
                f"{opened.folder} was made without torch, which --torch asks for.",
                "leave --torch out, or make another: sdsetup install --torch --bundle FOLDER",
            )
        extras = ()
    inside = places.inside(environment)
    wheel = opened.own_wheel if opened is not None and not inside else None
    wanted = environment_maker.wanted_here(
        flavour, extras=extras, torch_required=options.lean is False, wheel=wheel
    )
    # Of an environment that is whole, the second half says what there is to do.
    whole = environment_maker.is_ready(environment, wanted) or environment_maker.lacks_torch_alone(
        environment, wanted
    )
    if not whole or (options.dry_run and options.bundle):
        wrong = environment_maker.fault(environment)
        if wrong is not None:
            raise wrong
        here = environment_maker.was_made(environment)
        plan = install_plan.plan(
            environment,
            wanted,
            here=here,
            offline=opened is not None,
            made=made_already.read(environment, arguments) if here else made_already.NOTHING,
        )
        if not _agreed(options, plan, arguments):
            return 0 if options.dry_run else 1
    if not whole:
        environment_maker.prepare(environment, wanted)
    if options.bundle is not None:
        bundle.make(options.bundle, environment, wanted)
        if options.model == "demo":
            bundle.say_how_to_use(options.bundle, options.model)
            return 0
    if inside:
        return None
    return handover.go_on(places.python_of(environment), ["-m", "sdsetup", *arguments], prepared=environment)


def _agreed(options: InstallOptions, plan: install_plan.InstallPlan, arguments: Sequence[str]) -> bool:
    for line in plan.lines(options):
        console.say_folded(line, hang=install_plan.HANG)
    if options.dry_run:
        return False
    plan.require_space()
    if options.yes:
        return True
    if not console.is_attended():
        command = " ".join(command_name.quoted(part) for part in (*arguments, "--yes"))
        raise SetupError(
            "install.unattended",
            "there is no terminal to ask on whether to go on; nothing was changed.",
            f"say yes beforehand: {command_name.typed()} {command}",
        )
    if console.ask("Go on?", yes=False):
        return True
    say("Nothing was changed. Run the same command when you want to go on.")
    return False
