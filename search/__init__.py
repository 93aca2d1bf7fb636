"""Experiments: proposals, early stopping, tracking, retraining. Knows nothing of tensors."""
