"""From a code to a patch: the VAE's decoder, the BiGAN's generator (Tellez et al. 2019)."""

import flax.linen as nn
import jax.numpy as jnp

from nic_jax.networks.up_conv import UpConv


class ConvDecoder(nn.Module):
    """A dense layer to a 4×4 map, then upsampling and convolutions up to the patch.

    Attributes:
        size: Side of the patch that comes out, px. Where the upsampled map is larger (16 px for the
            synthetic 9 px, on which the paper is silent), its centre is cut out.
        channels: Of the patch.
        start: Filters of the 4×4 map.
        widths: Filters of the convolution after each doubling.
        slope: Of the leaky ReLU.
        epsilon: Of batch norm.
        momentum: Of batch norm's running statistics.
    """

    size: int
    channels: int
    start: int
    widths: tuple[int, ...]
    slope: float = 0.2
    epsilon: float = 1e-3
    momentum: float = 0.99

    @nn.compact
    def __call__(self, z: jnp.ndarray, *, train: bool = False) -> jnp.ndarray:
        """Decodes `[B, C]` to `[B, size, size, channels]` in [−1, 1]."""

        def norm_and_activate(x):
            x = nn.BatchNorm(
                use_running_average=not train, momentum=self.momentum, epsilon=self.epsilon
            )(x)
            return nn.leaky_relu(x, self.slope)

        x = norm_and_activate(nn.Dense(16 * self.start)(z))
        x = x.reshape(-1, 4, 4, self.start)
        for width in self.widths:
            x = norm_and_activate(UpConv(width)(x))
        x = jnp.tanh(nn.Conv(self.channels, (3, 3))(x))
        margin = (x.shape[1] - self.size) // 2
        return x[:, margin : margin + self.size, margin : margin + self.size]
