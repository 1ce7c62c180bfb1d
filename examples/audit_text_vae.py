"""Audit a text VAE: tokens in, a teacher-forced decoder that no code alone can call.

Such a decoder sees the sentence while it scores it, so there is no decode(z). What can be measured
without one is measured; `log_likelihood(x, z)` gives errors, swaps and the ELBO in nats.
"""

from __future__ import annotations

import torch
from torch import nn

import collapsekit as ck

WORDS, LENGTH = 20, 8


class TextVAE(nn.Module):
    def __init__(self, dims: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 16)
        self.reader = nn.GRU(16, 32, batch_first=True)
        self.heads = nn.Linear(32, 2 * dims)
        self.writer = nn.GRU(16 + dims, 32, batch_first=True)
        self.words = nn.Linear(32, WORDS)

    def encode(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        mean, logvar = self.heads(self.reader(self.embedding(tokens))[1][0]).chunk(2, dim=1)
        return {"mean": mean, "logvar": logvar}

    def log_likelihood(self, tokens: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """ln p(tokens | z) in nats, a number a sentence: each word given those before it."""
        before = nn.functional.pad(self.embedding(tokens[:, :-1]), (0, 0, 1, 0))
        code = z[:, None].expand(-1, tokens.shape[1], -1)
        logits = self.words(self.writer(torch.cat([before, code], dim=2))[0])
        each = nn.functional.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
        return -each.sum(dim=1)


torch.manual_seed(0)
tokens = torch.randint(WORDS, (200, LENGTH))
audit = ck.audit(TextVAE(), tokens)

# An untrained model: no information in the codes, and a swap of codes that costs next to nothing.
# That is what a collapsed text VAE looks like, its strong decoder having learned to do without.
print(audit)
print("swap gap:", audit.number("swap_gap").value, audit.number("swap_gap").unit)
