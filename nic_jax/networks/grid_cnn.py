"""The image-level CNN: from a grid of codes to a label (Tellez et al. 2019, section 3.3)."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from nic_jax.networks.depthwise import depthwise3x3, output_size

PAPER_STRIDES = (2, 2, 2, 2, 2, 2, 1, 1)
POOLINGS = ('flatten', 'attention')


def size_chain(size: int, strides: Sequence[int], *, padding: str = 'VALID') -> list[int]:
    """Returns the cells along one axis before and after each layer: 400, 199, …, 3, 1.

    Raises:
        ValueError: a layer does not fit in what the ones before it leave.
    """
    sizes = [size]
    for stride in strides:
        sizes.append(output_size(sizes[-1], stride, padding))
        if sizes[-1] < 1 or size < 1:
            chain = ' → '.join(map(str, sizes[:-1]))
            raise ValueError(
                f'{len(strides)} layers of strides {tuple(strides)} do not fit a grid of {size} '
                f'cells: {chain} is too small for another 3×3; use {_remedy(size, padding)}'
            )
    return sizes


def fit_strides(size: int, *, padding: str = 'VALID') -> tuple[int, ...]:
    """Returns the paper's strides where they fit and the nearest to them for smaller grids.

    At most six layers of stride 2, while 3 cells remain after them; then at most two of stride 1,
    while one remains. 400 gives the paper's own, 255 one layer less, 40 (2, 2, 2, 1).

    Raises:
        ValueError: no layer fits.
    """
    if size < 1 or output_size(size, 1, padding) < 1:
        raise ValueError(
            f'a grid of {size} cells is too small for a 3×3 layer: pad it (a larger crop) or use '
            "padding='SAME'"
        )
    strides, left = [], size
    for stride in PAPER_STRIDES:
        after = output_size(left, stride, padding)
        if after >= (3 if stride == 2 else 1):
            strides.append(stride)
            left = after
    return tuple(strides)


def _remedy(size: int, padding: str) -> str:
    if output_size(size, 1, padding) < 1:
        return 'a larger crop'
    strides = fit_strides(size, padding=padding)
    return f'strides={strides}, which end at {size_chain(size, strides, padding=padding)[-1]} cells'


class SeparableLayer(nn.Module):
    """Depthwise 3×3 and pointwise convolution, batch norm, leaky ReLU, spatial dropout."""

    width: int
    stride: int
    padding: str
    dropout: float
    slope: float
    epsilon: float
    momentum: float

    @nn.compact
    def __call__(self, x: jnp.ndarray, *, train: bool) -> jnp.ndarray:
        """[B, H, W, C] -> [B, H', W', width]."""
        shape = (3, 3, x.shape[-1])
        kernel = self.param('depthwise_kernel', nn.initializers.normal(1 / 3), shape)
        x = depthwise3x3(x, kernel, stride=self.stride, padding=self.padding)
        x = nn.Dense(self.width, name='pointwise')(x)
        x = nn.BatchNorm(not train, momentum=self.momentum, epsilon=self.epsilon, name='norm')(x)
        x = nn.leaky_relu(x, self.slope)
        # One draw a feature map, not a cell.
        return nn.Dropout(self.dropout, broadcast_dims=(1, 2))(x, deterministic=not train)


class GridCNN(nn.Module):
    """A crop of a grid in, logits or regression values out.

    `GridCNN(outputs=2)` is the paper's, for crops of 400×400: with C = 128, 162,690 values.
    `features` and `from_features`, one after the other, are the whole network, cut after any layer.

    Attributes:
        outputs: Classes, or 1 for regression.
        widths: Filters of each layer.
        strides: Stride of each layer.
        dense: Units of the dense layer before the outputs, or 0 for none.
        dropout: Share of feature maps dropped in training, after each layer.
        padding: 'VALID' or 'SAME'.
        input_width: Features of a linear 1×1 projection before the first layer, or 0 for none:
            fewer weights to fit where images are few.
        pooling: 'flatten' (the paper's), or 'attention': the mean over cells beside a mean
            weighted by learned attention, for labels that a few cells decide.
        slope: Of the leaky ReLU; the paper does not say it, 0.2 is in the authors' encoders.
        epsilon: Of batch norm; Keras's default.
        momentum: Of batch norm's running statistics; Keras's default. Runs of a few hundred
            steps want 0.9.
    """

    outputs: int
    widths: tuple[int, ...] = (128,) * 8
    strides: tuple[int, ...] = PAPER_STRIDES
    dense: int = 128
    dropout: float = 0.2
    padding: str = 'VALID'
    input_width: int = 0
    pooling: str = 'flatten'
    slope: float = 0.2
    epsilon: float = 1e-3
    momentum: float = 0.99

    def setup(self):
        """Builds the layers.

        Raises:
            ValueError: widths, strides or pooling that make no network.
        """
        if len(self.widths) != len(self.strides) or not self.widths:
            raise ValueError(f'widths={self.widths} and strides={self.strides} must be as many')
        if self.pooling not in POOLINGS:
            raise ValueError(f'pooling={self.pooling!r} must be one of {POOLINGS}')
        if self.input_width:
            self.projection = nn.Dense(self.input_width)
        self.layers = [
            SeparableLayer(
                width,
                stride,
                self.padding,
                self.dropout,
                self.slope,
                self.epsilon,
                self.momentum,
            )
            for width, stride in zip(self.widths, self.strides, strict=True)
        ]
        if self.pooling == 'attention':
            self.attention = nn.Dense(1)
        if self.dense:
            self.hidden = nn.Dense(self.dense)
            self.norm = nn.BatchNorm(momentum=self.momentum, epsilon=self.epsilon)
        self.output = nn.Dense(self.outputs)

    def __call__(self, codes: jnp.ndarray, *, train: bool = False) -> jnp.ndarray:
        """[B, R, R, C] -> [B, outputs], linear."""
        return self.from_features(self.features(codes, train=train), train=train)

    def features(self, codes: jnp.ndarray, *, layer: int = 1, train: bool = False) -> jnp.ndarray:
        """[B, H, W, C] -> what a layer, counted from 1, gives, [B, H', W', widths[layer - 1]]."""
        for size in codes.shape[1:3]:
            size_chain(size, self.strides, padding=self.padding)
        x = self.projection(codes) if self.input_width else codes
        for each in self.layers[:layer]:
            x = each(x, train=train)
        return x

    def from_features(
        self, features: jnp.ndarray, *, layer: int = 1, train: bool = False
    ) -> jnp.ndarray:
        """Activations of a layer over a crop, [B, H', W', widths[layer - 1]] -> [B, outputs]."""
        x = features
        for each in self.layers[layer:]:
            x = each(x, train=train)
        if self.pooling == 'attention':
            weights = self._weights(x)
            x = x.reshape(x.shape[0], -1, x.shape[-1])  # [B, y, x, F] -> [B, cells, F]
            x = jnp.concatenate([jnp.einsum('bn,bnf->bf', weights, x), x.mean(1)], axis=-1)
        else:
            x = x.reshape(x.shape[0], -1)  # [B, y, x, F] -> [B, y·x·F]
        if self.dense:
            x = self.norm(self.hidden(x), use_running_average=not train)
            x = nn.leaky_relu(x, self.slope)
        return self.output(x)

    def attention_weights(self, codes: jnp.ndarray) -> jnp.ndarray:
        """[B, R, R, C] -> of the last layer's cells, [B, R', R'], summing to 1.

        Raises:
            ValueError: It does not pool by attention.
        """
        if self.pooling != 'attention':
            raise ValueError(f'pooling={self.pooling!r} has no attention to show')
        x = self.features(codes, layer=len(self.layers))
        return self._weights(x).reshape(x.shape[:3])

    def _weights(self, x: jnp.ndarray) -> jnp.ndarray:
        """[B, y, x, F] -> [B, y·x]."""
        return nn.softmax(self.attention(x).reshape(x.shape[0], -1), axis=-1)
