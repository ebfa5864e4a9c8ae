"""What is minimised in training, and what validation measures."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats

from nic_jax.classifiers.cox import negative_log_partial_likelihood
from nic_jax.evaluation.survival import concordance


def data_loss(outputs: jax.Array, targets: jax.Array, task: str) -> jax.Array:
    """What training minimises, without the penalty of kernels.

    Args:
        outputs: Logits [B, K], or values or risks [B, 1].
        targets: Integers [B]; values [B]; or of survival (time, event) [B, 2].
        task: 'classification': mean cross-entropy; 'regression': mean squared error; 'survival':
            Cox's negative log partial likelihood over the batch.
    """
    if task == 'classification':
        return optax.losses.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()
    if task == 'survival':
        return negative_log_partial_likelihood(outputs[:, 0], targets[:, 0], targets[:, 1])
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


def validation(
    outputs: np.ndarray, targets: np.ndarray, task: str, *, case_ids: Sequence[str]
) -> tuple[float, float]:
    """Measures predictions of the validation slides.

    Args:
        outputs: Probabilities [N, K], standardised values [N, 1], or risks [N, 1].
        targets: [N], integers, or standardised values; or of survival (time, event) [N, 2].
        task: 'classification', 'regression' or 'survival'.
        case_ids: The patient of each; a patient's risk is the mean of those of its slides.

    Returns:
        Classification: cross-entropy and accuracy, each averaged over the classes present, since
        training is balanced over classes too. Regression: mean squared error and Spearman's rank
        correlation, 0 where one side is constant. Survival: Cox's negative log partial likelihood
        and the concordance index, over patients.
    """
    if task == 'classification':
        return _classification(outputs, targets)
    if task == 'survival':
        return _survival(outputs[:, 0], targets, case_ids)
    values = outputs[:, 0]
    ranked = np.ptp(values) > 0 and np.ptp(targets) > 0
    correlation = scipy.stats.spearmanr(values, targets).statistic if ranked else 0.0
    return float(((values - targets) ** 2).mean()), float(correlation)


def _classification(scores: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    chosen = scores[np.arange(len(targets)), targets]
    surprise = -np.log(np.maximum(chosen, 1e-12))
    right = scores.argmax(1) == targets
    masks = [targets == label for label in np.unique(targets)]
    return (
        float(np.mean([surprise[mask].mean() for mask in masks])),
        float(np.mean([right[mask].mean() for mask in masks])),
    )


def _survival(
    risks: np.ndarray, targets: np.ndarray, case_ids: Sequence[str]
) -> tuple[float, float]:
    _, first, case = np.unique(case_ids, return_index=True, return_inverse=True)
    risks = np.bincount(case, risks) / np.bincount(case)
    times, events = targets[first].T
    loss = negative_log_partial_likelihood(*map(jnp.asarray, (risks, times, events)))
    index = concordance(times, events, risks).value
    return float(loss), 0.5 if np.isnan(index) else index
