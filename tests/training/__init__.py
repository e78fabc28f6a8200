"""Training an imported model: what trains, how, and that it is the training of the original."""
