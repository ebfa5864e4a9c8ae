"""What compression, probing and fine-tuning see of any encoder, whatever trained it."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Variables = Mapping[str, Any]


class EncoderError(ValueError):
    """An encoder that cannot be found, read, or used as asked."""


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """A patch encoder.

    Attributes:
        name: Names its folder in a workdir.
        apply: (variables, patches uint8 `[B, P, P, channels]`) -> codes float32 `[B, C]`. Pure and
            jittable; the scaling of pixels is inside. Patches may be of another type, 0 … 255; in
            bfloat16, networks compute in it.
        variables: Its weights.
        network: What rebuilds `apply`; JSON values only.
        inputs: The (patch size in px, µm/px) it was made for, its own first. Empty: any.
        channels: Of its patches: 3 for tissue, 1 for the synthetic images.
        code_size: C.
        turn_invariant: Whether turning a patch leaves its code as it is.
        learned_from: Fingerprints of the slides' files whose labels have shaped it, by fine-tuning;
            see `hold_outs`.
    """

    name: str
    apply: Callable[[Variables, jnp.ndarray], jnp.ndarray]
    variables: Variables
    network: Mapping[str, Any]
    inputs: tuple[tuple[int, float], ...]
    channels: int
    code_size: int
    turn_invariant: bool = False
    learned_from: tuple[str, ...] = ()

    def sha256(self) -> str:
        """Fingerprint of network and weights: equal exactly where codes are made alike."""
        digest = hashlib.sha256(json.dumps(self.network, sort_keys=True).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.variables):
            value = np.asarray(leaf)
            digest.update(f'{jax.tree_util.keystr(path)} {value.dtype} {value.shape}'.encode())
            digest.update(value.tobytes())
        return digest.hexdigest()

    def check_input(self, patch_size: int, *, channels: int) -> None:
        """Raises EncoderError where such patches cannot be encoded."""
        if channels != self.channels:
            raise EncoderError(
                f'encoder {self.name} takes patches of {self.channels} channel(s), these have '
                f'{channels}; name an encoder that was trained on such images'
            )
        sizes = [size for size, _ in self.inputs]
        if sizes and patch_size not in sizes:
            known = ', '.join(f'{size} px at {mpp:g} µm/px' for size, mpp in self.inputs)
            raise EncoderError(
                f'encoder {self.name} takes patches of {known}; '
                f'got --config.tiling.patch_size={patch_size}'
            )
