"""Classes of the libraries by name."""

from __future__ import annotations

import pytest

from conversions.submodels.library_class import diffusers_class, transformers_class

pytestmark = pytest.mark.torch


def test_a_class_that_a_version_lacks_is_an_import_error_that_names_it() -> None:
    assert diffusers_class("AutoencoderKL").__name__ == "AutoencoderKL"
    for find in (diffusers_class, transformers_class):
        with pytest.raises(ImportError, match="AutoencoderOfTomorrow"):
            find("AutoencoderOfTomorrow")
