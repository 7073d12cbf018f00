"""Mixed precision goes on bit for bit, compiled or not, on a CPU or a GPU: weights, optimizer, scaler, random numbers."""

from __future__ import annotations

import pytest

from .test_run_components import QUIET, to_the_end

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

TRAINING = """
import hashlib, os
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS promises the same bits only with it
import torch
import hpc_resume
torch.manual_seed(3)
torch.use_deterministic_algorithms(True)
layers = torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(64, 1)
model = torch.nn.Sequential(*layers).to("DEVICE")
if "BACKEND":
    model = torch.compile(model, backend="BACKEND")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scaler = torch.amp.GradScaler("DEVICE", growth_interval=3)
with hpc_resume.Run(every=3, save_async=True) as run:
    run.register(model=model, optimizer=optimizer, scaler=scaler, rng=hpc_resume.rng())
    for step in run.steps(20):
        with torch.autocast("DEVICE"):
            loss = model(torch.randn(64, 32, device="DEVICE")).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        print(step, loss.item().hex(), scaler.get_scale(), flush=True)
weights = b"".join(one.detach().cpu().view(torch.uint8).numpy().tobytes() for one in model.parameters())
print("end", hashlib.sha256(weights).hexdigest(), flush=True)
"""


@pytest.mark.parametrize(
    ("device", "backend"),
    [
        pytest.param("cpu", "eager", id="cpu, compiled"),  # the default one would need a C++ compiler here
        pytest.param("cuda", "", id="cuda", marks=pytest.mark.gpu),
        pytest.param("cuda", "inductor", id="cuda, compiled", marks=pytest.mark.gpu),
    ],
)
def test_a_training_with_mixed_precision_goes_on_bit_for_bit(start, tmp_path, device, backend):
    source = QUIET + TRAINING.replace("DEVICE", device).replace("BACKEND", backend)
    alone, said = to_the_end(start, source, tmp_path, "0", "alone")
    assert len(alone) == 21, said
    assert len({line.split()[2] for line in alone[:-1]}) > 1, "the gradient scaler never changed its mind"
    resumed, said = to_the_end(start, source, tmp_path, "4,11")
    assert resumed == alone, said
