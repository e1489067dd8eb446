"""What does not fit into main memory is refused beforehand."""

from __future__ import annotations

import pytest

from sdsetup.errors import SetupError
from sdsetup.main_memory import require_for_verification


def test_what_fits_passes_and_what_no_machine_has_is_refused_with_a_way_on() -> None:
    require_for_verification(2**20)
    with pytest.raises(SetupError, match="main memory") as caught:
        require_for_verification(2**60)
    assert caught.value.code == "verify.memory"
    assert "--no-verify" in caught.value.hint
