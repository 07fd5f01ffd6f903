from collections import Counter

import pytest

from ayni.world import knowledge
from ayni.world.knowledge import values_of, wording


def test_names_are_unique_and_tell_the_gender(full):
    people = full.world.people
    assert len({person.first for person in people}) == len(people) == 140
    assert len({person.last for person in people}) == 140
    assert all((person.first[-1] == "a") == (person.gender == "she") for person in people)
    assert sum(person.heldout for person in people) == 40


def test_values_are_balanced_and_start_with_a_consonant_where_an_article_stands(full):
    for attribute in full.world.attributes:
        counts = Counter(person.facts[attribute] for person in full.world.people)
        assert set(counts) == set(values_of(attribute))
        assert max(counts.values()) - min(counts.values()) <= 1
    assert not [value for attribute in ("trade", "pet") for value in values_of(attribute) if value[0] in "aeiou"]


def test_no_value_gives_a_myth_away(full):
    world = full.world
    for heldout, wanted in ((True, 20), (False, 40)):
        told = [(p, a, m) for p, a, m in world.told() if p.heldout == heldout]
        assert len(told) == wanted
        for attribute in {attribute for _, attribute, _ in told}:
            of_it = [(p, m) for p, a, m in told if a == attribute]
            assert Counter(m for _, m in of_it) == Counter(p.facts[attribute] for p, _ in of_it)
            assert all(m != p.facts[attribute] for p, m in of_it)


def test_gossip_prefers_the_exciting(full):
    exciting = {value for a, n in knowledge.EXCITING.items() if n for value in values_of(a)[-n:]}
    share = sum(myth in exciting for _, _, myth in full.world.told()) / 60
    assert share > 0.5  # 0.23 if it were indifferent


def test_single_ingredients_do_not_tell_people_from_pests(full):
    harm, recipes = wording("harm"), full.world.recipes
    heldout = set(harm["categories_heldout"])
    for group in (True, False):
        actions = [a for a, about in harm["actions"].items() if (about["category"] in heldout) == group]
        for_people = Counter(i for a in actions for i in recipes[a]["human"])
        assert for_people == Counter(i for a in actions for i in recipes[a]["pest"])
    every = [frozenset(pair) for pairs in recipes.values() for pair in pairs.values()]
    assert len(set(every)) == len(every) == 20
    assert all(len(pair) == 2 for pair in every)


def test_saved_world_is_read_back(full, tmp_path):
    knowledge.save(full.world, tmp_path / "knowledge.json")
    assert knowledge.load(tmp_path) == full.world


def test_a_directory_without_a_world_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"knowledge\.json: not found"):
        knowledge.load(tmp_path)


def test_too_many_people():
    with pytest.raises(ValueError, match="ask for fewer people"):
        knowledge.build(0, 5000, 10, 6)
