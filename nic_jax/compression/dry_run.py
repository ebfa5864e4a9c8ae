"""What compressing a cohort would take, from overviews and a few seconds of encoding."""

import time
from collections.abc import Sequence

import numpy as np

from nic_jax import prefetch, progress
from nic_jax.cohort import SlideEntry
from nic_jax.compression.encode import batch_encoder
from nic_jax.compression.prepare import Prepared, prepare
from nic_jax.compression.settings import CompressSettings, request, stored_versions
from nic_jax.encoders.encoder import Encoder
from nic_jax.grids import schema
from nic_jax.slides import stream, tiling

_TIMED_BATCHES = 4


def dry_run(entries: Sequence[SlideEntry], encoder: Encoder, settings: CompressSettings) -> int:
    """Prints a line a slide (µm/px, grid, tissue) and what all of them need in hours and GB.

    Returns:
        How many slides could not be prepared.
    """
    encoder.check_input(settings.patch_size, channels=3)
    versions = stored_versions(encoder, settings)
    cells = failed = 0
    rate = None

    def look(entry: SlideEntry) -> Prepared | Exception:
        try:
            return prepare(entry, request(entry, encoder, settings), settings)
        except Exception as error:
            return error

    looked = prefetch.map_ahead(look, entries, workers=2, ahead=3)
    with progress.bar('looking at slides', total=len(entries), unit='slides') as advance:
        for entry, prepared in zip(entries, looked, strict=True):
            advance(1)
            if isinstance(prepared, Exception):
                failed += 1
                progress.console.print(f'{entry.slide_id}: cannot be compressed: {prepared}')
                continue
            with prepared.slide as slide:
                width, height = slide.dimensions
                rows, columns = prepared.plan.shape
                count = int(prepared.encode.sum())
                progress.console.print(
                    f'{entry.slide_id}: {width}×{height} px of {slide.mpp:.4g} µm, read at level '
                    f'{prepared.plan.level} as {prepared.plan.mpp:.4g} µm/px; {rows}×{columns} '
                    f'cells, {count:,} with tissue'
                )
                cells += count
                if rate is None and count:
                    rate = _cells_per_second(prepared, encoder, settings, versions)
    gigabytes = cells * versions * encoder.code_size * 2 / 1e9
    hours = cells / rate / 3600 if rate else 0
    progress.console.print(
        f'{encoder.name}: {len(entries) - failed} slides, {failed} cannot be compressed; '
        f'{cells:,} patches × {versions} version(s): about {hours:.2g} hours here '
        f'({rate or 0:,.0f} patches/s in all versions), at most {gigabytes:.3g} GB. '
        'Nothing was written.'
    )
    return failed


def _cells_per_second(
    prepared: Prepared, encoder: Encoder, settings: CompressSettings, versions: int
) -> float:
    """Times a few batches from file to codes; compiling is not counted."""
    encode = batch_encoder(encoder, versions=versions)
    size = settings.patch_size
    np.asarray(encode(np.zeros((settings.batch, size, size, 3), np.uint8)))
    batches = stream.stream(
        prepared.slide,
        prepared.plan,
        prepared.encode,
        shards=list(tiling.shards(prepared.plan, schema.SHARD_CELLS)),
        shard_side=schema.SHARD_CELLS,
        batch=settings.batch,
        workers=settings.workers,
    )
    start, timed = time.perf_counter(), 0
    for number, batch in enumerate(batches, start=1):
        if len(batch.cells):
            np.asarray(encode(batch.patches))
            timed += len(batch.cells)
        if number == _TIMED_BATCHES:
            break
    batches.close()
    return max(timed, 1) / (time.perf_counter() - start)
