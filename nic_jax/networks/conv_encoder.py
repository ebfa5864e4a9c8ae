"""The encoders' network: strided 3×3 convolutions, then a linear layer to the code."""

import flax.linen as nn
import jax.numpy as jnp

from nic_jax.networks.strided_conv import StridedConv


class ConvEncoder(nn.Module):
    """Patches in, codes out.

    Two families share it. The papers' (Tellez et al. 2019, supplement): 'SAME' padding, batch norm
    before the activation, a dense layer before the code. The published BiGAN and multitask
    encoders: 'VALID' padding, batch norm after the activation, no dense layer.

    Attributes:
        widths: Filters of each convolution, all of stride 2.
        code_size: C.
        dense: Units of the dense layer before the code, or 0 for none.
        padding: 'SAME' or 'VALID'.
        norm_after: Batch norm after the activation instead of before it.
        slope: Of the leaky ReLU. The papers do not say it; 0.2 is in the published weights.
        epsilon: Of batch norm; Keras's default.
        momentum: Of batch norm's running statistics.
    """

    widths: tuple[int, ...]
    code_size: int
    dense: int = 0
    padding: str = 'VALID'
    norm_after: bool = False
    slope: float = 0.2
    epsilon: float = 1e-3
    momentum: float = 0.99

    @nn.compact
    def __call__(self, x: jnp.ndarray, *, train: bool = False) -> jnp.ndarray:
        """Encodes patches scaled to [−1, 1], float32 `[B, P, P, channels]`, to `[B, C]`."""

        def norm_and_activate(x, index):
            norm = nn.BatchNorm(
                use_running_average=not train,
                momentum=self.momentum,
                epsilon=self.epsilon,
                name=f'norm_{index}',
            )
            if self.norm_after:
                return norm(nn.leaky_relu(x, self.slope))
            return nn.leaky_relu(norm(x), self.slope)

        for index, width in enumerate(self.widths):
            x = StridedConv(width, self.padding, name=f'conv_{index}')(x)
            x = norm_and_activate(x, index)
        x = x.reshape(x.shape[0], -1)  # [B, y, x, F] -> [B, y·x·F]
        if self.dense:
            x = nn.Dense(self.dense, name='dense')(x)
            x = norm_and_activate(x, len(self.widths))
        return nn.Dense(self.code_size, name='code')(x)
