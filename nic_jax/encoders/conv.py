"""Encoders that are a `ConvEncoder`: built from its settings, applied in a folded, fast form.

At inference batch norm is an affine map, so it folds into the convolution before it (batch norm
before the activation) or after it (batch norm after the activation; exact with valid padding
alone). The scaling of pixels and the 2×2 averaging of large patches fold into the first
convolution. On a CPU the folded layers run as matrix products over patches few enough to stay in
cache, four times as fast as convolutions over a whole batch; elsewhere as convolutions.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nic_jax.encoders.encoder import Encoder, Variables
from nic_jax.networks.conv_encoder import ConvEncoder

# Patches of 64×64 px that the CPU encodes at a time; more of smaller ones.
_CPU_CHUNK = 8


class _Layer(NamedTuple):
    kernel: jnp.ndarray  # [k, k, in, out]
    bias: jnp.ndarray  # [out]
    stride: int
    padding: tuple[int, int]
    fill: float  # what is padded with, in the layer's own input


def conv_encoder(
    name: str, network: Mapping[str, Any], variables: Variables, *, mpp: float | None
) -> Encoder:
    """Wraps trained weights.

    Args:
        name: The encoder's name.
        network: `ConvEncoder`'s fields, and `kind`, `input_size` (px of its side), `channels` and
            `averaged` (whether it also takes patches of twice the size, averaged 2×2).
        variables: `params` and `batch_stats`.
        mpp: µm/px of the patches it was trained on, at their own size; None for images without.
    """
    size = network['input_size']
    mpp = 0.0 if mpp is None else mpp
    inputs = ((2 * size, mpp), (size, 2 * mpp)) if network['averaged'] else ((size, mpp),)
    return Encoder(
        name=name,
        apply=lambda weights, patches: apply_folded(network, weights, patches),
        variables=variables,
        network=dict(network),
        inputs=inputs,
        channels=network['channels'],
        code_size=network['code_size'],
    )


def module(network: Mapping[str, Any]) -> ConvEncoder:
    """The Flax module that an encoder's settings describe."""
    fields = set(ConvEncoder.__dataclass_fields__) - {'parent', 'name'}
    settings = {key: value for key, value in network.items() if key in fields}
    return ConvEncoder(**{**settings, 'widths': tuple(settings['widths'])})


def scale(patches: jnp.ndarray) -> jnp.ndarray:
    """Pixels 0 … 255 to [−1, 1], float32."""
    return patches.astype(jnp.float32) / 127.5 - 1.0


