"""Saliency of a whole slide: the mean over networks that never saw it, and over its versions."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from nic_jax.classifiers.trained import Trained, initial_variables
from nic_jax.explanation.attention import attention, has_attention
from nic_jax.explanation.grad_cam import grad_cam
from nic_jax.explanation.integrated_gradients import integrated_gradients
from nic_jax.explanation.layers import EXPLAINED, layer_cells
from nic_jax.explanation.occlusion import occlusion
from nic_jax.explanation.windows import Square, cover, on_grid, read
from nic_jax.grids import GridLike
from nic_jax.networks.code_scaling import COLLECTION

METHODS = ('grad_cam', 'integrated_gradients', 'occlusion', 'attention', 'grad_cam_random')


@dataclasses.dataclass(frozen=True)
class ExplainSettings:
    """How saliency is computed.

    Attributes:
        methods: Some of `METHODS`; 'grad_cam_random' is Grad-CAM of the same network with random
            weights, which should find nothing.
        layer: Of Grad-CAM, counted from 1: the first has the finest cells.
        steps: Of integrated gradients.
        block: Cells along the side of what occlusion covers at once.
    """

    methods: tuple[str, ...] = ('grad_cam',)
    layer: int = 1
    steps: int = 32
    block: int = 3

    def __post_init__(self):
        for name in self.methods:
            if name not in METHODS:
                raise ValueError(f'no method {name!r}; there are {", ".join(METHODS)}')
        for name in ('layer', 'steps', 'block'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name}={getattr(self, name)} must be at least 1')


def methods_of(network: nn.Module, methods: Sequence[str]) -> list[str]:
    """Those of the methods that a network can be explained by."""
    can = {'integrated_gradients', 'occlusion'}
    if isinstance(network, EXPLAINED):
        can |= {'grad_cam', 'grad_cam_random'}
    if has_attention(network):
        can.add('attention')
    return [name for name in methods if name in can]


def explain(
    networks: Sequence[Trained], grid: GridLike, settings: ExplainSettings, *, target: int
) -> dict[str, np.ndarray]:
    """Maps of what speaks for a target and, below 0, against it.

    Args:
        networks: Of one model, trained without the slide; their maps are averaged.
        grid: Of the slide, whatever its size.
        settings: Of the methods.
        target: Number of the class whose log-odds are explained; of no meaning for values and
            risks, which are explained themselves.

    Returns:
        float32 `[H, W]` by method, those alone that the model has; NaN where no code is.
    """
    first = networks[0]
    methods = methods_of(first.network, settings.methods)
    jump = 1
    if isinstance(first.network, EXPLAINED):
        jump = layer_cells(first.network, first.settings.crop, layer=settings.layer).jump
    square = cover(grid.shape, window=first.settings.crop, jump=jump)
    sums = {name: np.zeros(grid.shape, np.float64) for name in methods}
    versions = first.settings.versions
    # Weights are drawn, and sent to the device, once for all versions.
    makers = [
        (name, _method(name, trained, settings, target)) for trained in networks for name in methods
    ]
    for version in versions:
        codes = read(grid, square, version)
        for name, make in makers:
            sums[name] += on_grid(make(codes, square), grid, square, version)
    count = len(versions) * len(networks)
    return {
        name: np.where(grid.encoded, total / count, np.nan).astype(np.float32)
        for name, total in sums.items()
    }


def _method(
    name: str, trained: Trained, settings: ExplainSettings, target: int
) -> Callable[[np.ndarray, Square], np.ndarray]:
    """What makes a map of a turned grid in its square."""
    network, variables = trained.network, trained.variables
    if name == 'grad_cam_random':
        variables = randomised(trained)
    variables = jax.device_put(variables)
    asked: dict[str, Any] = {'task': trained.task, 'target': target}
    if name == 'attention':
        return functools.partial(attention, network, variables)
    if name in ('grad_cam', 'grad_cam_random'):
        return functools.partial(grad_cam, network, variables, layer=settings.layer, **asked)
    if name == 'occlusion':
        return functools.partial(occlusion, network, variables, block=settings.block, **asked)
    return functools.partial(
        integrated_gradients, network, variables, steps=settings.steps, **asked
    )


def randomised(trained: Trained) -> Mapping[str, Any]:
    """Weights as before any training, of another seed; the scaling of codes is kept."""
    fresh = initial_variables(
        trained.network,
        jax.random.key(trained.seed + 1_000_003),
        crop=trained.settings.crop,
        code_size=trained.code_size,
    )
    kept = {COLLECTION: trained.variables[COLLECTION]} if COLLECTION in trained.variables else {}
    return {**fresh, **kept}
