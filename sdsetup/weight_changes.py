"""What a conversion merges into a checkpoint's weights: LoRAs and textual inversion, found once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from conversions.events import Listener, Notice, ignore
from sdsetup.adapter_source import adapters_at, embeddings_at

if TYPE_CHECKING:
    from conversions.checkpoint.folder import Checkpoint
    from conversions.weights.lora.request import AdapterRequest


@dataclass(frozen=True, kw_only=True)
class WeightChanges:
    """Files on this machine that change a checkpoint.

    Attributes:
        adapters: LoRAs and their kin with their weights, in order.
        embeddings: Files of textual inversion, in order.
        ignore_unmatched: Whether keys of adapters that belong to nothing are left out.
    """

    adapters: tuple[AdapterRequest, ...] = ()
    embeddings: tuple[Path, ...] = ()
    ignore_unmatched: bool = False

    def applied(self, checkpoint: Checkpoint, listener: Listener = ignore) -> Checkpoint:
        """Return a checkpoint with the adapters merged and the embeddings learned.

        Raises:
            ConversionError: A file cannot be read, or does not fit.
        """
        from conversions.weights.lora.with_adapters import with_adapters
        from conversions.weights.with_embeddings import with_embeddings

        adapted = with_adapters(checkpoint, self.adapters, ignore_unmatched=self.ignore_unmatched)
        for text in adapted.notices:
            listener(Notice(text=text))
        return with_embeddings(adapted.checkpoint, self.embeddings)


def find_changes(
    lora: Sequence[str],
    textual_inversion: Sequence[str],
    *,
    allow_pickle: bool,
    ignore_unmatched: bool,
    listener: Listener,
) -> WeightChanges:
    """Find the files that values of options name; those of the Hub are downloaded.

    Args:
        lora: Places of adapters, each with an optional weight.
        textual_inversion: Places of embeddings.
        allow_pickle: Whether embeddings may be pickles.
        ignore_unmatched: As ``WeightChanges`` has it.
        listener: Told of the progress.

    Raises:
        SetupError: A file cannot be had.
        ConversionError: A weight is no number, or a pickle holds programs.
    """
    return WeightChanges(
        adapters=adapters_at(lora, listener),
        embeddings=embeddings_at(textual_inversion, listener, allow_pickle=allow_pickle),
        ignore_unmatched=ignore_unmatched,
    )
