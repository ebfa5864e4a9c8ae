"""Which form a training takes, by the memory that there is for it."""

import pytest

from nic_jax import devices
from nic_jax.finetuning.choice import choose_form, device_memory, host_memory


def test_the_form_follows_size_and_says_so():
    form, sentence = choose_form(1000, 8, 2**20, 8 * 2**30)
    assert form == 'device'
    assert '1000 patches lie on the device, since they fit' in sentence
    assert '(1 GiB, 2 GiB at most)' in sentence  # filled up to 128 chunks
    form, sentence = choose_form(2049, 8, 2**20, 8 * 2**30)
    assert form == 'streamed'
    assert 'are read twice from the host, since they do not fit' in sentence
    assert '(3 GiB, 2 GiB at most)' in sentence
    form, sentence = choose_form(3000, 8, 2**20, 8 * 2**30, forced='device')
    assert form == 'device'
    assert 'as asked for; they do not fit' in sentence
    with pytest.raises(ValueError, match="forced='gpu' must be one of device, streamed"):
        choose_form(1, 1, 1, 1, forced='gpu')
    assert device_memory(devices.data_mesh()) > 2**30


@pytest.mark.parametrize(
    ('line', 'files', 'expected'),
    [
        ('0::/slurm/job_1/step_0', {'slurm/job_1/memory.max': '70000'}, 70000),
        ('4:memory:/job/task', {'memory/job/memory.limit_in_bytes': '80000'}, 80000),
        ('0::/of/the/host', {'memory.max': '90000', 'of/memory.max': 'max'}, 90000),
        ('3:cpuset:/job', {'cpuset/memory.max': '1'}, None),
    ],
)
def test_the_limit_of_a_job_is_its_memory(tmp_path, line, files, expected):
    (tmp_path / 'proc/self').mkdir(parents=True)
    (tmp_path / 'proc/self/cgroup').write_text(f'9:pids:/\n{line}\n')
    for name, text in files.items():
        path = tmp_path / 'sys/fs/cgroup' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{text}\n')
    assert host_memory(tmp_path) == (expected or host_memory(tmp_path / 'nothing'))
