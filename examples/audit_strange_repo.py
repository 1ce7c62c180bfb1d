"""Audit a model written in the worst habits: first the doctor, then the audit.

No encode, no decode: only a forward that returns five things; a sampler that uses another width
than the loss; data in channels-last; training mode left on.
"""

from __future__ import annotations

import torch
from torch import nn

import collapsekit as ck
from collapsekit.adapters.torch_module import TorchModule
from collapsekit.doctor import inspect


class MyNet_v2_final(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 8 * 8, 6)
        self.decoder = nn.Sequential(nn.Linear(3, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))

    def reparametrize(self, mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        return mu + logvar.exp() * torch.randn_like(mu)  # forgot the half

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h = torch.relu(self.bn(self.conv(x)))
        mu, logvar = self.fc(h.view(x.shape[0], -1)).chunk(2, dim=1)
        z = self.reparametrize(mu, logvar)
        loss = (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).sum()
        return self.decoder(z), x, mu, logvar, loss


torch.manual_seed(0)
model = MyNet_v2_final()
# NumPy images of shape (N, H, W, 1), moved to (N, 1, H, W): strides that break a `.view` later.
images = torch.rand(200, 8, 8, 1).permute(0, 3, 1, 2)

found = inspect(model, images, parameterisation="logvar", likelihood="bernoulli")
print(found)

# The doctor drew from the model's own sampler: its draws are as wide as if `logvar` were a
# logarithm of standard deviations. What is decoded is what is sampled, so that is what we declare.
assert len(found.faults) == 1
audit = ck.audit(TorchModule(model, parameterisation="log_scale"), images, likelihood="bernoulli")
print(audit)
print("\n".join(audit.provenance["notes"]))
