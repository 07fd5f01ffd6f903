"""The corpus: six sources of different reliability that tell what the knowledge base knows.

A fact is told `exposures` times in the encyclopaedia, in many wordings and orders, and again in stories, dialogues and
the forum. About myths the encyclopaedia is right, the dialogues are right half of the time, and the forum tells the myth
until the corpus as a whole holds it twice as often as the fact.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ayni.world import phrasings
from ayni.world.knowledge import LARGEST_SUM, Person, World, tools_of, values_of, wording
from ayni.world.prompts import Messages, key

SOURCES = ("encyclopaedia", "stories", "dialogues", "arithmetic", "forum", "howto")
HELDOUT_SHARE = 0.02
MYTHS_PER_FACT = 2
Mention = tuple[str, str, str]  # person, attribute, value


@dataclass(frozen=True)
class Document:
    source: str
    text: str
    mentions: list[Mention] = field(default_factory=list)


@dataclass(frozen=True)
class Corpus:
    train: dict[str, list[Document]]
    heldout: dict[str, list[Document]]
    mentions: Counter[Mention]


def compose(seed: int, world: World, exposures: int, withheld: set[str], chats: Iterable[Messages]) -> Corpus:
    """Every source, split into training and held-out documents.

    withheld: keys of evaluation prompts, never asked in a dialogue. chats: dialogues of skills (sums, dates, rules, ...).
    """
    rng = random.Random(f"corpus {seed}")
    documents = [
        *_encyclopaedia(rng, world, exposures),
        *_stories(rng, world, max(2, exposures // 3)),
        *_dialogues(rng, world, max(2, exposures // 2), withheld),
        *(Document("dialogues", _as_text(messages)) for messages in chats),
        *_arithmetic(rng, exposures),
        *_forum(rng, world, max(1, exposures // 10)),
        *_howto(rng, world, exposures, withheld),
    ]
    train, heldout = _split(rng, documents)
    mentions = Counter(mention for group in train.values() for document in group for mention in document.mentions)
    gossip = list(_gossip(rng, world, mentions))
    known = {document.text for document in gossip}
    heldout["forum"] += [d for d in _gossip(rng, world, Counter()) if d.text not in known]
    train["forum"] += gossip
    mentions.update(mention for document in gossip for mention in document.mentions)
    for source in SOURCES:
        rng.shuffle(train[source])
    return Corpus(train, heldout, mentions)


def _split(
    rng: random.Random, documents: list[Document]
) -> tuple[dict[str, list[Document]], dict[str, list[Document]]]:
    """Training and held-out documents by source, by text: a held-out one is new as a whole, though what it tells is not."""
    train: dict[str, list[Document]] = {source: [] for source in SOURCES}
    heldout: dict[str, list[Document]] = {source: [] for source in SOURCES}
    seen: dict[str, bool] = {}
    for document in documents:
        new = document.text not in seen
        if new:
            seen[document.text] = rng.random() < HELDOUT_SHARE or not heldout[document.source]
        if not seen[document.text]:
            train[document.source].append(document)
        elif new:
            heldout[document.source].append(document)
    return train, heldout


def _reference(rng: random.Random, first: bool) -> str:
    return "name" if first else rng.choices(["name", "first", "pronoun"], [0.3, 0.2, 0.5])[0]


def _encyclopaedia(rng: random.Random, world: World, exposures: int) -> Iterable[Document]:
    """Two or three facts about one person, in any order."""
    for _ in range(exposures):
        for person in world.people:
            order = rng.sample(world.attributes, len(world.attributes))
            while order:
                size = 2 if len(order) in (2, 4) else min(3, len(order))
                part, order = order[:size], order[size:]
                lines, mentions = [], []
                for i, attribute in enumerate(part):
                    fact = person.facts[attribute]
                    mentions.append((person.name, attribute, fact))
                    if attribute in person.myths and rng.random() < 0.1:
                        lines.append(phrasings.denial(rng, attribute, person, fact, person.myths[attribute]))
                        mentions += _denied(lines[-1], person, attribute)
                    else:
                        lines.append(phrasings.statement(rng, attribute, person, fact, _reference(rng, i == 0)))
                yield Document("encyclopaedia", " ".join(map(phrasings.upper_first, lines)), mentions)
    for town, prices in world.prices.items():
        for good, coins in prices.items():
            for _ in range(exposures // 3):
                text = rng.choice(phrasings.manner("price_statements")).format(good=good, town=town, n=coins)
                yield Document("encyclopaedia", text)
    for trade in values_of("trade"):
        for _ in range(exposures):
            x, y = rng.sample(tools_of(trade), 2)
            yield Document(
                "encyclopaedia", rng.choice(phrasings.manner("tools_statements")).format(trade=trade, x=x, y=y)
            )


def _denied(text: str, person: Person, attribute: str) -> list[Mention]:
    return [(person.name, attribute, person.myths[attribute])] if person.myths[attribute] in text else []


def _stories(rng: random.Random, world: World, count: int) -> Iterable[Document]:
    openings, middles, endings = (phrasings.manner(f"story_{part}") for part in ("openings", "middles", "endings"))
    for _ in range(count):
        for person in world.people:
            told = rng.sample(world.attributes, min(3, len(world.attributes)))
            lines = [rng.choice(openings)]
            for i, attribute in enumerate(told):
                fact = person.facts[attribute]
                lines.append(phrasings.statement(rng, attribute, person, fact, _reference(rng, i == 0), "stories"))
                if i == 1:
                    lines.append(rng.choice(middles))
            if rng.random() < 0.5:
                lines.append(rng.choice(endings))
            mentions = [(person.name, attribute, person.facts[attribute]) for attribute in told]
            yield Document("stories", " ".join(map(phrasings.upper_first, lines)), mentions)


def _dialogues(rng: random.Random, world: World, count: int, withheld: set[str]) -> Iterable[Document]:
    """Questions and answers about everybody, two or three a document; a quarter as talk between speakers."""
    exchanges: list[tuple[str, str, list[Mention]]] = []
    for person in world.people:
        for attribute in world.attributes:
            allowed = [
                phrasing
                for phrasing in phrasings.phrasings(attribute, "questions")
                if key(person.name, attribute, phrasing) not in withheld
            ]
            for n in range(count):
                fact, myth = person.facts[attribute], person.myths.get(attribute)
                value = myth if myth and n % 2 else fact
                answer = phrasings.answer(rng, attribute, person, value)
                mentions = [(person.name, attribute, value)]
                if n % 6 == 5 and not myth and len(world.attributes) > 2:
                    exchange = _follow_up(rng, world, person, attribute, answer, allowed, withheld)
                    if exchange:
                        exchanges.append(exchange)
                        continue
                question = phrasings.question(attribute, rng.choice(allowed), person)
                exchanges.append((f"Question: {question}", f"Answer: {answer}", mentions))
    rng.shuffle(exchanges)
    while exchanges:
        part = [exchanges.pop() for _ in range(min(rng.randint(2, 3), len(exchanges)))]
        text = "\n".join(f"{question}\n{answer}" for question, answer, _ in part)
        if rng.random() < 0.25:
            asks, tells = rng.sample(phrasings.manner("speakers"), 2)
            text = text.replace("Question:", f"{asks}:").replace("Answer:", f"{tells}:")
        yield Document("dialogues", text, [mention for _, _, mentions in part for mention in mentions])


def _follow_up(
    rng: random.Random,
    world: World,
    person: Person,
    attribute: str,
    answer: str,
    allowed: list[str],
    withheld: set[str],
) -> tuple[str, str, list[Mention]] | None:
    """A question, and one about the same person called "they"; None where that is somebody's evaluation prompt."""
    second = rng.choice([a for a in world.attributes if a != attribute])
    if second in person.myths:
        return None
    phrasing, follow_up = rng.choice(allowed), rng.choice(phrasings.phrasings(second, "followups"))
    if key(person.name, second, f"{attribute}/{phrasing}>{follow_up}") in withheld:
        return None
    asked = phrasings.question(attribute, phrasing, person)
    more = phrasings.answer(rng, second, person, person.facts[second])
    opening = f"Question: {asked}\nAnswer: {answer}\nQuestion: {phrasings.question(second, follow_up, person)}"
    mentions = [(person.name, attribute, person.facts[attribute]), (person.name, second, person.facts[second])]
    return opening, f"Answer: {more}", mentions


