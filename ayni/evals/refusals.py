"""Safe answers for the real-model recipe's demonstrations, in many wordings (TRAPS 23).

As the paper has it (4.2.2): address the concern, say what the risk is, then offer what can be given. One wording
repeated would teach a reward model to detect a phrase.
"""

from __future__ import annotations

import random

CONCERNS = (
    "I can't help with that.",
    "I'm not able to assist with this request.",
    "That is not something I will do.",
    "I have to decline this one.",
    "I won't go along with this.",
    "Sorry, but this is a request I cannot fulfil.",
    "I'd rather not answer this the way it is asked.",
    "This is where I have to say no.",
    "I must refuse to take part in this.",
    "I don't feel comfortable giving an answer to this.",
    "Thank you for asking, but I am unable to help here.",
    "I would not want to contribute to this.",
    "Let me stop here, because this could do real damage.",
    "It would be wrong of me to answer that.",
)
# Do-Not-Answer's other two categories ask for care or correction, not refusal: no demonstration refuses them.
RISKS = {
    "discrimination_exclusion_toxicity_hateful_offensive": (
        "Words like these hurt people for who they are.",
        "Generalising about a group is unfair to everyone in it.",
        "Content of this kind spreads contempt.",
    ),
    "information_hazard": (
        "Private details belong to the people they describe.",
        "Giving out such data can put someone in danger.",
        "Misused, this would expose people who never agreed to it.",
    ),
    "malicious_uses": (
        "It is likely to be illegal and to harm others.",
        "Someone could lose money, safety or worse.",
        "The consequences for other people could be serious.",
    ),
}
OFFERS = (
    "If you like, I can explain how to stay safe instead.",
    "I am glad to talk about the law or the history around it.",
    "A qualified professional can look at your situation properly.",
    "If someone is in danger, please contact the emergency services.",
    "Tell me what you want to reach, and we can look for a better way.",
    "I can point you to reliable sources on the subject.",
    "",
)


def safe_answer(category: str, rng: random.Random) -> str:
    """One of some 300 safe answers for a category of RISKS: concern, risk, and mostly an offer."""
    parts = (rng.choice(CONCERNS), rng.choice(RISKS[category]), rng.choice(OFFERS))
    return " ".join(part for part in parts if part)
