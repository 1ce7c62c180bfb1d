"""Parts of benchmarks/lr_loss.py: data and settings, training, measuring, running, the table."""
