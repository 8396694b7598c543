"""Execution of training: multiple steps per call, CUDA graphs, multiple processes, signals, random state.

The engine knows nothing about VAEs. It needs a model with a `training_step(batch)` that returns a dictionary of scalar
terms, and an attribute `minimised` with the names of the terms that its optimizers minimise, in their order. A data
module that hands over several batches at a time, as a list, has a method `randomised(batch)`, called before each step.

Models and data modules depend only on `shards`; the code that sets up training uses the rest.
"""
