"""Probes: small classifiers of frozen codes, which tell what an encoder has kept of a patch.

The MLP is the papers' (Tellez et al. 2019, Table 1: dense 256, batch norm, leaky ReLU; batches of
64). A linear classifier and nearest neighbours stand beside it, since an MLP can dig out what is
buried. Codes are standardised by the training patches; the choice of a probe's strength and of its
best weights is the validation patches'. None sees a test patch before it predicts.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from nic_jax import schedules
from nic_jax.encoders.objective import adam, descend
from nic_jax.networks.heads import NormHead

PROBES = ('mlp', 'linear', 'knn')
Predict = Callable[[np.ndarray], np.ndarray]  # codes [N, C] -> probabilities [N, K]

_INVERSE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_NEIGHBOURS = (1, 5, 20, 50, 100, 200)


@dataclasses.dataclass(frozen=True)
class ProbeSettings:
    """How the MLP is trained.

    Attributes:
        units: Of its hidden layer.
        batch: Patches a step.
        epochs: At most.
        learning_rate: Adam's first; it falls tenfold where the validation loss does not.
        patience: Epochs without gain before it falls.
        min_learning_rate: Training stops when it would fall below.
    """

    units: int = 256
    batch: int = 64
    epochs: int = 60
    learning_rate: float = 1e-2
    patience: int = 3
    min_learning_rate: float = 1e-5


def fit(
    probe: str,
    train: tuple[np.ndarray, np.ndarray],
    valid: tuple[np.ndarray, np.ndarray],
    *,
    classes: int,
    settings: ProbeSettings,
    seed: int,
) -> Predict:
    """Fits a probe.

    Args:
        probe: One of `PROBES`.
        train: Codes float `[N, C]` and labels int `[N]`, every class among them.
        valid: Likewise, to choose by.
        classes: K.
        settings: The MLP's.
        seed: The MLP's; the others have none.

    Raises:
        ValueError: An unknown probe, codes that are not finite, or a class that is not among them.
    """
    if probe not in PROBES:
        raise ValueError(f'{probe=} must be one of {", ".join(PROBES)}')
    for codes, _ in (train, valid):
        if not np.isfinite(codes).all():
            raise ValueError('codes are not finite: the encoder has not been trained well')
    if len(missing := np.setdiff1d(np.arange(classes), train[1])):
        raise ValueError(f'no training patches of class {missing[0]} of {classes}; add some')
    mean, deviation = train[0].mean(0), train[0].std(0) + 1e-6

    def standardised(codes):
        return ((codes - mean) / deviation).astype(np.float32)

    ready = [(standardised(codes), labels) for codes, labels in (train, valid)]
    if probe == 'mlp':
        predict = _fit_mlp(*ready, classes=classes, settings=settings, seed=seed)
    elif probe == 'linear':
        predict = _best(
            [
                LogisticRegression(C=strength, max_iter=1000, class_weight='balanced')
                for strength in _INVERSE_PENALTIES
            ],
            *ready,
        )
    else:
        fitting = [count for count in _NEIGHBOURS if count <= len(train[0])]
        predict = _best([KNeighborsClassifier(count) for count in fitting], *ready)
    return lambda codes: predict(standardised(codes))


def _best(candidates, train, valid) -> Predict:
    """Of several scikit-learn classifiers, the one with the least validation loss."""
    fitted = [candidate.fit(*train) for candidate in candidates]
    losses = [_log_loss(each.predict_proba(valid[0]), valid[1]) for each in fitted]
    return fitted[int(np.argmin(losses))].predict_proba


def _log_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy; a neighbourhood without a class is not infinitely sure of that."""
    return float(-np.log(np.maximum(scores[np.arange(len(labels)), labels], 1e-3)).mean())


def _fit_mlp(train, valid, *, classes: int, settings: ProbeSettings, seed: int) -> Predict:
    network, optimizer = NormHead(classes, settings.units), adam()
    run_epoch, evaluate = _compiled(network)
    codes, labels = (jnp.asarray(each) for each in train)
    variables = network.init(jax.random.key(seed), codes[:1], train=False)
    state = (variables, optimizer.init(variables['params']))
    batch = min(settings.batch, len(train[0]))
    losses, best = [], variables
    for epoch in range(settings.epochs):
        rate = schedules.plateau(
            losses,
            initial=settings.learning_rate,
            patience=settings.patience,
            minimum=settings.min_learning_rate,
        )
        if rate is None:
            break
        rng = np.random.default_rng((seed, epoch, *b'probe'))
        order = rng.permutation(len(train[0]))[: len(train[0]) // batch * batch]
        state = run_epoch(state, codes, labels, order.reshape(-1, batch), rate)
        losses.append(_log_loss(np.asarray(evaluate(state[0], valid[0])), valid[1]))
        if losses[-1] <= min(losses):
            best = state[0]
    return lambda codes: np.asarray(evaluate(best, codes))


@functools.cache
def _compiled(network: NormHead):
    """An epoch as one scan over its batches, and the probabilities that the network gives."""
    optimizer = adam()

    @jax.jit
    def run_epoch(state, codes, labels, order, rate):
        def step(state, chosen):
            variables, moments = state

            def loss(params):
                logits, updated = network.apply(
                    {**variables, 'params': params},
                    codes[chosen],
                    train=True,
                    mutable=['batch_stats'],
                )
                losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[chosen])
                return losses.mean(), updated

            gradient, updated = jax.grad(loss, has_aux=True)(variables['params'])
            params, moments = descend(optimizer, gradient, moments, variables['params'], rate)
            return ({'params': params, **updated}, moments), None

        return jax.lax.scan(step, state, order)[0]

    evaluate = jax.jit(
        lambda variables, codes: jax.nn.softmax(network.apply(variables, codes, train=False))
    )
    return run_epoch, evaluate
