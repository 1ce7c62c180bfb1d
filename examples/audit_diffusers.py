"""Audit a Stable-Diffusion-type VAE from a local folder. Nothing is downloaded.

pip install 'collapsekit[diffusers]'
"""

from __future__ import annotations

import tempfile

import torch
from diffusers import AutoencoderKL

import collapsekit as ck

# Stands for the `vae` folder of a pipeline on your disk: a very small one with random weights.
torch.manual_seed(0)
model = AutoencoderKL(
    down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
    up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
    block_out_channels=(8, 8),
    norm_num_groups=4,
    sample_size=16,
)
images = 2 * torch.rand(64, 3, 16, 16) - 1  # these models are trained on images in -1 to 1

with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    # The same on the command line: collapsekit audit diffusers:FOLDER --data images.npy
    audit = ck.audit(f"diffusers:{folder}", images, batch=16)

# One latent dimension is one channel at one place of the map: 4 x 8 x 8 = 256 here.
print(audit)
print("\n".join(audit.provenance["notes"]))
