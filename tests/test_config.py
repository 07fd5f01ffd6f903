"""Recipes and presets."""

from __future__ import annotations

from pathlib import Path

import pytest

from ayni.config import PRESETS, ModelSettings, load_recipe
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
