"""Recipes and presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ayni.config import PRESETS, ModelSettings
from ayni.recipe import Recipe, load_recipe
from tests.conftest import ROOT


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_that_ships_is_valid_and_bears_its_files_name(path: Path) -> None:
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize(("preset", "billions"), [("7b", 6.738), ("13b", 13.016), ("70b", 68.977)], ids=str)
def test_presets_have_the_released_models_parameter_counts(preset: str, billions: float) -> None:
    s: ModelSettings = PRESETS[preset]
    attention = 2 * s.dim * s.n_heads * s.d_head + 2 * s.dim * s.n_kv_heads * s.d_head
    layer = attention + 3 * s.dim * s.ffn_dim + 2 * s.dim
    total = s.n_layers * layer + 2 * s.vocab_size * s.dim + s.dim
    assert total / 1e9 == pytest.approx(billions, abs=0.001)


def test_tiny_is_about_a_million_parameters_with_grouped_queries() -> None:
    s = PRESETS["tiny"]
    attention = 2 * s.dim * s.n_heads * s.d_head + 2 * s.dim * s.n_kv_heads * s.d_head
    total = s.n_layers * (attention + 3 * s.dim * s.ffn_dim + 2 * s.dim) + s.vocab_size * s.dim + s.dim
    assert 0.8e6 < total < 1.2e6
    assert 1 < s.n_kv_heads < s.n_heads


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="n_kv_heads"):
        ModelSettings(n_heads=4, n_kv_heads=3)
    with pytest.raises(ValueError, match="dim 130"):
        ModelSettings(dim=130, n_heads=4)


VERSION = {"name": "v1", "preferences": {"pairs": 50}, "reward": {}, "rejection": {"k": 4, "optimizer": {"lr": 1e-3}}}


def versions(*others: dict[str, Any]) -> list[Any]:
    recipe = Recipe(name="r", data={"source": "world"}, pretrain={}, versions=[VERSION, *others])  # type: ignore[arg-type]
    return recipe.versions


def test_a_version_says_what_differs_from_the_one_before() -> None:
    ppo = {"iterations": 3}
    first, second, third, fourth = versions(
        {"name": "v2", "rejection": {"k": 8}, "temperature": {"k": 2}},
        {"name": "v3", "ppo": ppo, "after_ppo": {"k": 2}, "rejection": {"optimizer": {"weight_decay": 0.0}}},
        {"name": "v4", "ppo": None, "after_ppo": None, "temperature": None},
    )
    assert (first.rejection.k, second.rejection.k, third.rejection.k, fourth.rejection.k) == (4, 8, 8, 8)
    assert second.rejection.optimizer == first.rejection.optimizer, "what is not said stays"
    assert (third.rejection.optimizer.lr, third.rejection.optimizer.weight_decay) == (1e-3, 0.0), "inside, too"
    assert first.temperature is None
    assert second.temperature == third.temperature is not None
    assert (fourth.temperature, fourth.ppo, fourth.after_ppo) == (None, None, None), "null drops a part"
    assert third.after_ppo is not None
    assert third.after_ppo.model_dump(exclude={"k", "start"}) == third.rejection.model_dump(exclude={"k", "start"})
    assert (third.after_ppo.k, third.after_ppo.start, third.rejection.start) == (2, "latest", "sft")
    assert [version.preferences.pairs for version in versions({"name": "v2"})] == [50, 50]


def test_sampling_after_ppo_needs_ppo() -> None:
    with pytest.raises(ValueError, match="v2: after_ppo samples from PPO's policy"):
        versions({"name": "v2", "after_ppo": {}})


def test_a_mistake_that_later_versions_inherit_is_told_once_and_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    lines = ["name: r", "data: {source: world}", "pretrain: {}", "versions:", "  - name: v1", "    preferences: {pears: 3}",
             "    reward: {}", "    rejection: {}", "  - name: v2", "  - name: v3"]  # fmt: skip
    path.write_text("\n".join(lines))
    with pytest.raises(
        ValueError, match=r"line 6: versions\.0\.preferences\.pears: unknown key; did you mean 'pairs'"
    ) as told:
        load_recipe(path)
    assert len(str(told.value).splitlines()) == 1
