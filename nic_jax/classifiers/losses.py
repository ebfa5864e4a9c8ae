"""What is minimised in training, and what validation measures."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats


def data_loss(outputs: jax.Array, targets: jax.Array, task: str) -> jax.Array:
    """Mean cross-entropy of logits [B, K], or mean squared error of values [B, 1]."""
    if task == 'classification':
        return optax.losses.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()
    return ((outputs[:, 0] - targets) ** 2).mean()


def kernels(params: Any) -> Any:
    """Marks the kernels of convolutions and dense layers: not biases, not batch norm."""
    return jax.tree.map_with_path(lambda path, _: path[-1].key.endswith('kernel'), params)


def kernel_penalty(params: Any) -> jax.Array:
    """Sum of the squares of all kernels."""
    squares = jax.tree.map(
        lambda kernel, marked: (kernel**2).sum() if marked else jnp.zeros(()),
        params,
        kernels(params),
    )
    return jax.tree.reduce(jnp.add, squares)


def validation(outputs: np.ndarray, targets: np.ndarray, task: str) -> tuple[float, float]:
    """Measures predictions of the validation slides.

    Args:
        outputs: Probabilities [N, K], or standardised values [N, 1].
        targets: [N], integers, or standardised values.
        task: 'classification' or 'regression'.

    Returns:
        Classification: cross-entropy and accuracy, each averaged over the classes present, since
        training is balanced over classes too. Regression: mean squared error and Spearman's rank
        correlation, 0 where one side is constant.
    """
    if task == 'classification':
        chosen = outputs[np.arange(len(targets)), targets]
        surprise = -np.log(np.maximum(chosen, 1e-12))
        right = outputs.argmax(1) == targets
        masks = [targets == label for label in np.unique(targets)]
        return (
            float(np.mean([surprise[mask].mean() for mask in masks])),
            float(np.mean([right[mask].mean() for mask in masks])),
        )
    values = outputs[:, 0]
    ranked = np.ptp(values) > 0 and np.ptp(targets) > 0
    correlation = scipy.stats.spearmanr(values, targets).statistic if ranked else 0.0
    return float(((values - targets) ** 2).mean()), float(correlation)
