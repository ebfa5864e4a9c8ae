"""The networks on grids by their names, and how each is built for a size of crop."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from nic_jax.networks.gated_attention import AttentionMIL
from nic_jax.networks.grid_cnn import GridCNN, fit_strides
from nic_jax.networks.mean_pooling import MeanPooling
from nic_jax.networks.set_transformer import SetTransformer
from nic_jax.networks.spatial_attention import SpatialAttention

NETWORKS = {
    'spatial': SpatialAttention,  # ours, the default
    'cnn': GridCNN,  # the paper's
    'attention_cnn': GridCNN,  # the paper's wish for small lesions, as small as few slides allow
    'abmil': AttentionMIL,
    'transformer': SetTransformer,
    'mean': MeanPooling,
}
_FIELDS = {
    'cnn': {'strides': None},
    'attention_cnn': {
        'widths': (16,) * 4,
        'strides': (1, 2, 1, 2),
        'dense': 0,
        'padding': 'SAME',
        'input_width': 8,
        'pooling': 'attention',
        'momentum': 0.9,
    },
}
_NOT_OURS = ('outputs', 'parent', 'name')  # fields that the task and Flax fill


def network_fields(model: str) -> dict[str, Any]:
    """What can be set of a network, and its defaults.

    A CNN's `strides` are None by default: those that fit the crop.

    Raises:
        ValueError: No network has that name.
    """
    if model not in NETWORKS:
        raise ValueError(f'no model {model!r}; there are {", ".join(NETWORKS)}')
    found = {
        field.name: field.default
        for field in dataclasses.fields(NETWORKS[model])
        if field.name not in _NOT_OURS
    }
    return found | _FIELDS.get(model, {})


def build_network(model: str, fields: Mapping[str, Any], *, outputs: int, crop: int) -> nn.Module:
    """Builds a network.

    Args:
        model: One of `NETWORKS`.
        fields: Those of `network_fields` that differ from the defaults.
        outputs: Classes, or 1.
        crop: R, cells along the side of its input.

    Raises:
        ValueError: Fields that it does not have, or layers that do not fit the crop.
    """
    known = network_fields(model)
    if unknown := sorted(fields.keys() - known.keys()):
        raise ValueError(f'{model} has no {", ".join(unknown)}; it has {", ".join(known)}')
    fields = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in (known | dict(fields)).items()
    }
    if NETWORKS[model] is GridCNN:
        padding, widths = fields['padding'], fields['widths']
        fields['strides'] = strides = fields['strides'] or fit_strides(crop, padding=padding)
        if len(widths) < len(strides):
            raise ValueError(
                f'widths={widths} are fewer than the {len(strides)} layers of strides '
                f'{tuple(strides)}; give --config.{model}.widths as many'
            )
        fields['widths'] = widths[: len(strides)]
    return NETWORKS[model](outputs=outputs, **fields)
