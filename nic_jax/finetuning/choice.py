"""Which of the two forms of the gradient a training takes, by the memory that there is."""

import os
import pathlib

from jax.sharding import Mesh

from nic_jax.finetuning.on_device import steps_of

FORMS = ('device', 'streamed')
# Of the devices' memory, for the pixels of a crop: those of the next one lie beside them already,
# and the other half is for the classifier and for the work on a chunk.
_SHARE = 0.25


def choose_form(
    patches: int, chunk: int, patch_bytes: int, memory: int, *, forced: str | None = None
) -> tuple[str, str]:
    """Chooses a form for crops of up to so many patches.

    Args:
        patches: N, at most.
        chunk: B; on the device, N is filled up to some chunks more.
        patch_bytes: Of the pixels of one.
        memory: Bytes that the devices have together.
        forced: One of `FORMS`, or None.

    Returns:
        One of `FORMS`, and a sentence that says which and why.
    """
    if forced not in (None, *FORMS):
        raise ValueError(f'{forced=} must be one of {", ".join(FORMS)}, or None')
    needed, room = steps_of(patches, chunk) * chunk * patch_bytes, int(_SHARE * memory)
    fits = needed <= room
    form = forced or ('device' if fits else 'streamed')
    where = 'lie on the device' if form == 'device' else 'are read twice from the host'
    why = 'as asked for; they ' if forced else 'since they '
    sizes = f'{needed / 2**30:.3g} GiB, {room / 2**30:.3g} GiB at most'
    verdict = 'fit' if fits else 'do not fit'
    return form, (
        f'{form}: the pixels of {patches} patches {where}, {why}{verdict} in a quarter of the '
        f'memory ({sizes})'
    )


def device_memory(mesh: Mesh) -> int:
    """Bytes that the devices have together; the machine's where they are its processors."""
    told = [device.memory_stats() for device in mesh.devices.flat]
    if all(told):
        return sum(stats['bytes_limit'] for stats in told)
    return host_memory()


def host_memory(root: pathlib.Path = pathlib.Path('/')) -> int:
    """Bytes that this process may use: the machine's, or the limit of its job or container.

    Args:
        root: Where `proc` and `sys` are.
    """
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    groups = root / 'proc/self/cgroup'
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, kinds, path = line.split(':', 2)
        if kinds in ('', 'memory'):  # of version 2, and of version 1
            top = root / 'sys/fs/cgroup' / kinds
            group = top / path.lstrip('/')
            # In a container the path may be the host's, and the group's own files lie on top.
            for folder in (group, *group.parents[: len(group.relative_to(top).parts)]):
                for name in ('memory.max', 'memory.limit_in_bytes'):
                    limit = folder / name
                    if limit.exists() and (text := limit.read_text().strip()).isdigit():
                        memory = min(memory, int(text))
    return memory