def apply_folded(
    network: Mapping[str, Any], variables: Variables, patches: jnp.ndarray
) -> jnp.ndarray:
    """Encodes `[B, P, P, channels]` of 0 … 255 to `[B, C]` in the precision of the weights.

    Patches in bfloat16 are computed in it, with weights that are folded before they are rounded;
    integers to 255 are exact in it.

    Raises:
        ValueError: P is neither the network's input size nor, where averaged, twice that.
    """
    size = network['input_size']
    pool = patches.shape[1] // size
    if patches.shape[1] != pool * size or pool not in ((1, 2) if network['averaged'] else (1,)):
        raise ValueError(f'patches are {patches.shape[1]} px wide, the encoder takes {size} px')
    half = patches.dtype == jnp.bfloat16
    # Around 0, or the derivative by the first kernel is a small difference of large sums.
    centre = 128.0 if half else 0.0
    layers, dense = _fold(network, variables, pool, centre)
    dtype = patches.dtype if half else layers[0].kernel.dtype

    # Weights are rounded where they are used: what calls this adds derivatives in their own type.
    def encode(layer_output, patches):
        x = patches.astype(dtype) - centre
        for layer in layers:
            x = _leaky(layer_output(x, layer), network['slope']).astype(dtype)
        x = x.reshape(x.shape[0], -1)
        for kernel, bias in dense[:-1]:
            x = _leaky(_product(x, kernel, bias), network['slope']).astype(dtype)
        return _product(x, *dense[-1])

    def encode_on_cpu(patches):
        chunk = _CPU_CHUNK * max(1, (64 // size) ** 2)
        count = patches.shape[0]
        if count <= chunk:
            return encode(_as_product, patches)
        padding = -count % chunk
        patches = jnp.pad(patches, ((0, padding), (0, 0), (0, 0), (0, 0)))
        chunks = patches.reshape(-1, chunk, *patches.shape[1:])
        codes = jax.lax.map(lambda part: encode(_as_product, part), chunks)
        return codes.reshape(-1, codes.shape[-1])[:count]

    return jax.lax.platform_dependent(
        patches, cpu=encode_on_cpu, default=lambda patches: encode(_as_convolution, patches)
    )


def _fold(network: Mapping[str, Any], variables: Variables, pool: int, centre: float):
    """Folds the scaling of pixels less `centre`, 2×2 averaging and batch norm into the weights."""
    if network['norm_after'] and network['padding'] != 'VALID':
        raise ValueError('batch norm after the activation folds with padding VALID alone')
    params, stats = variables['params'], variables['batch_stats']

    def affine(index):
        norm, moments = params[f'norm_{index}'], stats[f'norm_{index}']
        gain = norm['scale'] * jax.lax.rsqrt(moments['var'] + network['epsilon'])
        return gain, norm['bias'] - moments['mean'] * gain

    def transform(kernel, bias, index):
        """The layer with what precedes it (and its own norm, where that comes first) inside."""
        axes = tuple(range(kernel.ndim - 2))
        kernel, bias = kernel * gain[:, None], bias + (kernel.sum(axes) * shift[:, None]).sum(0)
        if network['norm_after']:
            return kernel, bias
        own_gain, own_shift = affine(index)
        return kernel * own_gain, bias * own_gain + own_shift

    channels, side = network['channels'], network['input_size']
    gain, shift = jnp.full(channels, 1 / 127.5), jnp.full(channels, centre / 127.5 - 1.0)
    layers = []
    for index, width in enumerate(network['widths']):
        raw = params[f'conv_{index}']
        kernel, bias = transform(raw['kernel'], raw['bias'], index)
        factor = pool if index == 0 else 1
        if factor > 1:
            kernel = jnp.repeat(jnp.repeat(kernel, factor, 0), factor, 1) / factor**2
        # 'SAME' pads the scaled image with 0, which is 127.5 in pixels.
        padding, side = _padding(side, network['padding'])
        padding = (padding[0] * factor, padding[1] * factor)
        fill = 127.5 - centre if index == 0 else 0.0
        layers.append(_Layer(kernel, bias, 2 * factor, padding, fill))
        if network['norm_after']:
            gain, shift = affine(index)
        else:
            gain, shift = jnp.ones(width), jnp.zeros(width)

    dense = []
    names = ['dense', 'code'] if network['dense'] else ['code']
    for name in names:
        raw = params[name]
        if name == names[0]:  # the flattened map: every channel at side² places
            kernel = raw['kernel'].reshape(side * side, network['widths'][-1], -1)
        else:
            kernel = raw['kernel'][None]
            gain, shift = jnp.ones(network['dense']), jnp.zeros(network['dense'])
            if network['norm_after']:
                gain, shift = affine(len(network['widths']))
        bias = raw['bias'] + (kernel.sum(0) * shift[:, None]).sum(0)
        kernel = (kernel * gain[:, None]).reshape(raw['kernel'].shape)
        if name == 'dense' and not network['norm_after']:
            own_gain, own_shift = affine(len(network['widths']))
            kernel, bias = kernel * own_gain, bias * own_gain + own_shift
        dense.append((kernel, bias))
    return layers, dense


def _padding(side: int, padding: str) -> tuple[tuple[int, int], int]:
    """Padding before and after, and the size that comes out, of a 3×3 convolution of stride 2."""
    if padding == 'VALID':
        return (0, 0), (side - 3) // 2 + 1
    out = -(-side // 2)
    total = max(0, (out - 1) * 2 + 3 - side)
    return (total // 2, total - total // 2), out


def _leaky(x: jnp.ndarray, slope: float) -> jnp.ndarray:
    return jnp.where(x > 0, x, slope * x)


def _pad(x: jnp.ndarray, layer: _Layer) -> jnp.ndarray:
    if layer.padding == (0, 0):
        return x
    sides = ((0, 0), layer.padding, layer.padding, (0, 0))
    return jnp.pad(x, sides, constant_values=layer.fill)


def _as_convolution(x: jnp.ndarray, layer: _Layer) -> jnp.ndarray:
    dimensions = ('NHWC', 'HWIO', 'NHWC')
    strides = (layer.stride, layer.stride)
    kernel = layer.kernel.astype(x.dtype)
    out = jax.lax.conv_general_dilated(
        _pad(x, layer), kernel, strides, 'VALID', dimension_numbers=dimensions
    )
    return out.astype(layer.bias.dtype) + layer.bias


def _as_product(x: jnp.ndarray, layer: _Layer) -> jnp.ndarray:
    """The same convolution as one matrix product over gathered neighbourhoods (im2col)."""
    x, size, stride = _pad(x, layer), layer.kernel.shape[0], layer.stride
    out = (x.shape[1] - size) // stride + 1
    ends = np.arange(size) + stride * (out - 1) + 1
    columns = [
        x[:, i : ends[i] : stride, j : ends[j] : stride] for i in range(size) for j in range(size)
    ]
    columns = jnp.concatenate(columns, axis=-1)  # [B, out, out, k·k·in]
    kernel = layer.kernel.reshape(-1, layer.kernel.shape[-1])
    return _product(columns, kernel, layer.bias)


def _product(x: jnp.ndarray, kernel: jnp.ndarray, bias: jnp.ndarray) -> jnp.ndarray:
    """x·kernel + bias in the bias's type, the product itself in that of x."""
    return (x @ kernel.astype(x.dtype)).astype(bias.dtype) + bias
