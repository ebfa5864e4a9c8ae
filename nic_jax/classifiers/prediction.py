"""Predictions for whole slides: the mean over crops and versions."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from nic_jax import devices
from nic_jax.classifiers import crops as crops_module
from nic_jax.classifiers.batches import Draw, read_batch
from nic_jax.classifiers.trained import Trained
from nic_jax.grids import GridLike
from nic_jax.prefetch import default_workers, map_ahead

_AHEAD = 4


def predict(
    trained: Trained,
    grids: Sequence[GridLike],
    *,
    versions: Sequence[int] | None = None,
    crops: int | None = None,
    batch: int = 16,
) -> np.ndarray:
    """Predicts slides: every crop in every version, averaged (the paper's T = 10 crops × 8).

    Args:
        trained: A network.
        grids: Of the slides, read as they are needed.
        versions: Of each crop; those of the training by default.
        crops: T, spread over the tissue, one for a grid that fits into a crop; by default
            `settings.test_crops`.
        batch: Crops at once; the last batch is filled up, so that one program serves all.

    Returns:
        float64: probabilities [N, K] of a classification, values [N, 1] in the targets' own units
        of a regression, risks [N, 1] of survival.

    Raises:
        ValueError: a grid has another code size than those of the training.
    """
    for grid in grids:
        if grid.code_size != trained.code_size:
            raise ValueError(
                f'{grid.slide_id}: codes of {grid.code_size} features, but the classifier was '
                f'trained on {trained.code_size}: use the grids of its encoder'
            )
    settings = trained.settings
    draws = plan_prediction(
        grids,
        crop=settings.crop,
        crops=crops or settings.test_crops,
        versions=versions or settings.versions,
    )
    means = mean_outputs(
        trained.network,
        jax.device_put(trained.variables, devices.replicated(devices.data_mesh())),
        grids,
        draws,
        crop=settings.crop,
        batch=batch,
        task=trained.task,
    )
    return means * trained.scale + trained.offset


def plan_prediction(
    grids: Sequence[GridLike], *, crop: int, crops: int, versions: Sequence[int]
) -> Iterator[Draw]:
    """Yields the crops of every grid in every version, grid by grid."""
    for index, grid in enumerate(grids):
        if crops_module.fits(grid.shape, crop):
            corners = [crops_module.centred_crop(grid.shape, crop)]
        else:
            corners = crops_module.spread_crops(grid.encoded, size=crop, count=crops).tolist()
        for (top, left), version in itertools.product(corners, versions):
            yield Draw(index, top, left, version)


def mean_outputs(
    network: nn.Module,
    variables: Any,
    grids: Sequence[GridLike],
    draws: Iterable[Draw],
    *,
    crop: int,
    batch: int,
    task: str,
) -> np.ndarray:
    """Returns each grid's mean over its draws of probabilities, or of outputs: float64 [N, K]."""
    mesh = devices.data_mesh()
    devices.check_divides(batch, mesh)
    forward = compile_forward(network, task, mesh)
    sums = np.zeros((len(grids), network.outputs))
    counts = np.zeros((len(grids), 1))

    def add(drawn: Sequence[Draw], outputs: jax.Array) -> None:
        indices = [draw.index for draw in drawn]
        np.add.at(sums, indices, jax.device_get(outputs)[: len(drawn)])
        np.add.at(counts, indices, 1)

    def read(drawn: Sequence[Draw]) -> tuple[Sequence[Draw], np.ndarray]:
        filled = list(drawn) + [drawn[-1]] * (batch - len(drawn))
        return drawn, read_batch(grids, filled, crop=crop)

    running = None  # One batch is computed while the next one is read and sent.
    for drawn, codes in map_ahead(
        read, _batched(draws, batch), workers=min(_AHEAD, default_workers()), ahead=_AHEAD
    ):
        outputs = forward(variables, devices.put_batch(codes, mesh))
        if running:
            add(*running)
        running = drawn, outputs
    if running:
        add(*running)
    return sums / counts


@functools.cache
def compile_forward(network: nn.Module, task: str, mesh: Mesh) -> Any:
    """The jitted (variables, codes [B, R, R, C]) -> probabilities or outputs [B, K]."""

    def forward(variables, codes):
        outputs = network.apply(variables, codes)
        return jax.nn.softmax(outputs) if task == 'classification' else outputs

    return jax.jit(forward, out_shardings=devices.replicated(mesh))


def _batched(draws: Iterable[Draw], size: int) -> Iterator[list[Draw]]:
    draws = iter(draws)
    while batch := list(itertools.islice(draws, size)):
        yield batch
