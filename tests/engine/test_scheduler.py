from __future__ import annotations

import random

import pytest

from ayni.engine.scheduler import Sample, Scheduler


@pytest.mark.parametrize("seed", range(20))
def test_every_sample_runs_once_in_dense_slots(seed: int) -> None:
    """A mirror of the slots that follows `admit` and `retire` only must always agree with the scheduler."""
    rng = random.Random(seed)
    requests = rng.randint(1, 30)
    lengths = [rng.randint(1, 40) for _ in range(requests)]
    samples = [rng.randint(1, 9) for _ in range(requests)]
    max_rows, budget = rng.randint(1, 20), rng.choice([1, 50, 500])
    scheduler = Scheduler(lengths, samples, max_rows, budget)
    mirror: dict[int, Sample] = {}
    finished: list[Sample] = []
    while not scheduler.done:
        admitted = scheduler.admit()
        mirror |= {len(mirror) + offset: sample for offset, sample in enumerate(admitted)}
        assert [mirror[slot] for slot in range(len(mirror))] == scheduler.running
        assert 0 < len(mirror) <= max_rows
        prompts = {sample.request for sample in admitted}
        assert len(prompts) <= 1 or len(prompts) * max(lengths[request] for request in prompts) <= budget
        slots = rng.sample(range(len(mirror)), rng.randint(0, len(mirror)))
        finished += [mirror.pop(slot) for slot in slots]
        for source, target in scheduler.retire(slots):
            assert target not in mirror
            mirror[target] = mirror.pop(source)
        assert sorted(mirror) == list(range(len(mirror)))
    assert sorted(finished) == [Sample(r, nth) for r in range(requests) for nth in range(samples[r])]


def test_left_over_samples_of_a_split_request_come_alone() -> None:
    scheduler = Scheduler([5, 9], [2, 3], max_rows=2, prefill_tokens=100)
    assert scheduler.admit() == [Sample(1, 0), Sample(1, 1)]  # the longer prompt first
    assert scheduler.split_request
    scheduler.retire([0, 1])
    assert scheduler.admit() == [Sample(1, 2)]
    assert not scheduler.split_request
    assert scheduler.admit() == [Sample(0, 0)]


def test_freed_slots_wait_for_company() -> None:
    scheduler = Scheduler([1] * 100, [1] * 100, max_rows=32, prefill_tokens=100)
    assert len(scheduler.admit()) == 32
    scheduler.retire([3, 7, 31])
    assert scheduler.admit() == []
    assert scheduler.retire([0]) == [(28, 0)]
    assert len(scheduler.admit()) == 4
