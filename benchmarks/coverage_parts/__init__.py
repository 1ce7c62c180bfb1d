"""Parts of benchmarks/coverage.py: the cases with their truths."""
