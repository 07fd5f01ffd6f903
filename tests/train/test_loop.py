"""The loop: normalisation, resuming, the order of saving and evaluating, divergence."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch

from ayni.train.batches import PackedRows, Shuffled, pack
from ayni.train.checkpoint import checkpoints, resumable_step
from ayni.train.loop import TrainingDiverged, fit, packed_loss, rows_loss, train_step
from ayni.train.losses import log_probs, ppo_policy_loss
from ayni.train.mesh import Mesh, split
from ayni.train.optimizer import make_optimizer

from .small import OPTIMIZER, SETTINGS, RandomRows, random_sequences, small_model, weights_equal

ONE = Mesh()


def train(model, state_dir, *, steps=12, save_every=5, loss_fn=rows_loss, batches=None, **options):
    batches = batches or RandomRows()
    settings = options.pop("settings", OPTIMIZER)
    return fit(
        model, batches, loss_fn, settings, steps=steps, mesh=ONE, state_dir=state_dir, save_every=save_every, seed=3, **options
    )  # fmt: skip


class Killed(Exception):
    pass


def kill_after(step):
    def log(row):
        if row["step"] == step:
            raise Killed

    return log


def drawing_loss(model, tokens):
    """Like dropout: the loss draws from torch's global generator, so its state matters."""
    loss, count, stats = rows_loss(model, tokens)
    return loss * (0.5 + torch.rand(())), count, {**stats, "tokens": 2 * count}


def test_fit_lowers_the_loss_and_logs_what_it_promises(tmp_path):
    rows, every_step_the_same = [], Shuffled(list(torch.randint(9, (8, 12))), 8, seed=0, epochs=30)

    def loss_fn(model, samples):
        return rows_loss(model, torch.stack(samples))

    history = train(small_model(), tmp_path, steps=30, batches=every_step_the_same, loss_fn=loss_fn, log=rows.append)
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    assert history[0]["loss"] == pytest.approx(math.log(SETTINGS.vocab_size), rel=0.05)
    assert set(rows[0]) == {"step", "loss", "lr", "grad_norm", "tokens", "tokens_per_second"}
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert [row["tokens"] for row in rows] == [8 * 11 * n for n in range(1, 31)]
    assert json.loads(json.dumps(history)) == history


def per_token_loss(model, sequences, masks):
    """The oracle: every sequence alone, every token by itself, one mean over all of them."""
    terms = []
    for ids, mask in zip(sequences, masks):
        logits = model(torch.tensor([ids]))[0]
        terms += [-logits[t - 1].log_softmax(-1)[ids[t]] for t in range(1, len(ids)) if mask[t]]
    return torch.stack(terms).mean(), len(terms)


