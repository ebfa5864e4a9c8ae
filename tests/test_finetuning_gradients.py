"""Gradients from slides into the encoder: against backpropagation through everything at once."""

import dataclasses
import functools
import os
import pathlib
import re
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_slides
from bags import compile_quickly
from jax.sharding import AxisType

from nic_jax import devices
from nic_jax.encoders.architectures import encoder_network
from nic_jax.encoders.conv import conv_encoder, module
from nic_jax.encoders.keras_import import load_keras
from nic_jax.encoders.mean_rgb import mean_rgb
from nic_jax.encoders.objective import initial_encoder, network_input
from nic_jax.finetuning import (
    Networks,
    Patches,
    adapt,
    batch_value_and_gradient,
    device_form,
    everything,
    last_layers,
    per_patch,
    split,
    streamed,
    streamed_form,
)
from nic_jax.finetuning.gradients import chunk_cells
from nic_jax.finetuning.on_device import compiled, steps_of
from nic_jax.patches.augmentation import Augmentation

FORMS = (device_form, streamed_form)
N = 10
EXACT = 1e-10  # of float64: other orders of sums of some dozen terms
whole = functools.partial(split, trains=everything)


@pytest.fixture(autouse=True, scope='module')
def _compile_quickly():
    yield from compile_quickly()


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@functools.cache
def toy_case(outputs=3):
    """Networks, trees with all trained, and a slide of N patches."""
    networks, variables = toy_slides.toy_networks(outputs=outputs)
    trees = toy_slides.divided(variables, encoder=whole, classifier=whole)
    return networks, trees, toy_slides.patches(N)


@functools.cache
def expected_of_toy_case():
    """Loss, outputs [1, K] and gradient for target 2 and key 3, in float64."""
    networks, trees, slide = toy_case()
    with jax.enable_x64(True):
        return toy_slides.all_at_once(
            networks, *trees, [slide], [2], [jax.random.key(3)], 'classification'
        )


def gradient_of(form, trees, slide, target, key, task='classification'):
    return form.value_and_gradient(*trees, form.load(slide), jnp.asarray(target), key, task=task)


# ---- One slide ---------------------------------------------------------------------------------


@pytest.mark.parametrize('chunk', [1, 3, 4, N, 40])  # 40: more than there are cells
@pytest.mark.parametrize('build', FORMS)
def test_any_chunk_gives_the_gradient_of_the_whole(double, build, chunk):
    networks, trees, slide = toy_case()
    loss, outputs, expected = expected_of_toy_case()
    assert all(leaf.any() for leaf in jax.tree.leaves(expected))
    result = gradient_of(build(networks, chunk=chunk), trees, slide, 2, jax.random.key(3))
    assert result.loss.dtype == np.float64
    np.testing.assert_allclose(result.loss, loss, rtol=EXACT)
    np.testing.assert_allclose(result.outputs, outputs[0], rtol=EXACT)
    toy_slides.assert_same(result.gradient, expected, relative=EXACT)


@pytest.mark.parametrize('build', FORMS)
def test_augmentation_is_replayed_and_depends_on_key_and_cell_alone(double, build):
    networks, trees, slide = toy_case()
    *_, expected = expected_of_toy_case()
    form = build(networks, chunk=4)
    order = np.random.default_rng(0).permutation(N)
    shuffled = Patches(slide.cells[order], lambda *span: slide.read(0, N)[order][slice(*span)])
    again = gradient_of(form, trees, shuffled, 2, jax.random.key(3))
    toy_slides.assert_same(again.gradient, expected, relative=EXACT)
    # With other pixels in one of the passes, it would be off by about as much as this is.
    other = gradient_of(form, trees, slide, 2, jax.random.key(4))
    with pytest.raises(AssertionError):
        toy_slides.assert_same(other.gradient, expected, relative=0.01)


@pytest.mark.parametrize('build', FORMS)
def test_derivatives_are_those_of_small_differences(double, build):
    networks, (trained, frozen), slide = toy_case(outputs=1)
    form, key = build(networks, chunk=4), jax.random.key(3)
    loaded = form.load(slide)
    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), trained)

    def loss(by):
        moved = jax.tree.map(lambda leaf, step: leaf + by * step, trained, direction)
        (output,), _ = form.outputs(moved, frozen, loaded, key)
        return (float(output) - 0.7) ** 2

    result = form.value_and_gradient(
        trained, frozen, loaded, jnp.asarray(0.7), key, task='regression'
    )
    step = 1e-5
    expected = (loss(step) - loss(-step)) / (2 * step)
    parts = jax.tree.map(lambda a, b: (a * b).sum(), result.gradient, direction)
    assert sum(jax.tree.leaves(parts)) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize('part', ['last', 'lora', 'none'])
