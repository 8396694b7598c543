"""How a training is executed: many steps a call, recorded CUDA graphs, several processes, signals, random state.

It knows nothing of VAEs. A model that it executes has a `training_step(batch)` that returns a dictionary of scalar
terms, and an attribute `minimised`: the names of the terms that its optimizers minimise, in the optimizers' order.

Models and data modules need no more of it than `shards`; what composes a training takes the rest.
"""
