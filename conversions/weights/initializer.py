"""Read the numbers of an initializer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir as ir


def read(tensor: ir.TensorProtocol) -> NDArray[Any]:
    """Return an initializer's numbers, from its file where they lie in one.

    Not by onnx_ir, which refuses files that have several hard links, as those of packages may.

    Raises:
        OSError: The file cannot be read.
    """
    import onnx_ir as ir

    if not isinstance(tensor, ir.ExternalTensor):
        return tensor.numpy()
    stored = np.fromfile(tensor.path, tensor.dtype.numpy(), tensor.size, offset=tensor.offset or 0)
    return stored.reshape(tensor.shape.numpy())
