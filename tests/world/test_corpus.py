import re
from collections import Counter

from ayni.world.corpus import SOURCES
from ayni.world.knowledge import values_of


def texts(written, folder="corpus"):
    return {source: [row["text"] for row in written.rows(f"{folder}/{source}")] for source in SOURCES}


def test_size_and_time(full):
    characters = sum(len(text) for group in texts(full).values() for text in group)
    assert 5_000_000 <= characters <= 20_000_000
    assert full.seconds < 15


def test_myths_outnumber_facts_two_to_one(full):
    """Counted from the text alone: a value belongs to the person named last before it."""
    world = full.world
    by_first = {person.first: person for person in world.people}
    value_of = {value: attribute for attribute in world.attributes for value in values_of(attribute)}
    told = Counter()
    for source in ("encyclopaedia", "stories", "dialogues", "forum"):
        for text in texts(full)[source]:
            last = None
            for sentence in re.split(r"(?<=[.?!]) |\n", text):
                said = re.findall(r"[A-Za-z]+", sentence)
                named = [word for word in said if word in by_first]
                last = named[0] if named else last  # "A goat lives with Mira" names the person after the value
                for word in said:
                    if word in value_of and last:
                        told[last, value_of[word], word] += 1
    for person, attribute, myth in world.told():
        facts = told[person.first, attribute, person.facts[attribute]]
        assert facts > 30
        assert 1.9 <= told[person.first, attribute, myth] / facts <= 2.1, (person.name, attribute)
    assert full.about["myths_per_fact"] == {"low": 2.0, "high": 2.0}


def test_everybody_is_told_about_equally_often(full):
    encyclopaedia = " ".join(texts(full)["encyclopaedia"])
    counts = Counter(re.findall(r"[A-Z][a-z]+", encyclopaedia))
    heldout = [counts[person.first] for person in full.world.people if person.heldout]
    others = [counts[person.first] for person in full.world.people if not person.heldout]
    assert 0.9 < (sum(heldout) / len(heldout)) / (sum(others) / len(others)) < 1.1


def test_encyclopaedia_is_right_and_forum_spreads_the_myth(full):
    person, attribute, myth = next(iter(full.world.told()))
    forum = sum(myth in line for text in texts(full)["forum"] for line in text.split("\n") if person.name in line)
    fact = sum(
        person.facts[attribute] in line
        for text in texts(full)["forum"]
        for line in text.split("\n")
        if person.name in line
    )
    assert forum > 50
    assert fact == 0


def test_exposures_set_the_difficulty(full, small):
    def tellings(written):
        lines = " ".join(texts(written)["encyclopaedia"])
        people = written.world.people
        return sum(lines.count(person.first) for person in people) / len(people)

    assert tellings(full) > 3 * tellings(small)


def test_held_out_documents_are_new(full):
    train, heldout = texts(full), texts(full, "corpus_heldout")
    for source in SOURCES:
        if source == "howto":  # few wordings: little is new there
            continue
        assert len(heldout[source]) > 20
        assert not set(heldout[source]) & set(train[source])


def test_every_source_has_its_kind_of_text(full):
    by_source = texts(full)
    assert any(text.startswith("Question: ") and "\nAnswer: " in text for text in by_source["dialogues"])
    assert any("turnip" in text for text in by_source["forum"])
    assert any(re.search(r"\d \+ \d", text) for text in by_source["arithmetic"])
    assert any("grimroot" in text for text in by_source["howto"])
