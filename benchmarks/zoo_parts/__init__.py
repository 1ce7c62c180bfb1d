"""Parts of benchmarks/zoo.py: images, networks, training, surgery, the labelled states, judging."""
