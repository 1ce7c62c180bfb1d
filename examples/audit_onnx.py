"""Audit a pair of ONNX files: encoder and decoder, from whatever framework wrote them.

pip install 'collapsekit[onnx]' onnxscript
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

import collapsekit as ck


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, logvar = self.heads(x).chunk(2, dim=1)
        return mean, logvar


torch.manual_seed(0)
x = torch.rand(200, 16)
batch = {0: torch.export.Dim("batch")}  # without it the file takes batches of one size only

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    # The names of the outputs are the declaration: `logvar` is read as a log-variance.
    torch.onnx.export(
        Encoder(), (x[:2],), folder / "enc.onnx", dynamo=True, verbose=False,
        output_names=["mean", "logvar"], dynamic_shapes={"x": batch},
    )  # fmt: skip
    torch.onnx.export(
        nn.Sequential(nn.Linear(3, 16), nn.Sigmoid()), (torch.zeros(2, 3),), folder / "dec.onnx",
        dynamo=True, verbose=False, dynamic_shapes=(batch,),
    )  # fmt: skip
    audit = ck.audit(f"onnx:{folder / 'enc.onnx'},{folder / 'dec.onnx'}", x, likelihood="bernoulli")

print(audit)
print("\n".join(audit.provenance["notes"]))