@pytest.mark.parametrize("micro_rows", [None, 1, 2, 3])
def test_trap_08_losses_divide_by_the_token_count_of_the_whole_minibatch(micro_rows):
    sequences = random_sequences(15, 12, seed=4)  # very different numbers of loss tokens per row
    masks = [[False] * min(3, len(ids) - 1) + [True] * (len(ids) - min(3, len(ids) - 1)) for ids in sequences]
    packed = pack(sequences, 14, 0, loss_masks=masks)
    assert len(packed) >= 5
    model, oracle = small_model(), small_model()
    expected, count = per_token_loss(oracle, sequences, masks)
    expected.backward()
    norm = torch.cat([p.grad.flatten() for p in oracle.parameters()]).norm()
    optimizer = make_optimizer(model, OPTIMIZER)
    gradients = {}
    optimizer.step = lambda: gradients.update({name: p.grad.clone() for name, p in model.named_parameters()})
    stats = train_step(model, optimizer, split(packed, ONE, micro_rows), packed_loss, clip=0.0, mesh=ONE)
    assert stats["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert stats["count"] == count
    assert stats["tokens"] == sum(map(len, sequences))
    assert stats["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    for name, parameter in oracle.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, atol=1e-5), name


def test_gradients_are_clipped_to_the_global_norm_and_reported_before():
    model = small_model()
    optimizer = make_optimizer(model, OPTIMIZER)
    norms = []
    optimizer.step = lambda: norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item())
    stats = train_step(model, optimizer, [RandomRows().at(0)], rows_loss, clip=0.01, mesh=ONE)
    assert stats["grad_norm"] > 0.01
    assert norms[0] == pytest.approx(0.01, rel=1e-3)
    assert all(p.grad is None for p in model.parameters())


def answers_loss(old_logp_N, temperature):
    def loss_fn(model, batch):
        packed, old_N = batch
        logits_NV = model(packed.tokens_RT, packed.positions_RT, packed.mask_RTT, keep_N=packed.predict_N)
        logp_N = log_probs(logits_NV, packed.targets_N, temperature)
        mask_N = torch.ones_like(logp_N, dtype=torch.bool)
        loss, stats = ppo_policy_loss(logp_N, old_N, torch.ones_like(logp_N), mask_N)
        return loss, len(old_N), {**stats, "furthest": (logp_N - old_N).exp().sub(1).abs().max() * len(old_N)}

    return loss_fn


def old_log_probs(model, packed, temperature):
    with torch.no_grad():
        logits_NV = model(packed.tokens_RT, packed.positions_RT, packed.mask_RTT, keep_N=packed.predict_N)
        return log_probs(logits_NV, packed.targets_N, temperature)


def test_trap_02_with_learning_rate_zero_every_ratio_is_one_on_every_minibatch():
    model, temperature = small_model(), 1.2
    sequences = random_sequences(32, 10, seed=6)
    rollout = pack(sequences, 24, 0)  # the whole rollout batch, packed otherwise than the minibatches
    index_BL, mask_BL = rollout.grid()
    old_BL = old_log_probs(model, rollout, temperature)[index_BL]
    optimizer = make_optimizer(model, OPTIMIZER.model_copy(update={"lr": 0.0}))
    for first in range(0, 32, 8):
        packed = pack(sequences[first : first + 8], 24, 0)
        grid, mask = packed.grid()
        old_N = torch.empty(len(packed.predict_N))
        L = grid.shape[1]
        old_N[grid[mask]] = old_BL[first : first + 8, :L][mask]
        assert torch.equal(mask, mask_BL[first : first + 8, :L])
        stats = train_step(model, optimizer, [(packed, old_N)], answers_loss(old_N, temperature), 1.0, ONE)
        assert stats["ratio"] == pytest.approx(1, abs=1e-5)
        assert stats["furthest"] < 1e-5
        assert stats["clip_share"] == 0


def test_trap_09_512_answers_in_minibatches_of_64_are_8_optimizer_steps():
    model = small_model()
    optimizer = make_optimizer(model, OPTIMIZER)
    rollouts = Shuffled(list(RandomRows(512, 5).at(0)), 64, seed=0)
    for step in range(len(rollouts)):
        minibatch = torch.stack(rollouts.at(step))
        assert minibatch.shape == (64, 5)
        train_step(model, optimizer, split(minibatch, ONE, micro_rows=24), rows_loss, 1.0, ONE)  # 3 micro-batches
    assert optimizer.state[model.tok_embeddings.weight]["step"].item() == 8


@pytest.mark.parametrize("stop_at", [1, 5, 7, 10])
def test_trap_16_a_run_killed_and_resumed_equals_the_run_that_was_not_bit_for_bit(tmp_path, stop_at):
    straight, resumed = small_model(), small_model()
    history = train(straight, tmp_path / "a", loss_fn=drawing_loss, micro_rows=3)
    with pytest.raises(Killed):
        train(resumed, tmp_path / "b", loss_fn=drawing_loss, micro_rows=3, log=kill_after(stop_at))
    rows = []
    fresh = small_model(seed=0 if stop_at <= 5 else 99)  # from step 5 on the weights come from the checkpoint
    resumed_history = train(fresh, tmp_path / "b", loss_fn=drawing_loss, micro_rows=3, log=rows.append)
    assert rows[0]["step"] == 5 * ((stop_at - 1) // 5) + 1  # killed in the log of a step: before its checkpoint
    assert resumed_history == history
    assert weights_equal(straight, fresh)
    assert train(fresh, tmp_path / "b", loss_fn=drawing_loss, micro_rows=3) == history  # finished: nothing left to do
    assert weights_equal(straight, fresh)


def test_trap_16_packed_epochs_resume_bit_for_bit_too(tmp_path):
    sequences = random_sequences(30, 12, seed=8)
    samples = [(ids, [False] + [True] * (len(ids) - 1)) for ids in sequences]

    def run(model, where, **options):
        batches = PackedRows(samples, 16, 4, seed=0, pad_id=0, epochs=2)
        steps = len(batches)
        return train(model, where, batches=batches, steps=steps, save_every=3, loss_fn=packed_loss, **options)

    straight, resumed = small_model(), small_model()
    history = run(straight, tmp_path / "a")
    with pytest.raises(Killed):
        run(resumed, tmp_path / "b", log=kill_after(8))
    assert run(resumed, tmp_path / "b") == history
    assert weights_equal(straight, resumed)


def test_trap_17_the_checkpoint_stands_before_the_evaluation_and_resuming_repeats_it(tmp_path):
    def crashing(step):
        assert resumable_step(tmp_path) == step
        raise Killed

    with pytest.raises(Killed):
        train(small_model(), tmp_path, evaluate=crashing, eval_every=5)
    asked = []

    def measure(step):
        asked.append(step)
        return {"perplexity": step * 1.5}

    rows = []
    history = train(small_model(), tmp_path, evaluate=measure, eval_every=5, log=rows.append)
    assert asked == [5, 10, 12]
    assert [row for row in rows if "perplexity" in row] == [{"step": n, "perplexity": n * 1.5} for n in asked]
    assert [row["step"] for row in history] == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 10, 11, 12, 12]


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_the_run_at_the_last_good_checkpoint(tmp_path, poison):
    model, calls = small_model(), []

    def loss_fn(model, tokens):
        calls.append({name: p.detach().clone() for name, p in model.named_parameters()})
        loss, count, stats = rows_loss(model, tokens)
        if len(calls) == 8:
            weight = model.norm.weight
            # sqrt at 0: a finite value whose gradient is not.
            loss = loss * float("nan") if poison == "loss" else loss + (weight - weight.detach()).sum().sqrt()
        return loss, count, stats

    with pytest.raises(TrainingDiverged, match=r"step 8: loss .*step-00000005.*learning rate \(now 0\.0") as caught:
        train(model, tmp_path, loss_fn=loss_fn)
    assert isinstance(caught.value, ValueError)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000005"]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, calls[-1][name])


def test_divergence_before_any_checkpoint_says_so(tmp_path):
    def loss_fn(model, tokens):
        loss, count, stats = rows_loss(model, tokens)
        return loss * float("inf"), count, stats

    with pytest.raises(TrainingDiverged, match=r"step 1: .*no checkpoint was saved before it"):
        train(small_model(), tmp_path, loss_fn=loss_fn)


def test_trap_13_a_batch_without_loss_tokens_and_a_run_without_steps_are_refused(tmp_path):
    def loss_fn(model, tokens):
        loss, _, stats = rows_loss(model, tokens)
        return loss * 0, 0, stats

    with pytest.raises(ValueError, match="no loss token"):
        train(small_model(), tmp_path, loss_fn=loss_fn)
    with pytest.raises(ValueError, match="too small for one batch"):
        train(small_model(), tmp_path, steps=0)


def test_trap_19_same_seed_same_losses_to_the_bit(tmp_path):
    one = train(small_model(), tmp_path / "a")
    two = train(small_model(), tmp_path / "b", save_every=100)
    assert one == two


def test_memory_that_a_step_frees_is_kept_for_the_next():
    code = (
        "import resource, torch\n"
        "from ayni.train.allocator import keep_freed_memory\n"
        "assert keep_freed_memory() is {kept}\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(10): torch.ones(2**24)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "faults(); print(faults())\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    found = {}
    for kept, extra in ((True, {}), (False, {"MALLOC_ARENA_MAX": "4"})):  # the user's own settings are left alone
        command = [sys.executable, "-c", code.format(kept=kept)]
        done = subprocess.run(command, env=environment | extra, capture_output=True, text=True, check=True)
        found[kept] = int(done.stdout)
    assert found[True] * 10 < found[False]
