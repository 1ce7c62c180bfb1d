"""The few hot loops. Plain functions of torch tensors that know no class of the project."""
