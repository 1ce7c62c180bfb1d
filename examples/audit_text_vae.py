"""Audit text VAEs: tokens in, a teacher-forced decoder that no code alone can call.

Such a decoder sees the sentence while it scores it, so there is no decode(z). What can be measured
without one is measured; `log_likelihood(x, z)` gives errors, swaps, the ELBO, the bound by
importance weights and the decoder's own view in nats.

Two models are trained on the same sentences, in seconds. A topic decides which words follow which.
A decoder that sees all earlier words guesses the topic from them and does without a code: the
classic collapse. With half of these words dropped and the KL warmed up it needs the code.
"""

from __future__ import annotations

import torch
from torch import nn

import collapsekit as ck

WORDS, LENGTH, TOPICS = 20, 12, 8


def sentences(count: int, seed: int) -> torch.Tensor:
    """Markov chains over words, a transition table for each topic: int64 [count, LENGTH]."""
    tables = torch.Generator().manual_seed(0)
    habit = torch.softmax(torch.randn(TOPICS, WORDS, WORDS, generator=tables), dim=2)
    theme = torch.softmax(2.0 * torch.randn(TOPICS, 1, WORDS, generator=tables), dim=2)
    follows = 0.6 * theme + 0.4 * habit
    draws = torch.Generator().manual_seed(seed)
    topic = torch.randint(TOPICS, (count,), generator=draws)
    words = [torch.randint(WORDS, (count,), generator=draws)]
    for _ in range(LENGTH - 1):
        words.append(torch.multinomial(follows[topic, words[-1]], 1, generator=draws)[:, 0])
    return torch.stack(words, dim=1)


class TextVAE(nn.Module):
    """A GRU reads the sentence into a code, another writes it word by word beside the code.

    `keep` is the share of earlier words that the writer sees in training (Bowman et al. 2016).
    """

    def __init__(self, dims: int = 4, keep: float = 1.0) -> None:
        super().__init__()
        self.keep = keep
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
        seen = self.embedding(tokens[:, :-1])
        if self.training:
            seen = seen * (torch.rand(seen.shape[:2]) < self.keep)[..., None]
        before = nn.functional.pad(seen, (0, 0, 1, 0))
        code = z[:, None].expand(-1, tokens.shape[1], -1)
        logits = self.words(self.writer(torch.cat([before, code], dim=2))[0])
        each = nn.functional.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
        return -each.sum(dim=1)


def train(keep: float, warm_up: int, steps: int = 300, seed: int = 0) -> TextVAE:
    """Train on 4,000 sentences; the KL's weight rises to 1 over `warm_up` steps."""
    torch.manual_seed(seed)
    model, data = TextVAE(keep=keep), sentences(4000, seed=1)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(steps):
        tokens = data[torch.randint(len(data), (64,))]
        mean, logvar = model.encode(tokens).values()
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(dim=1).mean()
        weight = min(1.0, step / warm_up) if warm_up else 1.0
        loss = weight * kl - model.log_likelihood(tokens, z).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def main() -> None:
    tokens = sentences(600, seed=2)
    for told, keep, warm_up in (
        ("all words seen, no warm-up", 1.0, 0),
        ("half of the words seen, warm-up", 0.5, 200),
    ):
        audit = ck.audit(train(keep, warm_up), tokens)
        print(f"== {told}\n{audit}\n")


if __name__ == "__main__":
    main()
