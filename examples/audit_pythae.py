"""Audit a pythae model: the folder that its training wrote, or the object at hand.

pip install 'collapsekit[pythae]'
"""

from __future__ import annotations

import tempfile

import torch
from pythae.models import VAE, VAEConfig

import collapsekit as ck

# Stands for your trained model; its folder is what pythae's trainers write as `final_model`.
torch.manual_seed(0)
model = VAE(VAEConfig(input_dim=(1, 8, 8), latent_dim=4, reconstruction_loss="bce"))
images = torch.rand(200, 1, 8, 8)

with tempfile.TemporaryDirectory() as folder:
    model.save(folder)
    # The same on the command line: collapsekit audit pythae:FOLDER --data images.npy
    audit = ck.audit(f"pythae:{folder}", images)

# The likelihood came from the model's own configuration, so errors are in nats.
print(audit)
print(audit.provenance["likelihood"])