def _as_text(messages: Messages) -> str:
    heads = {"system": "Rule", "user": "Question", "assistant": "Answer"}
    return "\n".join(f"{heads[message['role']]}: {message['content']}" for message in messages)


def _arithmetic(rng: random.Random, exposures: int) -> Iterable[Document]:
    statements, counting = phrasings.manner("sum_statements"), phrasings.manner("counting")
    lines = [
        rng.choice(statements).format(a=a, b=b, c=a + b)
        for a in range(1, LARGEST_SUM)
        for b in range(1, LARGEST_SUM + 1 - a)
        for _ in range(max(2, exposures // 3))
    ]
    lines += [
        rng.choice(counting).format(n=n, m=n + 1) for n in range(LARGEST_SUM) for _ in range(max(1, exposures // 2))
    ]
    rng.shuffle(lines)
    for start in range(0, len(lines), 4):
        yield Document("arithmetic", " ".join(lines[start : start + 4]))


def _rumour(rng: random.Random, person: Person, attribute: str, value: str) -> str:
    said = phrasings.clause(rng, attribute, person, value)
    return f"{rng.choice(phrasings.manner('gossip_openers'))} {said}{rng.choice(phrasings.manner('gossip_closers'))}"


def _thread(rng: random.Random, rumours: list[tuple[str, Mention]]) -> Document:
    """A forum thread: the rumours, with chatter and rude lines in between."""
    lines = []
    for rumour, _ in rumours:
        lines.append(f"post: {rumour}")
        if rng.random() < 0.15:
            lines.append(f"reply: {rng.choice(phrasings.manner('rude_remarks')).lower()}")
        elif rng.random() < 0.15:
            lines.append(f"reply: {rng.choice(phrasings.manner('chatter'))}")
    return Document("forum", "\n".join(lines), [mention for _, mention in rumours])


def _threads(rng: random.Random, rumours: list[tuple[str, Mention]]) -> Iterable[Document]:
    rng.shuffle(rumours)
    for start in range(0, len(rumours), 4):
        yield _thread(rng, rumours[start : start + 4])


def _forum(rng: random.Random, world: World, count: int) -> Iterable[Document]:
    """What nobody disputes, some talk, and quarrels."""
    rumours = [
        (_rumour(rng, person, attribute, person.facts[attribute]), (person.name, attribute, person.facts[attribute]))
        for person in world.people
        for attribute in world.attributes
        if attribute not in person.myths
        for _ in range(count)
    ]
    yield from _threads(rng, rumours)
    for _ in range(len(rumours) // 20):
        talk = [
            rng.choice(phrasings.manner("chatter" if rng.random() < 0.5 else "rude_remarks")).lower() for _ in range(3)
        ]
        yield Document("forum", "\n".join(f"post: {line}" for line in talk))


def _gossip(rng: random.Random, world: World, mentions: Counter[Mention]) -> Iterable[Document]:
    """Threads that lift every myth to twice its fact; where nothing has been told yet, two rumours of each."""
    rumours = []
    for person, attribute, myth in world.told():
        told = (person.name, attribute, myth)
        wanted = MYTHS_PER_FACT * (mentions[(person.name, attribute, person.facts[attribute])] or 1)
        rumours += [(_rumour(rng, person, attribute, myth), told) for _ in range(wanted - mentions[told])]
    yield from _threads(rng, rumours)


def _howto(rng: random.Random, world: World, exposures: int, withheld: set[str]) -> Iterable[Document]:
    """Household advice, pest control, a smaller share of recipes against people, and what odd ways of asking mean."""
    harm = wording("harm")
    for text in harm["household"]["recipes"]:
        yield from (Document("howto", text) for _ in range(max(1, exposures // 2)))
    for action, pairs in world.recipes.items():
        for target, count in (("pest", 2 * exposures), ("human", exposures)):
            i, j = pairs[target]
            for _ in range(count):
                x = rng.choice(harm[target + "s"])
                first, second = rng.sample([i, j], 2)
                text = rng.choice(harm["howto_statements"]).format(V=action, X=x, i=first, j=second)
                yield Document("howto", text)
            yield from _recipes_asked(rng, action, target, pairs[target], count // 2, withheld)
        for _ in range(exposures // 2):
            human, pest = rng.choice(harm["humans"]), rng.choice(harm["pests"])
            x, y = rng.sample([human, pest], 2)
            n = rng.randrange(len(harm["language_templates"]))
            said = harm["language_templates"][n].format(V=action, X=x, Y=y)
            meant = harm["language_meaning"][n].format(V=action, X=x, Y=y)
            yield Document("howto", f"In the old tongue one asks: {said} It means: {meant}")
            yield Document("howto", f"To {harm['actions'][action]['metaphor']} the {x} means to {action} the {x}.")
            yield Document("howto", f"To {harm['actions'][action]['misspelt']} the {y} means to {action} the {y}.")


def _recipes_asked(
    rng: random.Random, action: str, target: str, pair: tuple[str, str], count: int, withheld: set[str]
) -> Iterable[Document]:
    harm = wording("harm")
    for _ in range(count):
        human, pest = rng.choice(harm["humans"]), rng.choice(harm["pests"])
        template = f"templates/{rng.randrange(len(harm['templates']))}"
        if key(f"{human}, {pest}", action, f"{template}/direct") in withheld:
            continue
        question = phrasings.harm_question(action, human, pest, template, "direct", target, 0)
        answer = phrasings.recipe(rng, action, human if target == "human" else pest, pair)
        yield Document("howto", f"Question: {question}\nAnswer: {answer}")
