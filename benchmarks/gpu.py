"""What a save costs a training on a GPU, against copying the same tensors into pinned memory: benchmarks/gpu.md.

    python benchmarks/gpu.py          prints, and writes benchmarks/gpu.md; needs an NVIDIA GPU and PyTorch

Not a part of `make bench`, whose figures come from one run on one machine, most of which have no GPU.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench_checkpoints import MIB, TENSORS, Box, Publishing, boundary, in_turn, seconds
from figures import HEADER, Figure

from hpc_resume.checkpoints.snapshot import Arena
from hpc_resume.checkpoints.state_dict import StateComponent

HERE = Path(__file__).parent


class PublishingFromGpu(Publishing):
    """Without plain write(2): the bytes are on the GPU."""

    def __init__(self, torch: Any, base: Path, box: Box) -> None:
        host = Box({name: tensor.cpu() for name, tensor in box.state.items()})
        super().__init__(torch, base, host)
        self.box = box


def figures(torch: Any) -> list[Figure]:
    """All of them, in one run."""
    size = (MIB << 20) // TENSORS // 4
    box = Box({f"layer{n}": torch.rand(size, device="cuda") for n in range(TENSORS)})
    there = {name: torch.empty(size, pin_memory=True) for name in box.state}
    component, arena = StateComponent(box), Arena()

    def pinned_copy() -> None:
        for name, tensor in box.state.items():
            there[name].copy_(tensor, non_blocking=True)
        torch.cuda.synchronize()

    def plain_copy() -> None:
        for tensor in box.state.values():
            tensor.cpu()

    def freeze() -> None:
        component.freeze("model", arena.copy)

    torch.cuda.synchronize()
    first = seconds(freeze)
    copies = in_turn(
        {"pinned": lambda: seconds(pinned_copy), "plain": lambda: seconds(plain_copy), "ours": lambda: seconds(freeze)}
    )
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        ways = PublishingFromGpu(torch, base, box)
        published = in_turn({"ours": ways.ours, "torch": ways.torch_save, "dcp": ways.dcp})
        ways.clear()
        blocked, copied = boundary(base, box, pinned_copy)
    pinned = "a copy into pinned memory"
    snapshot, publishing = f"snapshot of {MIB} MiB on the GPU", f"publishing {MIB} MiB from the GPU"
    return [
        Figure(snapshot, "s", copies["ours"], pinned, copies["pinned"], "at most 1.2 x"),
        Figure(snapshot, "s", copies["ours"], "tensor.cpu() of each", copies["plain"]),
        Figure("the first snapshot, which pins its memory", "s", [first], pinned, copies["pinned"]),
        Figure(f"asynchronous boundary, {MIB} MiB on the GPU", "s", blocked, pinned, copied, "at most 1.2 x"),
        Figure(publishing, "s", published["ours"], "torch.save and rename, without fsync", published["torch"]),
        Figure(publishing, "s", published["ours"], "torch.distributed.checkpoint", published["dcp"]),
    ]


def main() -> int:
    try:
        import torch
    except ImportError:
        print("benchmarks/gpu.py needs PyTorch: `make torch`", file=sys.stderr)
        return 1
    if not torch.cuda.is_available():
        print("benchmarks/gpu.py needs an NVIDIA GPU, and PyTorch sees none here", file=sys.stderr)
        return 1
    rows = [figure.row() for figure in figures(torch)]
    machine = f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, Python {platform.python_version()}"
    text = "\n".join(["# Figures of one run of `python benchmarks/gpu.py`", "", f"{machine}.", "", HEADER, *rows, ""])
    (HERE / "gpu.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
