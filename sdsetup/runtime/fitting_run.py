"""Run a submodel, in tiles where the device has too little memory for it as a whole."""

from __future__ import annotations

from conversions.errors import ConversionError
from conversions.events import Listener, Notice
from sdsetup.errors import SetupError
from sdsetup.runtime.runner import Runner
from sdsetup.runtime.sessions import OUT_OF_MEMORY, Array, Arrays


def run_fitting(runner: Runner, submodel: str, inputs: Arrays, *, listener: Listener) -> dict[str, Array]:
    """Run a submodel once; where memory runs out, again in tiles, and in smaller ones.

    Args:
        runner: Has given back what else it holds before it says that memory ran out.
        submodel: What is run.
        inputs: Its inputs, by name.
        listener: Hears of the tiles.

    Raises:
        SetupError: The run failed, or memory ran out in the smallest tiles too.
    """
    in_tiles = False
    while True:
        try:
            return runner.run(submodel, inputs)
        except SetupError as error:
            if error.code != OUT_OF_MEMORY:
                raise
            message, hint = error.message, error.hint
        # Not in the handler, whose traceback would keep the session that failed and its memory.
        try:
            side = runner.shrink_tiles(submodel)
        except ConversionError as error:
            raise SetupError(
                OUT_OF_MEMORY, f"{message} {submodel} runs in one piece: {error.message}", _hint(runner)
            ) from None
        if side is None:
            raise SetupError(OUT_OF_MEMORY, message, _hint(runner) if in_tiles else hint)
        in_tiles = True
        listener(
            Notice(
                text=f"the device has too little memory for {submodel}: "
                f"it runs in tiles of {side}x{side} from here on."
            )
        )


def _hint(runner: Runner) -> str:
    if runner.device.provider.target == "cpu":
        return "use a smaller --width and --height."
    return "use a smaller --width and --height, or run on the CPU: --provider cpu."