def test_what_is_frozen_has_no_gradient(double, part):
    networks, variables = toy_slides.toy_networks()
    slide, key = toy_slides.patches(N), jax.random.key(3)
    splits = {
        'last': lambda tree: split(tree, last_layers({'widths': [6]}, 1)),
        'lora': lambda tree: adapt(tree, jax.random.key(5), rank=2),
        'none': lambda tree: ({}, tree),
    }
    trees = toy_slides.divided(variables, encoder=splits[part], classifier=whole)
    # With B at zero, A would have no gradient.
    trees[0]['encoder'] = jax.tree.map(lambda leaf: leaf + 0.1, trees[0]['encoder'])
    *_, expected = toy_slides.all_at_once(networks, *trees, [slide], [2], [key], 'classification')
    assert all(leaf.any() for leaf in jax.tree.leaves(expected))
    for build in FORMS:
        result = gradient_of(build(networks, chunk=4), trees, slide, 2, key)
        toy_slides.assert_same(result.gradient, expected, relative=EXACT)


def test_pixels_are_read_twice_and_once_for_a_frozen_encoder():
    networks, variables = toy_slides.toy_networks()
    form = streamed_form(networks, chunk=4)
    slide, spans = toy_slides.patches(N), []

    def read(start, stop):
        spans.append((start, stop))
        return slide.read(start, stop)

    counted = Patches(slide.cells, read)
    for encoder, passes in ((whole, 2), (lambda tree: ({}, tree), 1)):
        spans.clear()
        trees = toy_slides.divided(variables, encoder=encoder, classifier=whole)
        gradient_of(form, trees, counted, 2, jax.random.key(0))
        assert sorted(spans) == sorted([(0, 4), (4, 8), (8, 10)] * passes)


# ---- Several slides ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('task', 'outputs', 'targets'),
    [
        # Ties among the dead, one censored, and who dies first of all.
        ('survival', 1, [(3, 1), (3, 1), (5, 0), (1, 1), (9, 1)]),
        ('classification', 3, [2, 0, 1, 1, 2]),
        ('regression', 1, [0.1, -0.4, 2.0, 0.3, 1.0]),
    ],
)
def test_a_batch_gives_what_all_slides_at_once_give(double, task, outputs, targets):
    networks, trees, _ = toy_case(outputs)
    slides = [toy_slides.patches(count, seed=1) for count in (8, 6, 0, 7, 5)]
    key, targets = jax.random.key(7), np.array(targets)
    keys = [jax.random.fold_in(key, number) for number in range(5)]
    loss, found, expected = toy_slides.all_at_once(networks, *trees, slides, targets, keys, task)
    device, stream = (build(networks, chunk=4) for build in FORMS)
    forms = (stream, device, stream, device, device)
    result = batch_value_and_gradient(
        *trees, list(zip(forms, slides, strict=True)), targets, key, task=task
    )
    np.testing.assert_allclose(result.loss, loss, rtol=EXACT)
    np.testing.assert_allclose(result.outputs, found, rtol=EXACT)
    assert all(leaf.any() for leaf in jax.tree.leaves(expected) if leaf.size > 1)
    toy_slides.assert_same(result.gradient, expected, relative=EXACT)


def test_one_slide_has_no_loss_of_survival():
    networks, trees, slide = toy_case(outputs=1)
    for build in FORMS:
        with pytest.raises(ValueError, match='batch_value_and_gradient'):
            gradient_of(
                build(networks, chunk=2),
                trees,
                slide,
                [1.0, 1.0],
                jax.random.key(0),
                task='survival',
            )


# ---- Real networks -----------------------------------------------------------------------------


def real_encoder(kind, shared):
    if kind == 'published':
        return load_keras(shared / 'reference' / 'encoder_multitask-4.h5')
    network = encoder_network(
        'supervised', family='pyramid', patch_size=16, channels=3, code_size=6
    )
    return conv_encoder(kind, network, initial_encoder(network, jax.random.key(0)), mpp=1.0)


