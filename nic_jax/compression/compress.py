"""Slides × encoder → grids: resumable, one slide's failure at a time, as fast as it decodes."""

import collections
import contextlib
import dataclasses
import logging
import pathlib
import time
from collections.abc import Sequence

import numpy as np

from nic_jax import prefetch, progress, workdir
from nic_jax.cohort import SlideEntry
from nic_jax.compression import settings as settings_
from nic_jax.compression.encode import batch_encoder, check_batch
from nic_jax.compression.prepare import Prepared, prepare, save_picture
from nic_jax.encoders.encoder import Encoder
from nic_jax.grids import schema, writing
from nic_jax.slides import stream


@dataclasses.dataclass
class Summary:
    """What became of a cohort: numbers of slides, and of patches encoded in this run."""

    done: int = 0
    skipped: int = 0
    elsewhere: int = 0
    failed: int = 0
    without_tissue: int = 0
    patches: int = 0
    seconds: float = 0.0


def grid_path(folder: pathlib.Path, slide_id: str) -> pathlib.Path:
    """Where a slide's grid lies under an encoder's folder."""
    return folder / 'grids' / f'{slide_id}.zarr'


def compress_cohort(
    entries: Sequence[SlideEntry],
    encoder: Encoder,
    *,
    folder: pathlib.Path,
    settings: settings_.CompressSettings,
    overwrite: bool = False,
) -> Summary:
    """Compresses every slide that is not compressed yet.

    The next slides are opened and their tissue sought while the present one is encoded. A slide
    that fails is noted in failures.csv with its reason, and the others go on.

    Args:
        entries: The slides.
        encoder: Any encoder.
        folder: WORKDIR/ENCODER.
        settings: How slides are cut and encoded.
        overwrite: Replace grids that were made with other settings.

    Returns:
        How many slides came to what.
    """
    encoder.check_input(settings.patch_size, channels=3)
    check_batch(settings.batch)
    home = folder.parent
    encode = batch_encoder(encoder, versions=settings_.stored_versions(encoder, settings))
    summary, start = Summary(), time.perf_counter()

    def open_one(
        entry: SlideEntry,
    ) -> tuple[SlideEntry, contextlib.ExitStack, Prepared | str | Exception]:
        """Takes the slide's lock, prepares it, draws it; a failure is handed over, not raised."""
        held = contextlib.ExitStack()
        try:
            name = f'{folder.name}/{entry.slide_id}'
            if not held.enter_context(workdir.lock(home, name)):
                return entry, held, 'elsewhere'
            asked = settings_.request(entry, encoder, settings)
            if _is_complete(grid_path(folder, entry.slide_id), asked, overwrite):
                return entry, held, 'skipped'
            prepared = prepare(entry, asked, settings)
            held.callback(prepared.slide.close)
            picture = grid_path(folder, entry.slide_id).with_suffix('.png')
            save_picture(prepared.picture, picture)
            return entry, held, prepared
        except Exception as error:
            return entry, held, error

    opened = prefetch.map_ahead(open_one, entries, workers=2, ahead=3)
    with contextlib.closing(opened), progress.bar('slides', total=None, unit='patches') as advance:
        for number, (entry, held, prepared) in enumerate(opened, start=1):
            title = f'{folder.name} {number}/{len(entries)} {entry.slide_id}'
            with held:
                if isinstance(prepared, str):
                    setattr(summary, prepared, getattr(summary, prepared) + 1)
                    if prepared == 'skipped':
                        _succeed(folder, entry)
                    continue
                try:
                    if isinstance(prepared, Exception):
                        raise prepared
                    cells = int(prepared.encode.sum())
                    advance(0, description=title, total=summary.patches + cells)
                    record = _compress_one(prepared, encode, folder, settings, overwrite, advance)
                except Exception as error:
                    _fail(folder, entry, error)
                    summary.failed += 1
                    continue
            _succeed(folder, entry)
            workdir.log_metrics(home, {'stage': 'compress', 'encoder': folder.name, **record})
            summary.done += 1
            summary.patches += record['patches']
            summary.without_tissue += not record['cells']
            progress.console.print(_line(title, prepared, record))
    workdir.merge_failures(home)
    summary.seconds = time.perf_counter() - start
    return summary


