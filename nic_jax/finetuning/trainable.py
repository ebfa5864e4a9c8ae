"""What of a network is trained: all of it, its last layers, or low-rank adapters of its kernels.

Variables are split into two trees, what is trained and what is frozen, so that nothing frozen has a
gradient or an optimizer's moments; `merge` makes one tree of them again. Only `params` are trained,
never batch norm's running statistics or the codes' scaling.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Tree = Mapping[str, Any]  # nested dicts of arrays
_ADAPTED = {'base', 'scale', 'down', 'up'}  # a kernel, the first two frozen, the others trained


def everything(name: str) -> bool:
    """Marks all parameters."""
    del name
    return True


def last_layers(network: Mapping[str, Any], count: int) -> Callable[[str], bool]:
    """Marks the parameters of an encoder's last layers, each with its batch norm.

    Args:
        network: `Encoder.network`, of the kind 'conv'.
        count: Layers; 1 is the linear layer to the code alone.

    Raises:
        ValueError: The encoder has not as many, or none.
    """
    depth = len(network.get('widths', ()))
    layers = [(f'conv_{index}', f'norm_{index}') for index in range(depth)]
    if network.get('dense'):
        layers.append(('dense', f'norm_{depth}'))
    if layers:
        layers.append(('code',))
    if not 1 <= count <= len(layers):
        raise ValueError(f'{count=} must be from 1 to the {len(layers)} layers of the encoder')
    trained = {name for layer in layers[-count:] for name in layer}
    return lambda name: name.split('/')[0] in trained


def split(variables: Tree, trains: Callable[[str], bool]) -> tuple[Tree, Tree]:
    """Splits variables into what is trained and what is frozen.

    Args:
        variables: Of a network: `params` and other collections.
        trains: Of the name of a parameter, 'conv_3/kernel'.

    Returns:
        Two trees with the same nesting, each parameter in one of them.

    Raises:
        ValueError: Nothing is trained.
    """
    trained, frozen = _divide(variables.get('params', {}), trains, '')
    if not jax.tree.leaves(trained):
        names = ', '.join(_names(variables.get('params', {}))) or 'none: there is nothing to train'
        raise ValueError(f'no parameter is chosen to be trained; there are {names}')
    others = {name: tree for name, tree in variables.items() if name != 'params'}
    return {'params': trained}, {**others, 'params': frozen}


def adapt(variables: Tree, key: Array, *, rank: int, scale: float = 1.0) -> tuple[Tree, Tree]:
    """Splits variables into low-rank adapters of the kernels, which are trained, and all the rest.

    A kernel W of a dense layer or a convolution, seen as a matrix [inputs, outputs], becomes
    W + scale · A·B, with A [inputs, r] drawn at random and B [r, outputs] zero: at first nothing
    changes. `merge` gives an ordinary network again.

    Args:
        variables: Of a network.
        key: For A.
        rank: r; less where a layer is narrower.
        scale: LoRA's α/r.

    Returns:
        trained and frozen, as of `split`.

    References:
        Hu et al., LoRA: low-rank adaptation of large language models, ICLR 2022.
    """
    if rank < 1:
        raise ValueError(f'{rank=} must be at least 1')

    def adapters(tree, key):
        trained, frozen = {}, {}
        for number, (name, value) in enumerate(sorted(tree.items())):
            own = jax.random.fold_in(key, number)
            if isinstance(value, Mapping):
                inner, frozen[name] = adapters(value, own)
                if inner:
                    trained[name] = inner
            elif name == 'kernel' and value.ndim in (2, 4):
                inputs, outputs = math.prod(value.shape[:-1]), value.shape[-1]
                r = min(rank, inputs, outputs)
                down = jax.random.normal(own, (inputs, r), value.dtype) / math.sqrt(inputs)
                trained[name] = {'down': down, 'up': jnp.zeros((r, outputs), value.dtype)}
                frozen[name] = {'base': value, 'scale': jnp.asarray(scale, value.dtype)}
            else:
                frozen[name] = value
        return trained, frozen

    trained, frozen = adapters(variables.get('params', {}), key)
    if not trained:
        raise ValueError('there is no kernel of a dense layer or a convolution to adapt')
    others = {name: tree for name, tree in variables.items() if name != 'params'}
    return {'params': trained}, {**others, 'params': frozen}


def merge(trained: Tree, frozen: Tree) -> Tree:
    """Joins what `split` or `adapt` has parted: variables as the network takes them."""
    merged = {}
    for name in sorted({*trained, *frozen}):
        parts = [tree[name] for tree in (trained, frozen) if name in tree]
        if isinstance(parts[0], Mapping):
            merged[name] = merge(parts[0], parts[1] if len(parts) == 2 else {})
        else:
            (merged[name],) = parts
    if merged.keys() == _ADAPTED:
        return _adapted(**merged)
    return merged


def _adapted(*, base: Array, scale: Array, down: Array, up: Array) -> Array:
    return base + scale * (down @ up).reshape(base.shape)


def _divide(tree: Tree, trains: Callable[[str], bool], prefix: str) -> tuple[dict, dict]:
    trained, frozen = {}, {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            for side, part in zip(
                (trained, frozen), _divide(value, trains, f'{prefix}{name}/'), strict=True
            ):
                if part:
                    side[name] = part
        else:
            (trained if trains(prefix + name) else frozen)[name] = value
    return trained, frozen


def _names(tree: Tree, prefix: str = '') -> list[str]:
    return [
        full
        for name, value in tree.items()
        for full in (
            _names(value, f'{prefix}{name}/') if isinstance(value, Mapping) else [prefix + name]
        )
    ]