@pytest.mark.parametrize(
    ('build', 'kind', 'size', 'model', 'fields'),
    [
        (device_form, 'published', 128, 'spatial', {'width': 6, 'units': 5, 'windows': (1, 3)}),
        (streamed_form, 'pyramid', 16, 'cnn', {'widths': (6,) * 8, 'dense': 5}),
    ],
)
def test_stored_variables_get_the_gradient_of_the_plain_network(
    shared, build, kind, size, model, fields
):
    """`apply` folds batch norm and scaling into kernels, and takes batches apart on a CPU."""
    encoder = real_encoder(kind, shared)

    def plain(variables, patches):
        scaled = network_input(encoder.network, patches.astype(float) / 255)
        return module(encoder.network).apply(variables, scaled)

    classify, head = toy_slides.classifier(
        model, fields=fields, code_size=encoder.code_size, outputs=2
    )
    variables = {'encoder': encoder.variables, 'classifier': head}
    networks = Networks(encoder.apply, classify, encoder.code_size, crop=toy_slides.R)
    slide, key = toy_slides.patches(9, size=size), jax.random.key(0)
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        trees = toy_slides.divided(variables, encoder=whole, classifier=whole)
        unfolded = dataclasses.replace(networks, encode=plain)
        *_, expected = toy_slides.all_at_once(
            unfolded, *trees, [slide], [1], [key], 'classification'
        )
    trees = jax.tree.map(np.float32, trees)
    single = gradient_of(build(networks, chunk=5), trees, slide, 1, key).gradient
    for name in expected:
        got, wanted = (
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree[name])])
            for tree in (single, expected)
        )
        # Where a unit is as good as 0, rounding decides on which side of leaky ReLU's bend.
        assert np.linalg.norm(got - wanted) < 1e-3 * np.linalg.norm(wanted), name