def _is_complete(path: pathlib.Path, asked: dict, overwrite: bool) -> bool:
    """Whether a grid is complete and was made with these settings, without opening its slide."""
    stored = schema.read_attributes(path)
    if stored is None:
        return False
    differences = settings_.differences(stored, asked)
    if differences and not overwrite:
        raise schema.GridError(schema.other_settings(path, differences))
    return not differences and bool(stored.get('complete'))


def _compress_one(prepared: Prepared, encode, folder, settings, overwrite, advance) -> dict:
    """Encodes one slide into its grid and returns what metrics.jsonl tells of it."""
    start = time.perf_counter()
    path = grid_path(folder, prepared.entry.slide_id)
    height, width = prepared.plan.shape
    writer = writing.open_writer(
        path,
        attributes=prepared.attributes,
        tissue=prepared.tissue,
        versions=prepared.attributes['versions'],
        code_size=prepared.attributes['encoder']['code_size'],
        overwrite=overwrite,
    )
    if writer is None:
        raise RuntimeError(f'{path} became complete while its lock was held')
    batches = stream.stream(
        prepared.slide,
        prepared.plan,
        prepared.encode,
        shards=writer.missing,
        shard_side=schema.SHARD_CELLS,
        batch=settings.batch,
        workers=settings.workers,
    )
    side = schema.SHARD_CELLS
    patches, shard_codes, writes = 0, None, collections.deque()
    # While the device encodes a batch, the one before it is fetched and the next ones are read.
    with contextlib.closing(batches):  # before the slide is closed, whatever happens
        for batch, codes in _in_flight(batches, encode):
            top, left = batch.shard[0] * side, batch.shard[1] * side
            if shard_codes is None:
                size = (writer.versions, min(side, height - top), min(side, width - left))
                shard_codes = np.full((*size, writer.code_size), np.nan, np.float16)
            if count := len(batch.cells):
                rows, columns = (batch.cells - (top, left)).T
                where = f'{prepared.entry.path}, cells from {batch.cells[0].tolist()}'
                shard_codes[:, rows, columns] = writing.to_float16(codes[:, :count], where)
            if batch.last:
                writes.append(writer.write(batch.shard, shard_codes))
                shard_codes = None
                if len(writes) > 1:
                    writes.popleft().result()
            patches += count
            advance(count)
    for write in writes:
        write.result()
    writer.finish()
    seconds = time.perf_counter() - start
    return {
        'slide_id': prepared.entry.slide_id,
        'rows': height,
        'columns': width,
        'cells': int(prepared.encode.sum()),
        'patches': patches,
        'versions': writer.versions,
        'seconds': round(seconds, 3),
        'patches_per_s': round(patches * writer.versions / seconds, 1),
    }


def _in_flight(batches, encode):
    """Yields (batch, codes float32 `[V, B, C]`), one batch behind what the device works on."""
    waiting = None
    for batch in batches:
        encoded = encode(batch.patches) if len(batch.cells) else None
        if waiting is not None:
            yield waiting[0], np.asarray(waiting[1])
        waiting = batch, encoded
    if waiting is not None:
        yield waiting[0], np.asarray(waiting[1])


def _succeed(folder: pathlib.Path, entry: SlideEntry) -> None:
    workdir.clear_failure(
        folder.parent, stage='compress', encoder=folder.name, slide_id=entry.slide_id
    )


def _fail(folder: pathlib.Path, entry: SlideEntry, error: Exception) -> None:
    reason = str(error) or type(error).__name__
    workdir.record_failure(
        folder.parent,
        stage='compress',
        encoder=folder.name,
        slide_id=entry.slide_id,
        path=entry.path,
        reason=reason,
    )
    progress.console.print(f'failed: {entry.slide_id}: {reason}')
    if not isinstance(error, ValueError | OSError):  # not foreseen: say where it came from
        logging.error('while compressing %s', entry.path, exc_info=error)


def _line(title: str, prepared: Prepared, record: dict) -> str:
    height, width = prepared.plan.shape
    if not (height and width):
        return f'{title}: smaller than one patch; a grid without cells'
    if not record['cells']:
        return f'{title}: no tissue in {height}×{width} cells'
    return (
        f'{title}: {height}×{width} cells, {record["cells"]:,} with tissue, '
        f'{record["versions"]} version(s), {record["patches_per_s"]:,.0f} patches/s'
    )
