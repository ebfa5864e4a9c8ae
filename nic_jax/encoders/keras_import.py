"""Published Keras encoders (`.h5`) into Flax, without TensorFlow.

The authors' files hold four times [3×3 convolution of stride 2, leaky ReLU, batch norm], flatten,
dense — or, for mean-RGB, a global average alone. Anything else is refused by name.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from nic_jax.encoders.conv import conv_encoder
from nic_jax.encoders.encoder import Encoder, EncoderError
from nic_jax.encoders.mean_rgb import mean_rgb

# The patches that the authors made these encoders for (their README): 128 px at 0.5 µm/px.
PUBLISHED_MPP = 0.5


def load_keras(path: str | os.PathLike, *, name: str | None = None) -> Encoder:
    """Reads an encoder from a Keras file.

    Args:
        path: The `.h5` file.
        name: The encoder's name; the file's stem by default.

    Raises:
        EncoderError: The file is not a Keras encoder of the published kinds.
    """
    path = pathlib.Path(path)
    name = name or path.stem
    try:
        with h5py.File(path, 'r') as file:
            config = json.loads(file.attrs['model_config'])['config']
            layers = _flatten_layers(config)
            return _build(file['model_weights'], layers, name, input_size=_input_size(config))
    except (OSError, KeyError, json.JSONDecodeError, EncoderError) as error:
        raise EncoderError(
            f'{path} is not a published Keras encoder (a .h5 with model_config, strided '
            f'convolutions and one dense layer): {error}'
        ) from error


def _flatten_layers(config: Any) -> list[dict[str, Any]]:
    """Layers in order, those of nested models in their place."""
    found = []
    for layer in config['layers'] if isinstance(config, dict) else config:
        if layer['class_name'] in ('Sequential', 'Model', 'Functional'):
            found += _flatten_layers(layer['config'])
        elif layer['class_name'] not in ('InputLayer', 'Flatten', 'Dropout'):
            found.append(layer)
    return found


def _input_size(config: Any) -> int:
    """Side of the patches that go into the first layer, px."""
    for layer in config['layers'] if isinstance(config, dict) else config:
        if shape := layer['config'].get('batch_input_shape'):
            return shape[1]
    raise EncoderError('it does not tell the shape of its input')


def _build(
    weights: h5py.Group, layers: list[dict[str, Any]], name: str, *, input_size: int
) -> Encoder:
    kinds = [layer['class_name'] for layer in layers]
    if kinds == ['GlobalAveragePooling2D']:
        return mean_rgb()
    depth = (len(kinds) - 1) // 3
    if kinds != ['Conv2D', 'LeakyReLU', 'BatchNormalization'] * depth + ['Dense'] or not depth:
        raise EncoderError(f'its layers are {", ".join(kinds)}')

    slope, epsilon = layers[1]['config']['alpha'], layers[2]['config']['epsilon']
    params, stats = {}, {}
    for index in range(depth):
        conv, activation, norm = (layer['config'] for layer in layers[3 * index : 3 * index + 3])
        _check(conv, kernel_size=[3, 3], strides=[2, 2], padding='valid', use_bias=True)
        _check(conv, dilation_rate=[1, 1], data_format='channels_last', activation='linear')
        _check(activation, alpha=slope)
        _check(norm, epsilon=epsilon, center=True, scale=True)
        params[f'conv_{index}'] = _arrays(weights, conv['name'], kernel='kernel', bias='bias')
        params[f'norm_{index}'] = _arrays(weights, norm['name'], scale='gamma', bias='beta')
        stats[f'norm_{index}'] = _arrays(
            weights, norm['name'], mean='moving_mean', var='moving_variance'
        )
    dense = layers[-1]['config']
    _check(dense, use_bias=True, activation='linear')
    params['code'] = _arrays(weights, dense['name'], kernel='kernel', bias='bias')

    network = {
        'kind': 'conv',
        'widths': [params[f'conv_{index}']['kernel'].shape[3] for index in range(depth)],
        'code_size': params['code']['kernel'].shape[1],
        'dense': 0,
        'padding': 'VALID',
        'norm_after': True,
        'slope': round(slope, 6),
        'epsilon': epsilon,
        'input_size': input_size,
        'averaged': True,
        'channels': params['conv_0']['kernel'].shape[2],
    }
    variables = {'params': params, 'batch_stats': stats}
    return conv_encoder(name, network, variables, mpp=PUBLISHED_MPP)


def _check(config: Mapping[str, Any], **expected: Any) -> None:
    """Raises EncoderError where a layer is not as the folded network takes it to be."""
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise EncoderError(f'{config["name"]} has {key} {config[key]}, expected {value}')


def _arrays(weights: h5py.Group, layer: str, **names: str) -> dict[str, np.ndarray]:
    """The named arrays of a layer, wherever nested models have put them."""
    found: dict[str, np.ndarray] = {}

    def visit(path: str, item: h5py.Dataset | h5py.Group) -> None:
        parts = path.split('/')
        if isinstance(item, h5py.Dataset) and layer in parts[:-1]:
            for ours, theirs in names.items():
                if parts[-1].split(':')[0] == theirs:
                    found[ours] = item[()]

    weights.visititems(visit)
    if missing := names.keys() - found.keys():
        raise EncoderError(f'layer {layer} lacks {", ".join(names[key] for key in missing)}')
    return found
