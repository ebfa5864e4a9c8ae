"""Neural image compression: one command, its stages and experiments.

python -m nic_jax.main --config=experiments/NAME.py[:VARIANT] --workdir=DIR
    [--stages=a,b] [--config.KEY=VALUE …] [--overwrite] [--dry_run]
"""

import json
import pathlib
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from nic_jax import workdir as workdir_
from nic_jax.checks import check, dry_run
from nic_jax.command_line import parse
from nic_jax.stages import STAGES, run

_CONFIG = config_flags.DEFINE_config_file('config', None, 'The experiment: FILE.py[:VARIANT].')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where everything is written.')
_STAGES = flags.DEFINE_list('stages', None, f'Run only these of {", ".join(STAGES)}.')
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace what other settings have made.')
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Say what would be done, and do nothing.')


def main(arguments: list[str]) -> int:
    """Runs the stages that the flags ask for; the exit status is 1 if a slide failed."""
    del arguments
    if flags.FLAGS.verbosity <= 0:  # --verbosity=1 tells where an error arose
        logging.set_verbosity(logging.WARNING)
    # A terminal without µ or × must not end a long run; a log file shows lines as they come.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors='backslashreplace', line_buffering=True)
    config = _CONFIG.value
    with config.unlocked():
        if _STAGES.value is not None:
            config.stages = tuple(_STAGES.value)
    try:
        workdir = pathlib.Path(_WORKDIR.value) if _WORKDIR.value else None
        check(config, workdir)
        jax.config.update('jax_default_matmul_precision', config.precision)
        # Not on CPUs: a cluster's nodes differ in their instructions and share a home folder.
        if jax.config.jax_compilation_cache_dir is None and jax.default_backend() != 'cpu':
            cache = pathlib.Path.home() / '.cache' / 'nic_jax'
            jax.config.update('jax_compilation_cache_dir', str(cache))
        if _DRY_RUN.value:
            return 0 if dry_run(config, workdir) else 1
        workdir.mkdir(parents=True, exist_ok=True)
        workdir_.write_atomically(
            workdir / 'config.json', json.dumps(config.to_dict(), indent=1, default=list)
        )
        return 0 if run(config, workdir, overwrite=_OVERWRITE.value) else 1
    except (ValueError, OSError, FloatingPointError) as error:
        logging.debug('stopped', exc_info=True)
        print(f'error: {error}', file=sys.stderr)
        return 2


def start() -> None:
    """The console's entry point."""
    app.run(main, flags_parser=parse)


if __name__ == '__main__':
    start()
