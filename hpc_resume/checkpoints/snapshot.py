"""A copy of a state in host memory, so that the training may go on while it is written.

The copies are kept and filled again by the next snapshot: fresh memory costs several times the copy itself (measured:
1.7 GB/s into new pages, 17 GB/s into these). From a GPU they are pinned, which the copy over PCIe needs to be fast.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from typing import Any

_AS_THEY_ARE = (str, bytes, int, float, complex, bool, type(None))


class Arena:
    """The memory of one component's snapshots; one snapshot at a time may be in use."""

    def __init__(self) -> None:
        self._buffers: list[Any] = []
        self._used = 0
        self._pins = True
        self._twins: dict[Any, Any] = {}
        self._streams: set[Any] = set()  # of every GPU that a copy comes from

    def copy(self, state: object) -> object:
        """The same values in memory that the training does not touch: tensors, arrays and plain containers."""
        self._used, self._twins, self._streams = 0, {}, set()
        try:
            copied = self._copy(state)
            for stream in self._streams:
                stream.synchronize()
        finally:
            self._twins, self._streams = {}, set()
        del self._buffers[self._used :]
        return copied

    def _copy(self, value: Any) -> Any:
        kind = type(value)
        if kind in _AS_THEY_ARE:
            return value
        if kind in (dict, OrderedDict, Counter):
            copied = kind({key: self._copy(item) for key, item in value.items()})
            if kind is OrderedDict and vars(value):  # a module's state has its versions there, as `_metadata`
                vars(copied).update(self._copy(vars(value)))
            return copied
        if kind in (list, tuple):
            return kind([self._copy(item) for item in value])
        if kind in (set, frozenset, bytearray):
            return kind(value)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            return self._tensor(torch, value)
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.ndarray):
            return value.copy()
        return value  # dtypes, devices, shapes, NumPy's scalars: what the formats accept beyond these never changes

    def _tensor(self, torch: Any, value: Any) -> Any:
        source = value.detach()
        if source.is_cuda:  # where the copy is queued: the current stream of the tensor's own GPU
            self._streams.add(torch.cuda.current_stream(source.device))
        if source.layout is not torch.strided or source.is_quantized or source.is_meta or source.numel() == 0:
            return value.clone()
        # Two names for one tensor (tied weights) stay one in the file.
        key = (source.data_ptr(), source.device, source.dtype, source.shape, source.stride())
        if (twin := self._twins.get(key)) is None:
            twin = self._twins[key] = self._buffer(torch, source)
            twin.copy_(source, non_blocking=source.is_cuda)
        copied = twin.detach()
        if isinstance(value, torch.nn.Parameter):
            return torch.nn.Parameter(copied, requires_grad=value.requires_grad)
        return copied.requires_grad_() if value.requires_grad else copied

    def _buffer(self, torch: Any, source: Any) -> Any:
        """The buffer that this place of the state had last time, where it still fits."""
        place, self._used = self._used, self._used + 1
        if place < len(self._buffers):
            known = self._buffers[place]
            as_pinned = known.is_pinned() == source.is_cuda or not self._pins
            if as_pinned and (known.dtype, known.shape) == (source.dtype, source.shape):
                return known
        fresh = self._memory(torch, source)
        self._buffers[place : place + 1] = [fresh]
        return fresh

    def _memory(self, torch: Any, source: Any) -> Any:
        if source.is_cuda and self._pins:
            try:
                return torch.empty(source.shape, dtype=source.dtype, device="cpu", pin_memory=True)
            except RuntimeError:  # no more memory can be pinned here: a slow copy is better than none
                self._pins = False
        return torch.empty(source.shape, dtype=source.dtype, device="cpu")
