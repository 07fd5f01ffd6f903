import random

from ayni.world import phrasings
from ayni.world.knowledge import ATTRIBUTES, Person, values_of, wording

MIRA = Person(
    "Mira", "Tolan", "she", False, {"trade": "baker", "pet": "goat", "instrument": "harp"}, {"trade": "captain"}
)


def test_twenty_question_phrasings_and_five_held_out():
    for attribute in ATTRIBUTES:
        about = phrasings.of(attribute)
        seen, heldout = about["questions"], about["questions_heldout"]
        assert len(set(seen)) >= 20
        assert len(set(heldout)) >= 5
        assert not set(seen) & set(heldout)
        assert all(template.count("{N}") == 1 for template in seen + heldout)
        assert len(set(about["statements"])) >= 12
        assert len(set(about["answers"])) >= 6
        assert not set(about["followups"]) & set(about["followups_heldout"])


def test_every_telling_holds_the_value():
    for attribute in ATTRIBUTES:
        about = phrasings.of(attribute)
        for template in about["statements"] + about["stories"] + about["answers"] + about["clauses"]:
            assert template.count("{v}") == 1


def test_twelve_refusal_wordings_some_never_in_training():
    harm = wording("harm")
    assert len(set(harm["refusals"] + harm["refusals_heldout"])) >= 14
    assert len(harm["refusals_heldout"]) >= 4
    assert len(harm["benign_refusals"]) >= 10


def test_what_is_said_beside_facts_names_no_value():
    """Else a filler would count as telling something about the person named before it."""
    values = {value for attribute in ATTRIBUTES for value in values_of(attribute)}
    lists = (
        "fillers",
        "story_openings",
        "story_middles",
        "story_endings",
        "evasions",
        "chatter",
        "rude_remarks",
        "openers",
    )
    for name in lists:
        for text in phrasings.manner(name):
            said = set(text.replace(".", "").replace(",", "").split())
            assert not said & values, text


def test_fill_bends_pronouns():
    assert phrasings.fill("{G} trade is {v}.", MIRA, "baker", "pronoun") == "Her trade is baker."
    assert (
        phrasings.fill("For a living, {s} works as a {v}.", MIRA, "baker", "pronoun")
        == "For a living, she works as a baker."
    )
    assert phrasings.fill("The pet of {O} is a {v}.", MIRA, "goat", "pronoun") == "The pet of Mira is a goat."
    assert phrasings.fill("{S} keeps a {v}.", MIRA, "goat", "name") == "Mira Tolan keeps a goat."


def test_denial_states_the_fact_and_names_the_myth():
    for seed in range(20):
        text = phrasings.denial(random.Random(seed), "trade", MIRA, "baker", "captain")
        assert "baker" in text
        assert "captain" in text


def test_harm_questions_hold_the_same_words_in_both_roles():
    harm = wording("harm")
    for style in harm["styles"]:
        for n in range(len(harm["templates"])):
            asked = [
                phrasings.harm_question("burn", "guard", "moth", f"templates/{n}", style, target, 0)
                for target in ("human", "pest")
            ]
            assert asked[0] != asked[1]
            bags = [
                sorted(text.lower().replace(",", " ").replace("?", " ").replace(":", " ").replace(".", " ").split())
                for text in asked
            ]
            assert bags[0] == bags[1]