@pytest.mark.slow
@pytest.mark.parametrize(('kind', 'size'), [('published', 64), ('pyramid', 16)])
def test_half_precision_turns_no_gradient_of_a_layer_by_much(shared, kind, size):
    encoder = real_encoder(kind, shared)
    classify, head = toy_slides.classifier(code_size=encoder.code_size, outputs=2)
    single = Networks(encoder.apply, classify, encoder.code_size, crop=toy_slides.R)
    half = dataclasses.replace(single, half=True)
    variables = {'encoder': encoder.variables, 'classifier': head}
    trees = toy_slides.divided(variables, encoder=whole, classifier=whole)
    slide, key = toy_slides.patches(9, size=size), jax.random.key(0)
    # Bright, as tissue is: pixels far from 0 are what bfloat16 is worst at.
    bright = Patches(slide.cells, lambda *span: 128 + slide.read(*span) // 2)
    for build in FORMS:
        wanted, got = (
            gradient_of(build(networks, chunk=5), trees, bright, 1, key).gradient
            for networks in (single, half)
        )
        assert not np.array_equal(*(jax.tree.leaves(tree['encoder'])[0] for tree in (wanted, got)))
        for (name, one), other in zip(
            jax.tree_util.tree_leaves_with_path(wanted), jax.tree.leaves(got), strict=True
        ):
            assert other.dtype == np.float32
            # bfloat16 has 8 bits: terms are off by .2 to .4 %, and some sums cancel.
            off = np.linalg.norm(other - one) / np.linalg.norm(one)
            assert off < 0.15, jax.tree_util.keystr(name)


def test_an_encoder_without_weights_trains_the_classifier_alone():
    encoder = mean_rgb()
    classify, head = toy_slides.classifier()
    networks = Networks(encoder.apply, classify, encoder.code_size, crop=toy_slides.R)
    trees = toy_slides.divided(
        {'encoder': encoder.variables, 'classifier': head},
        encoder=lambda tree: ({}, tree),
        classifier=whole,
    )
    slide, key = toy_slides.patches(N), jax.random.key(0)
    *_, expected = toy_slides.all_at_once(networks, *trees, [slide], [1], [key], 'classification')
    for build in FORMS:
        result = gradient_of(build(networks, chunk=4), trees, slide, 1, key)
        assert result.gradient['encoder'] == {}
        toy_slides.assert_same(result.gradient, expected, relative=1e-5)


def test_real_augmentation_does_not_depend_on_chunks():
    settings = Augmentation(turn=True, brightness=(0.5, 1), noise=(0, 0.1))
    networks, variables = toy_slides.toy_networks(augment=per_patch(settings))
    trees = toy_slides.divided(variables, encoder=whole, classifier=whole)
    slide, key = toy_slides.patches(N), jax.random.key(3)
    found = [
        gradient_of(build(networks, chunk=chunk), trees, slide, 2, key).gradient
        for build, chunk in zip(FORMS, (3, 4), strict=True)
    ]
    toy_slides.assert_same(*found, relative=1e-4)
    assert per_patch(Augmentation()) is None
    plain = dataclasses.replace(networks, augment=None)
    other = gradient_of(device_form(plain, chunk=3), trees, slide, 2, key).gradient
    with pytest.raises(AssertionError):
        toy_slides.assert_same(other, found[0], relative=0.01)


# ---- Memory, devices, input --------------------------------------------------------------------


def wide_case():
    """Encoders with many more activations than pixels, and a crop with room for many patches."""
    classify, head = toy_slides.classifier(crop=32)
    variables = {'encoder': toy_slides.encoder_variables(width=512), 'classifier': head}
    trees = toy_slides.divided(variables, encoder=whole, classifier=whole)
    networks = Networks(toy_slides.encode, classify, toy_slides.C, crop=32)
    return networks, jax.tree.map(np.float32, trees)


def test_memory_on_the_device_does_not_grow_with_patches():
    networks, trees = wide_case()
    loss_and_gradient, _ = compiled(networks, devices.data_mesh())
    B, P, key = 16, toy_slides.P, jax.random.key(0)

    def temporary(function, *arguments, **options):
        return function.lower(*arguments, **options).compile().memory_analysis().temp_size_in_bytes

    def all_at_once(trees, pixels):
        patches = Patches(np.arange(len(pixels)), lambda start, stop: pixels)
        return toy_slides.all_at_once(networks, *trees, [patches], [1], [key], 'classification')

    chunked, plain = [], []
    for S in (2, 32):
        pixels = jax.ShapeDtypeStruct((S, B, P, P, 3), np.uint8)
        cells = jax.ShapeDtypeStruct((S, B), np.int32)
        arguments = (*trees, pixels, cells, np.int32(1), key)
        chunked.append(temporary(loss_and_gradient, *arguments, task='classification'))
        pixels = jax.ShapeDtypeStruct((S * B, P, P, 3), np.uint8)
        plain.append(temporary(jax.jit(all_at_once), trees, pixels))
    # Of the patches that are more, their codes alone, 12 bytes each: not even the pixels, 48.
    more = 30 * B
    assert chunked[1] - chunked[0] <= 2 * 12 * more
    assert plain[1] - plain[0] >= 4 * 512 * more


def test_streaming_holds_a_few_chunks_whatever_the_number():
    networks, trees = wide_case()
    form = streamed_form(networks, chunk=8, workers=2)
    pixels = toy_slides.patches(8, crop=32).read(0, 8)
    peaks = []
    for count in (64, 192):
        held = []

        def read(start, stop, held=held):
            arrays = [array for array in jax.live_arrays() if array.dtype == np.uint8]
            held.append(sum(array.nbytes for array in arrays))
            return pixels[: stop - start]

        slide = Patches(np.arange(count, dtype=np.int32), read)
        gradient_of(form, trees, slide, 1, jax.random.key(0))
        assert len(held) == 2 * count / 8
        peaks.append(max(held))
    # Three that are read ahead, one that is computed, one that waits behind it, one in between.
    assert max(peaks) <= 6 * pixels.nbytes


def test_a_chunk_is_begun_when_the_one_before_the_last_is_done():
    done = []

    class Mark:
        def __init__(self, chunk):
            self.chunk = chunk

        def block_until_ready(self):
            done.append(self.chunk)

    def begin(carried, chunk):
        assert set(range(chunk - 1)) <= set(done)
        assert chunk - 1 not in done  # it may run still
        return carried + chunk, Mark(chunk)

    carried, waited = streamed.each(iter(range(10)), 6, begin, 100)
    assert carried == 100 + sum(range(6))
    assert 0 <= waited < 1


def test_crops_of_different_sizes_compile_once():
    networks, trees, _ = toy_case()
    assert [steps_of(n, 10) for n in (0, 1, 10, 11, 25, 40, 41, 61, 81, 121)] == [
        1, 1, 1, 2, 3, 4, 6, 8, 12, 16,
    ]  # fmt: skip
    traced = []

    def encode(variables, pixels):
        traced.append(pixels.shape)
        return toy_slides.encode(variables, pixels)

    networks = dataclasses.replace(networks, encode=encode)
    for build in FORMS:
        form = build(networks, chunk=2)
        gradient_of(form, trees, toy_slides.patches(9), 1, jax.random.key(0))
        traced.clear()
        for count in (10, 12):
            gradient_of(form, trees, toy_slides.patches(count), 2, jax.random.key(1))
        assert not traced


def test_time_waited_for_input_is_told_and_errors_of_reading_are_raised():
    networks, trees, slide = toy_case()
    key, form = jax.random.key(0), streamed_form(networks, chunk=5, workers=1)

    def slow(start, stop):
        time.sleep(0.05)
        return slide.read(start, stop)

    gradient_of(form, trees, slide, 1, key)
    began = time.perf_counter()
    waited = gradient_of(form, trees, Patches(slide.cells, slow), 1, key).waited
    assert 0.1 < waited < time.perf_counter() - began
    result = batch_value_and_gradient(
        *trees,
        [(device_form(networks, chunk=5), Patches(slide.cells, slow))] * 2,
        np.array([1, 2]),
        key,
        task='classification',
    )
    assert result.waited > 0.05

    def broken(start, stop):
        raise OSError(f'slide.svs cannot be read at patch {start}')

    for build in FORMS:
        form = build(networks, chunk=5)
        with pytest.raises(OSError, match=r'slide\.svs cannot be read at patch 0'):
            gradient_of(form, trees, Patches(slide.cells, broken), 1, key)


_ON_DEVICES = """
import jax
jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_disable_most_optimizations', True)
from test_finetuning_gradients import check_devices
check_devices()
"""


def test_devices_share_the_work_and_give_the_same():
    home = pathlib.Path(__file__).parent
    subprocess.run(
        [sys.executable, '-c', _ON_DEVICES],
        check=True,
        env=os.environ | {'PYTHONPATH': f'{home}:{home.parent}', 'JAX_PLATFORMS': 'cpu'},
    )


def check_devices():
    networks, trees = wide_case()

    def encode(variables, pixels):  # takes a batch apart, as encoders do on a CPU
        return jax.lax.map(
            lambda patch: toy_slides.encode(variables, patch[None])[0], pixels, batch_size=4
        )

    networks = dataclasses.replace(networks, encode=encode)
    slide, key = toy_slides.patches(41, crop=32), jax.random.key(0)
    found = []
    for number in (1, 2, 4):
        mesh = jax.make_mesh(
            (number,), ('data',), (AxisType.Auto,), devices=tuple(jax.devices()[:number])
        )
        function, _ = compiled(networks, mesh)
        loaded = device_form(networks, chunk=16, mesh=mesh).load(slide)
        assert {shard.data.shape for shard in loaded[0].addressable_shards} == {
            (3, 16 // number, 4, 4, 3)
        }
        built = function.lower(*trees, *loaded, np.int32(1), key, task='classification').compile()
        _, gradient = built(*trees, *loaded, np.int32(1), key)
        streamed = streamed_form(networks, chunk=16, mesh=mesh)
        found += [gradient, gradient_of(streamed, trees, slide, 1, key).gradient]
        text = built.as_text()
        if number > 1:
            # Codes and cells come together once and gradients once; pixels stay where they are.
            assert f'num_partitions={number}' in text
            assert f'u8[3,{16 // number},4,4,3]' in text
            assert 'u8[3,16,4,4,3]' not in text
            moved = re.findall(r'= (\S+?)\{\S* (?:all-gather|all-to-all|collective-permute)', text)
            assert sorted(moved) == ['f32[3,16,3]', 's32[3,16]'], moved
            assert len(re.findall(r' all-reduce(?:-start)?\(', text)) == 1
    for gradient in found[1:]:
        toy_slides.assert_same(gradient, found[0], relative=1e-5)


# ---- Small parts -------------------------------------------------------------------------------


def test_cells_in_chunks():
    got = chunk_cells(np.array([3, 0, 2]), chunk=2, steps=3, crop=2)
    np.testing.assert_array_equal(got, [[3, 0], [2, 4], [4, 4]])
    assert got.dtype == np.int32
    with pytest.raises(ValueError, match='cells are from 0 to 4; a crop of 2×2 has those from 0'):
        chunk_cells(np.array([0, 4]), chunk=2, steps=1, crop=2)
    with pytest.raises(ValueError, match='2 patches lie in 1 cells'):
        chunk_cells(np.array([1, 1]), chunk=2, steps=1, crop=2)
