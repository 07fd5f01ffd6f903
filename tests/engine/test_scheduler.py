from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ayni.engine.scheduler import Sample, Scheduler


class Mirror:
    """Slots that follow nothing but what `admit`, `retire` and `cancel` return."""

    def __init__(self) -> None:
        self.slots: dict[int, Sample] = {}

    def admit(self, samples: list[Sample]) -> None:
        first = len(self.slots)
        self.slots |= {first + offset: sample for offset, sample in enumerate(samples)}

    def free(self, slots: list[int]) -> list[Sample]:
        return [self.slots.pop(slot) for slot in slots]

    def follow(self, moves: list[tuple[int, int]]) -> None:
        for source, target in moves:
            assert target not in self.slots
            self.slots[target] = self.slots.pop(source)

    def agrees(self, scheduler: Scheduler) -> bool:
        return [self.slots.get(slot) for slot in range(len(self.slots))] == scheduler.running


@pytest.mark.parametrize("seed", range(20))
def test_every_sample_runs_once_in_dense_slots(seed: int) -> None:
    rng = random.Random(seed)
    requests = rng.randint(1, 30)
    lengths = [rng.randint(1, 40) for _ in range(requests)]
    samples = [rng.randint(1, 9) for _ in range(requests)]
    max_rows, budget = rng.randint(1, 20), rng.choice([1, 50, 500])
    scheduler = Scheduler(max_rows, budget, refill_at=rng.randint(1, max_rows))
    for request in range(requests):
        scheduler.add(request, lengths[request], samples[request])
    mirror = Mirror()
    finished: list[Sample] = []
    while not scheduler.done:
        admitted = scheduler.admit()
        mirror.admit(admitted)
        assert mirror.agrees(scheduler)
        assert 0 < len(mirror.slots) <= max_rows
        prompts = {sample.request for sample in admitted}
        assert len(prompts) <= 1 or len(prompts) * max(lengths[request] for request in prompts) <= budget
        slots = rng.sample(range(len(mirror.slots)), rng.randint(0, len(mirror.slots)))
        finished += mirror.free(slots)
        mirror.follow(scheduler.retire(slots))
        assert mirror.agrees(scheduler)
    assert sorted(finished) == [Sample(r, nth) for r in range(requests) for nth in range(samples[r])]


ADD = st.tuples(st.just("add"), st.integers(1, 40), st.integers(1, 6))
CANCEL = st.tuples(st.just("cancel"), st.integers(1, 5), st.just(0))  # the latest request, the one before, ...
STEP = st.tuples(st.just("step"), st.integers(0, 2**16 - 1), st.just(0))


@given(
    script=st.lists(st.one_of(ADD, CANCEL, STEP), min_size=5, max_size=60),
    max_rows=st.integers(1, 9),
    budget=st.sampled_from([1, 40, 400]),
)
def test_requests_come_and_go_and_no_slot_is_lost(
    script: list[tuple[str, int, int]], max_rows: int, budget: int
) -> None:
    scheduler, mirror = Scheduler(max_rows, budget), Mirror()
    open_samples: dict[int, list[Sample]] = {}  # by request, those neither finished nor cancelled
    arrivals: list[Sample] = []  # in order of arrival, those never admitted

    def step(which: int) -> None:
        """Some of the running samples (bits of `which`) finish after the step."""
        free = max_rows - len(mirror.slots)
        admitted = scheduler.admit()
        assert bool(admitted) == bool(free and arrivals)  # nobody waits beside a free slot
        assert admitted == arrivals[: len(admitted)]
        del arrivals[: len(admitted)]
        mirror.admit(admitted)
        assert mirror.agrees(scheduler)
        assert len(mirror.slots) <= max_rows
        slots = [slot for slot in mirror.slots if which >> slot & 1]
        for sample in mirror.free(slots):
            open_samples[sample.request].remove(sample)  # ValueError: it finished twice
        mirror.follow(scheduler.retire(slots))

    for action, number, n in script:
        if action == "add":
            request = len(open_samples)
            scheduler.add(request, number, n)
            open_samples[request] = [Sample(request, nth) for nth in range(n)]
            arrivals += open_samples[request]
        elif action == "cancel":
            request = len(open_samples) - number
            mirror.free([slot for slot, sample in mirror.slots.items() if sample.request == request])
            mirror.follow(scheduler.cancel(request))
            arrivals = [sample for sample in arrivals if sample.request != request]
            if request in open_samples:
                open_samples[request] = []
        else:
            step(number)
        assert mirror.agrees(scheduler)
        assert scheduler.waiting_samples == len(arrivals)
    for _ in range(1 + 2 * sum(map(len, open_samples.values()))):
        step(2**16 - 1)
    assert scheduler.done
    assert not any(open_samples.values())
    assert (scheduler.running, list(scheduler.waiting), scheduler.waiting_samples) == ([], [], 0)


def test_left_over_samples_of_a_split_request_come_alone() -> None:
    scheduler = Scheduler(max_rows=2, prefill_tokens=100)
    scheduler.add(1, prompt_length=9, n=3)
    scheduler.add(0, prompt_length=5, n=2)
    assert scheduler.admit() == [Sample(1, 0), Sample(1, 1)]
    assert scheduler.split_request
    scheduler.retire([0, 1])
    assert scheduler.admit() == [Sample(1, 2)]
    assert not scheduler.split_request
    assert scheduler.admit() == [Sample(0, 0)]


def test_freed_slots_wait_for_company_where_asked_to() -> None:
    patient, eager = Scheduler(32, 100, refill_at=4), Scheduler(32, 100)
    for scheduler in (patient, eager):
        for request in range(100):
            scheduler.add(request, prompt_length=1, n=1)
        assert len(scheduler.admit()) == 32
        scheduler.retire([3, 7, 31])
    assert len(eager.admit()) == 3
    assert patient.admit() == []
    assert patient.retire([0]) == [(28, 0)]
    assert len(patient.admit()) == 4


def test_prompts_of_different_buckets_are_not_prefilled_together() -> None:
    scheduler = Scheduler(max_rows=16, prefill_tokens=1000, bucket=64)
    for request, length in enumerate((130, 129, 128, 70, 65, 64, 1)):
        scheduler.add(request, length, 1)
    steps = []
    while scheduler.waiting:
        steps.append([sample.request for sample in scheduler.admit()])
    assert steps == [[0, 1], [2, 3, 4], [5, 6]]
