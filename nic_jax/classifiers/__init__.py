"""Networks on grids of codes: crops, batches, training, prediction."""
