"""How it is learned: the loop, optimiser, checkpoints, devices."""
