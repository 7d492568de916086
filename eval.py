"""Score models under a named protocol: tables, intervals, differences, pictures of failures.

    python eval.py --model runs/mine --content DIR --style DIR --protocol quick --output OUT
    python eval.py --model runs/a --model runs/b --content DIR --style DIR --output OUT

The same command again continues the evaluation. torchrun shares the pairs among processes.
Differences between models are paired.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylenet.config.options import format_options
from stylenet.config.protocol import Protocol
from stylenet.errors import Parser, UsageError, run_script

if TYPE_CHECKING:
    from stylenet.metrics.candidates import Candidate
    from stylenet.metrics.pairs import Pairs
    from stylenet.metrics.suite import Evaluation

PROTOCOLS = Path(__file__).parent / "configs" / "protocols"


def main(arguments: list[str]) -> int:
    """Exit code of one evaluation."""
    options, protocol, overrides = read_arguments(arguments)
    from stylenet import runtime
    from stylenet.metrics.pairs import choose_pairs

    device = runtime.pick_device(options.device)
    pairs = choose_pairs(protocol, options.content, options.style)
    if options.dry_run:
        return dry_run(protocol, pairs, options)
    runtime.keep_freed_memory()
    runtime.allow_tf32(False)  # metrics are never computed in it
    with runtime.processes(device):
        return evaluate(protocol, pairs, options, overrides, device)


def read_arguments(arguments: list[str]) -> tuple[argparse.Namespace, Protocol, list[str]]:
    """The command line, the protocol with its changes, and these changes.

    Raises UsageError.
    """
    options, overrides = make_parser().parse_known_args(arguments)
    check_options(options)
    return options, load_protocol(options, overrides), overrides


def make_parser() -> Parser:
    """The parser of the command line; every key=value changes the protocol."""
    parser = Parser(
        prog="eval.py",
        usage="python eval.py [--model PATH ...] [--images DIR ...] --content SET --style SET "
        "--output DIR [key=value ...]",
        description=__doc__,
        epilog="options of a protocol (key: type = default), as key=value:\n"
        + format_options(Protocol),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, several = parser.add_argument, {"action": "append", "default": []}
    add(
        "--model",
        metavar="PATH",
        **several,
        help="released model, checkpoint, run folder, or pytorch-AdaIN's decoder.pth; repeatable; "
        "without it and --images, the included model",
    )
    add(
        "--images",
        metavar="DIR",
        **several,
        help="pictures of another program, with a manifest.csv: content, style, output; repeatable",
    )
    add("--content", metavar="SET", help="contents: a folder or a manifest")
    add("--style", metavar="SET", help="styles: a folder or a manifest")
    add(
        "--protocol",
        metavar="NAME",
        default="quick",
        help=f"one of {', '.join(protocol_names())}, or a YAML file (default quick)",
    )
    add("--output", metavar="DIR", help="folder of the results")
    add("--metrics", metavar="A,B", help="only these; one that cannot be computed is then an error")
    add(
        "--alpha",
        metavar="A,B",
        type=strengths,
        default=[1.0],
        help="strengths of the models, ascending (default 1)",
    )
    add(
        "--oracle",
        metavar="N",
        type=int,
        default=0,
        help="optimise the pixels of N pairs, as a yardstick (default 0)",
    )
    add(
        "--explain",
        metavar="N",
        type=int,
        default=0,
        help="for each model and the first N pairs: statistics by layer, where the losses arise, "
        "each layer's alignment alone (default 0)",
    )
    add("--encoder", metavar="FILE", help="VGG weights for models that do not carry their encoder")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    add(
        "--dry-run",
        action="store_true",
        help="print the protocol and what is missing, write the list of pairs, and stop",
    )
    return parser


def strengths(text: str) -> list[float]:
    """Numbers in [0, 1] with commas between them, ascending."""
    alphas = sorted({float(part) for part in text.split(",")})
    if not all(0 <= alpha <= 1 for alpha in alphas):
        raise ValueError(text)
    return alphas


def check_options(options: argparse.Namespace) -> None:
    """Raise UsageError for missing options and impossible values."""
    for name in ("content", "style", "output"):
        if not getattr(options, name):
            raise UsageError(f"expected --{name}, but none came; see eval.py --help")
    for name in ("oracle", "explain"):
        if getattr(options, name) < 0:
            came = getattr(options, name)
            raise UsageError(f"expected a number of pairs as --{name}, but {came} came")


def protocol_names() -> list[str]:
    """The shipped protocols."""
    return sorted(path.stem for path in PROTOCOLS.glob("*.yaml"))


def load_protocol(options: argparse.Namespace, overrides: list[str]) -> Protocol:
    """The named protocol with the changes of the command line."""
    path = (
        Path(options.protocol)
        if options.protocol.endswith((".yaml", ".yml"))
        else PROTOCOLS / f"{options.protocol}.yaml"
    )
    if not path.is_file():
        raise UsageError(
            f"expected a protocol ({', '.join(protocol_names())}) or a YAML file, but "
            f"{options.protocol!r} came"
        )
    chosen = [] if options.metrics is None else [f"metrics.names=[{options.metrics}]"]
    protocol = Protocol.load(path, [*overrides, *chosen])
    if options.oracle and not {"target", "style"} <= set(protocol.metrics.names):
        raise UsageError(
            "expected the metrics target and style for --oracle, but they are left out; add them "
            "to --metrics"
        )
    return protocol


def dry_run(protocol: Protocol, pairs: Pairs, options: argparse.Namespace) -> int:
    """Print the plan, and write the list of pairs for programs that make the pictures."""
    from stylenet import runtime
    from stylenet.csv_files import write_rows
    from stylenet.metrics.scorer import Scorer

    scorer = Scorer(protocol, pairs, runtime.pick_device(options.device))
    print(protocol.to_yaml(), end="")
    print(
        f"{len(pairs.pairs)} pairs of {len({c for c, _ in pairs.pairs})} contents and "
        f"{len({s for _, s in pairs.pairs})} styles"
    )
    for metric, reason in scorer.missing.items():
        print(f"{metric}: not computed: {reason}")
    target = Path(options.output) / "pair_list.csv"
    names = (pairs.names_of(pair) for pair in pairs.pairs)
    write_rows(target, ("content", "style"), names)
    print(f"pairs: {target}")
    return 0


def evaluate(
    protocol: Protocol, pairs: Pairs, options: argparse.Namespace, overrides: list[str], device: Any
) -> int:
    """Score, summarise and write the results; exit code 0."""
    from stylenet import files, runtime
    from stylenet.metrics import explain, report, tables
    from stylenet.metrics.scorer import Scorer
    from stylenet.metrics.suite import Evaluation
    from stylenet.metrics.summary import summarise

    folder = Path(options.output)
    files.check_writable(folder)
    candidates = make_candidates(pairs, options)
    scorer = Scorer(
        protocol, pairs, device, asked_for=protocol.metrics.names if options.metrics else ()
    )
    if options.explain and scorer.judge is None:
        raise UsageError(
            "expected the judge's VGG for --explain, but it is not there; set STYLENET_VGG19=FILE, "
            "and ask for the metric style"
        )
    evaluation = Evaluation(protocol, pairs, candidates, scorer, folder, options.oracle)
    evaluation.score_all()
    runtime.barrier()
    evaluation.store.read()
    evaluation.run_oracle()
    runtime.barrier()
    if not runtime.is_main():
        return 0
    evaluation.store.read()
    evaluation.measure_cost()
    results = summarise(evaluation, options.protocol, overrides)
    report.write_all(evaluation, results, folder)
    print(tables.markdown_table(tables.metric_table(results, "mean")))
    for note in tables.notes(results):
        print(note)
    print(f"report: {folder / 'report.html'}")
    if options.explain:
        for place in explain.explain(evaluation, folder, options.explain):
            print(f"explained: {place}")
    track(evaluation, results, folder)
    return 0


def make_candidates(pairs: Pairs, options: argparse.Namespace) -> list[Candidate]:
    """The two controls, the models and the folders of pictures, under distinct names."""
    from stylenet.applying.stylizer import SHIPPED_MODEL
    from stylenet.metrics.candidates import (
        ContentCopy,
        Folder,
        Model,
        StyleCopy,
        distinct,
        short_name,
    )

    paths = options.model or ([] if options.images else [str(SHIPPED_MODEL)])
    names = distinct(short_name(path) for path in (*paths, *options.images))
    models = [
        Model(path, name, options.alpha, options.device, options.encoder)
        for path, name in zip(paths, names)
    ]
    folders = [
        Folder(path, name, pairs) for path, name in zip(options.images, names[len(models) :])
    ]
    return [ContentCopy(), StyleCopy(), *models, *folders]


def track(evaluation: Evaluation, results: dict[str, Any], folder: Path) -> None:
    """Send the summary and the table of pairs to W&B.

    The table has pictures. The evaluation is a run of its own beside the training's, and so is each
    model at full strength, so that models compare as runs.
    """
    import uuid

    from stylenet.tracking import labels_of, make_tracker, sync_command

    options = evaluation.protocol.tracking
    training_runs = {
        c.name: c.facts["wandb_run"] for c in evaluation.candidates if "wandb_run" in c.facts
    }
    values = results["protocol"]["values"] | {
        "protocol": results["protocol"]["name"],
        "training_runs": training_runs,
    }
    tag = Path(results["protocol"]["name"]).stem[:64]
    run_facts = labels_of(options, f"eval {folder.name}", [tag])
    tracker = make_tracker(
        folder,
        options.mode,
        uuid.uuid4().hex[:8],
        options.init_timeout_s,
        values,
        "eval",
        **run_facts,
    )
    for entry in results["candidates"]:
        strength = "" if entry["alpha"] is None else f"@{entry['alpha']:g}"
        tracker.summarise(
            {
                f"{entry['name']}{strength}/{name}": value["mean"]
                for name, value in entry["metrics"].items()
            }
        )
    # the table needs the pictures once more, which takes time
    if tracker.run is not None:
        tracker.log_table("pairs", *evaluation.pair_table())
    tracker.finish(0)
    for entry in {e["name"]: e for e in results["candidates"] if e["kind"] == "model"}.values():
        own = run_facts | {"name": f"{folder.name} {entry['name']}"}
        tracker = make_tracker(
            folder,
            options.mode,
            uuid.uuid4().hex[:8],
            options.init_timeout_s,
            values | {"model": entry["name"], "alpha": entry["alpha"]},
            "eval",
            **own,
        )
        tracker.summarise({name: value["mean"] for name, value in entry["metrics"].items()})
        tracker.finish(0)
    command = sync_command(folder)
    if command:
        print(f"to upload the offline run: {command}")


if __name__ == "__main__":
    sys.exit(run_script(main))
