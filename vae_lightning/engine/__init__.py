"""How a training is executed. Knows nothing of VAEs."""
