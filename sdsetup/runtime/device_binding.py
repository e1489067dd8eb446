"""Bind a session's inputs and outputs (I/O binding) to the device's memory, as replayed launches need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

# Run option of ONNX Runtime that keeps a run out of a recorded graph.
# Source: ONNX Runtime, docs/execution-providers/CUDA-ExecutionProvider.md, "Using CUDA Graphs".
_NOT_RECORDED = ("gpu_graph_id", "-1")


class BindingError(Exception):
    """ONNX Runtime cannot keep inputs and outputs in a device's memory."""


@dataclass(kw_only=True)
class DeviceBinding:
    """Inputs and outputs of a session at fixed addresses in its device's memory.

    The first run allocates them and is not recorded: what runs once, such as a text encoder, needs no
    recording. A session that records launches does so in its second run, and replays them in the others.

    Attributes:
        session: An ``onnxruntime.InferenceSession`` whose inputs always have the same shapes.
        memory: ONNX Runtime's name of the device's memory, such as ``cuda``.
        number: Index of the device.
        runs: Runs so far.
    """

    session: Any = field(repr=False)
    memory: str
    number: int
    runs: int = 0
    _binding: Any = field(default=None, init=False, repr=False)
    _inputs: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the session once.

        Args:
            feeds: Contiguous arrays of the types that the session wants, by input name.

        Returns:
            The outputs in the session's order.

        Raises:
            BindingError: The device's memory cannot be had by its name and index.
            Exception: Whatever ONNX Runtime raises.
        """
        if self._binding is None:
            self._run_first(feeds)
        else:
            for name, value in self._inputs.items():
                value.update_inplace(feeds[name])
            self.session.run_with_iobinding(self._binding)
        self.runs += 1
        outputs = (value.numpy() for value in self._binding.get_outputs())
        # In main memory ONNX Runtime's values share that of their arrays.
        return [output.copy() if self.memory == "cpu" else output for output in outputs]

    def _run_first(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        import onnxruntime

        binding = self.session.io_binding()
        names = [output.name for output in self.session.get_outputs()]
        try:
            for name, array in feeds.items():
                value = onnxruntime.OrtValue.ortvalue_from_numpy(array.copy(), self.memory, self.number)
                self._inputs[name] = value
                binding.bind_ortvalue_input(name, value)
            for name in names:
                binding.bind_output(name, self.memory, self.number)
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise BindingError(str(error)) from error
        options = onnxruntime.RunOptions()
        options.add_run_config_entry(*_NOT_RECORDED)
        self.session.run_with_iobinding(binding, options)
        for name, value in zip(names, binding.get_outputs(), strict=True):
            binding.bind_ortvalue_output(name, value)
        self._binding = binding
