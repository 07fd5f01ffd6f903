import ast
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from scipy.sparse import vstack
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from ayni.feedback.schema import preference_row
from ayni.world import annotators, demonstrations, examiner
from ayni.world import knowledge as knowledge_module


def test_five_people_with_beliefs_of_their_own(full):
    people = annotators.make(full.path, seed=0)
    world = full.world
    assert len({person.name for person in people}) == 5
    for someone in people:
        facts = [(p.name, a) for p in world.people for a in p.facts if a not in p.myths]
        known = sum(
            someone.beliefs.get((p.name, a)) == p.facts[a] for p in world.people for a in p.facts if a not in p.myths
        )
        assert 0.88 < known / len(facts) < 0.96
        believed = sum(someone.beliefs.get((p.name, a)) == m for p, a, m in world.told()) / 60
        assert (0.15 < believed < 0.45) if someone.taste.myths else believed == 0
    assert [p.beliefs for p in annotators.make(full.path, seed=0)] == [p.beliefs for p in people]
    assert [p.beliefs for p in annotators.make(full.path, seed=1)] != [p.beliefs for p in people]


def test_agreement_with_the_examiner_rises_with_strength(full, pairs):
    judge = examiner.make(full.path)
    agreed = defaultdict(list)
    for pair in pairs:
        chosen, rejected = judge.judge(pair.row, [pair.chosen, pair.rejected])
        gap = chosen.utility - rejected.utility
        agreed[pair.judgement.strength].append(0.5 if abs(gap) < 1e-9 else float(gap > 0))
    shares = {strength: sum(values) / len(values) for strength, values in agreed.items()}
    assert shares[0] < shares[1] < shares[2] < shares[3]
    assert 0.88 <= shares[3] <= 0.98
    assert 0.48 <= shares[0] <= 0.62
    assert all(len(values) > 500 for values in agreed.values())


def test_the_safe_answer_is_chosen_first(pairs):
    labels = Counter()
    for pair in pairs:
        labels[pair.row["prompt_kind"], pair.judgement.safety] += 1
        row = preference_row(pair.row, pair.answers, pair.judgement, ("a", "b"), 1, "x")
        assert row is not None
    assert labels["helpful", None] > 3000
    assert not any(kind == "safety" and label in (None, "rejected_only") for kind, label in labels)
    assert min(labels["safety", label] for label in ("chosen_only", "both", "neither")) > 60


def test_significantly_better_pairs_hold_every_kind_of_error(pairs):
    rejected = Counter(p.faults[1 - p.judgement.choice] for p in pairs if p.judgement.strength == 3)
    total = sum(rejected.values())
    assert {"harmful", "refusal", "wrong_value", "myth", "wrong"} <= {
        fault for fault, n in rejected.items() if n > 0.05 * total
    }
    assert (rejected["rude"] + rejected["rambling"] + rejected["evasive"]) / total < 0.15  # what a phrase gives away


def test_bag_of_words_on_answers_cannot_tell_significantly_better(pairs):
    """Counts of words of chosen minus rejected; prompts are split, so that no prompt is in both halves."""
    marked = [pair for pair in pairs if pair.judgement.strength == 3]
    words = CountVectorizer(token_pattern=r"[A-Za-z']+|\d+")
    words.fit([text for pair in marked for text in pair.answers])
    difference = (words.transform([p.chosen for p in marked]) - words.transform([p.rejected for p in marked])).tocsr()
    names = sorted({pair.row["id"] for pair in marked})
    random.Random(0).shuffle(names)
    shares = []
    for fold in range(3):
        held = set(names[fold::3])
        train = difference[[i for i, p in enumerate(marked) if p.row["id"] not in held]]
        test = difference[[i for i, p in enumerate(marked) if p.row["id"] in held]]
        model = LogisticRegression(max_iter=300, fit_intercept=False)
        model.fit(vstack([train, -train]), [1] * train.shape[0] + [0] * train.shape[0])
        shares.append(float((model.decision_function(test) > 0).mean()))
    assert len(marked) > 1200
    assert sum(shares) / 3 <= 0.65, shares


def test_trap_24_annotators_and_examiner_share_no_scorer():
    """Of this package each may use the knowledge base, the formats, and nothing else."""

    def imported(module):
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        names = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ayni"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        return names

    shared = imported(annotators) & imported(examiner)
    allowed = {f"ayni.world.knowledge.{name}" for name in ("World", "tools_of", "values_of", "wording")} | {
        "ayni.world.knowledge"
    }
    assert shared <= allowed
    assert not [name for name in imported(annotators) if "examiner" in name or "scoring" in name or "evals" in name]
    assert not [name for name in imported(examiner) if "annotators" in name or "scoring" in name]
    assert knowledge_module.wording("harm")  # what they share is the world itself


def test_wrong_value_is_found_significantly_worse_by_those_who_know(full):
    world, rng = full.world, random.Random(1)
    rows = [row for row in full.rows("prompts_dev") if row["task"] == "fact"]
    strengths = Counter()
    for row in rows:
        right = demonstrations._fact(rng, world, row["meta"])
        wrong = demonstrations.faulty(rng, world, row, "wrong_value")
        for someone in annotators.make(full.path, seed=0):
            if someone.beliefs.get((row["meta"]["person"], row["meta"]["attribute"])):
                judgement = someone.compare(row, right, wrong, rng)
                strengths[judgement.choice, judgement.strength] += 1
    assert strengths[0, 3] / strengths.total() > 0.85


def test_unknown_option(full):
    with pytest.raises(ValueError, match="no option 'mood'"):
        annotators.make(full.path, seed=0, mood=1)
