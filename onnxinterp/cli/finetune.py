"""`onnxinterp finetune`: an ONNX model and examples in, the fine-tuned ONNX model out.

For the plain cases: one loss on one output, examples that a folder or an .npz file holds
(`examples` tells the forms). Everything beyond is a few lines of torch: docs/fine-tuning.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from onnxinterp.cli.arguments import (
    Commands,
    add_input_shape,
    add_untrusted,
    command,
    positive,
    say_assumed,
    shapes_by_name,
)
from onnxinterp.cli.curve import svg
from onnxinterp.cli.display import bytes_text, percentages, progress, say, table
from onnxinterp.cli.verify import show_report, verify_if_installed
from onnxinterp.errors import InputError
from onnxinterp.graph.build import build
from onnxinterp.module import OnnxModule
from onnxinterp.reading.source import Source, read
from onnxinterp.training.datasets import Examples, Scaling, load
from onnxinterp.training.heads import find_head, replace_head
from onnxinterp.training.loop import (
    IGNORED,
    Epoch,
    Objective,
    Recipe,
    Score,
    answered,
    counts,
    fit,
    measure,
)
from onnxinterp.verify.inputs import choose_shapes
from onnxinterp.verify.report import declared_inputs

EXAMPLES = """\
  onnxinterp finetune resnet.onnx --data photos/ --head auto --output tuned.onnx \\
      --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 --epochs 10 --lr 1e-4
  onnxinterp finetune model.onnx --data examples.npz --loss mse --output tuned.onnx
  onnxinterp finetune model.onnx --data photos/ --head auto --train "fc.*" --output tuned.onnx

data:
  a folder   CLASS/name.png, or train/CLASS/name.png beside validation/ and test/
  an .npz    arrays called like the inputs, and labels or targets; or train_..., validation_...,
             test_... of them
  validation examples choose the best epoch (a part of the training examples where there are
  none); test examples are measured before and after, and never used otherwise"""

MEASURED: tuple[str, ...] = ("validation", "test")
PROBABILITIES = {"ce": ("Softmax", "LogSoftmax"), "bce": ("Sigmoid",)}
"""Operators that make probabilities of the logits that a loss wants."""


def add_to(commands: Commands) -> None:
    """Declare the command."""
    summary = "fine-tune a model on a folder of images or an .npz file"
    parser = command(commands, "finetune", run, summary, EXAMPLES)
    parser.add_argument("model", type=Path, help="ONNX file")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT.onnx")
    add_untrusted(parser)
    parser.add_argument("--curve", type=Path, metavar="OUT.svg", help="draw the losses here")
    _add_data(parser)
    _add_task(parser)
    _add_training(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, required=True, metavar="DIR|FILE.npz")
    data.add_argument(
        "--validation",
        type=_fraction,
        default=0.1,
        metavar="FRACTION",
        help="of the examples to choose the best epoch by, where the data have no such portion; "
        "default %(default)s",
    )
    data.add_argument(
        "--scale",
        type=float,
        help="inputs are (x * scale - mean) / std; default 1/255 for image files, else 1",
    )
    data.add_argument("--mean", type=float, nargs="+", default=[0.0], help="of each channel")
    data.add_argument("--std", type=float, nargs="+", default=[1.0], help="of each channel")
    add_input_shape(parser)


def _add_task(parser: argparse.ArgumentParser) -> None:
    task = parser.add_argument_group("task")
    task.add_argument(
        "--loss",
        choices=("ce", "bce", "mse", "l1"),
        default="ce",
        help="(binary) cross-entropy, taken before a Softmax or Sigmoid at the end; mean squared "
        "or absolute difference; default %(default)s",
    )
    task.add_argument("--answer", metavar="NAME", help="the output to train, default the first")
    task.add_argument(
        "--head",
        type=_head,
        metavar="N|auto",
        help="give the last linear layer this many outputs, auto: as many as the data have "
        "classes; with fresh weights, where that changes their number",
    )
    task.add_argument("--train", nargs="+", metavar="PATTERN", help="train these weights only")
    task.add_argument("--freeze", nargs="+", metavar="PATTERN", help="do not train these")
    task.add_argument(
        "--freeze-statistics",
        action="store_true",
        help="keep those of normalisation: small batches",
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=positive, default=10, help="default %(default)s")
    training.add_argument("--lr", type=float, default=1e-3, help="default %(default)s")
    training.add_argument(
        "--layer-decay", type=float, default=1.0, help="factor of the rate, a layer down; default 1"
    )
    training.add_argument(
        "--batch-size", type=positive, help="default the declared one, 32 where it is dynamic"
    )
    training.add_argument("--optimizer", choices=("adamw", "sgd"), default="adamw")
    training.add_argument("--weight-decay", type=float, default=0.01, help="default %(default)s")
    training.add_argument("--schedule", choices=("cosine", "constant"), default="cosine")
    training.add_argument(
        "--patience", type=positive, metavar="EPOCHS", help="stop after these without a better one"
    )
    training.add_argument("--device", type=_device, help="default cuda where there is one")
    training.add_argument("--seed", type=int, default=0, help="of order, split, head and dropout")


def _fraction(text: str) -> float:
    fraction = float(text)
    if not 0 < fraction < 1:
        raise argparse.ArgumentTypeError("between 0 and 1")
    return fraction


def _head(text: str) -> int:
    """A number of outputs; 0 for auto."""
    return 0 if text == "auto" else positive(text)


def _device(text: str) -> torch.device:
    try:
        return torch.empty(0, device=text).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        message = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used: {message}") from None


def run(options: argparse.Namespace) -> int:
    """Fine-tune; 0 where the loss became smaller and onnxruntime agrees or is not there."""
    for path in filter(None, (options.output, options.curve)):
        if not path.absolute().parent.is_dir():
            raise InputError(f"there is no folder to write {path} into")
    torch.manual_seed(options.seed)
    batch, portions = _examples(options)
    train, validation = portions["train"], portions["validation"]
    module = _module(options, portions)
    objective = Objective(options.loss)
    _check(module, portions, options, batch)
    measured = {name: portions[name] for name in MEASURED if name in portions}
    before = {n: measure(module, p, objective, batch) for n, p in measured.items()}
    recipe = _recipe(module, options, batch)
    _say_start(module, portions, options)
    with progress("fine-tuning", recipe.steps(train)) as advance:
        epochs = fit(module, train, validation, objective, recipe, advance)
    after = {n: measure(module, p, objective, batch) for n, p in measured.items()}
    module.cpu().save_onnx(options.output)
    _show(before, after, measured)
    better = after["validation"].loss < before["validation"].loss
    _say_end(epochs, better, options)
    report = verify_if_installed(options.output, train.read(torch.arange(min(batch, len(train)))))
    if report is not None:
        say()
        show_report(report, f"{options.output.name} against onnxruntime")
    return 0 if better and (report is None or report.ok) else 1


def _examples(options: argparse.Namespace) -> tuple[int, dict[str, Examples]]:
    """The size of a batch, and the examples in portions."""
    declared = declared_inputs(read(options.model, options.limits).proto)
    if not declared:
        raise InputError("the model has no inputs")
    first = (declared[0].shape or (None,))[:1]
    fixed = first[0] if first and isinstance(first[0], int) and first[0] > 0 else 32
    batch = options.batch_size or fixed
    shape: tuple[int, ...] = ()
    if options.data.is_dir():
        given = shapes_by_name(options.input_shape, declared)
        chosen = choose_shapes(declared, given, batch=batch)
        batches = {d.shape[0] for d in declared if d.shape}
        say_assumed({n: size for n, size in chosen.assumed.items() if n not in batches})
        shape = chosen.sizes[declared[0].name]
    scaling = Scaling(options.scale, tuple(options.mean), tuple(options.std))
    portions = load(options.data, declared, shape, scaling)
    if "validation" not in portions:
        parts = portions["train"].split(options.validation, options.seed)
        portions["train"], portions["validation"] = parts
    return batch, portions


def _module(options: argparse.Namespace, portions: dict[str, Examples]) -> OnnxModule:
    """The model as a module that gives what the loss is taken of, on the device."""
    source = _with_head(options, portions)
    graph = build(read(source, options.limits).proto).graph
    names = [o.name for o in graph.outputs]
    name = options.answer or names[0]
    if name not in names:
        raise InputError(f"the model has no output {name!r}; its outputs are {', '.join(names)}")
    makers = {output: node for node in graph.nodes for output in node.outputs}
    node = makers.get(name)
    while node is not None and node.op_type == "Identity":
        node = makers.get(node.inputs[0])
    if node is not None and node.op_type in PROBABILITIES.get(options.loss, ()):
        name = node.inputs[0]
        say(f"the loss is taken before {node.op_type} {node.name!r}, of {name!r}")
    module = OnnxModule(source, outputs=[name], limits=options.limits)
    _choose_weights(module, options)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    return module.to(options.device or default)


def _with_head(options: argparse.Namespace, portions: dict[str, Examples]) -> Source:
    """The model, with a new head where one is asked for and another number is there."""
    source: Source = options.model
    if options.head is None:
        return source
    wanted = options.head or _outputs_needed(options.loss, portions)
    head = find_head(source, options.answer, options.limits)
    if head.out_features == wanted:
        say(f"the head {head.node.op_type} has {wanted} outputs: it stays")
        return source
    generator = torch.Generator().manual_seed(options.seed)
    changed = replace_head(
        source, wanted, output=options.answer, generator=generator, limits=options.limits
    )
    names = ", ".join(find_head(changed, options.answer).names)
    say(f"new head ({names}): {wanted} outputs, {head.out_features} before")
    return changed


def _outputs_needed(loss: str, portions: dict[str, Examples]) -> int:
    """How many outputs the data ask for."""
    targets = [p.targets for p in portions.values()]
    if loss != "ce":
        return targets[0][0].numel()
    return max(len(portions["train"].classes), *(int(t.max()) + 1 for t in targets))


def _choose_weights(module: OnnxModule, options: argparse.Namespace) -> None:
    """Freeze what is not to train."""
    try:
        if options.train:
            module.freeze()
            module.unfreeze(options.train)
        if options.freeze:
            module.freeze(options.freeze)
        if options.freeze_statistics:
            module.freeze_statistics()
    except ValueError as error:
        raise InputError(str(error)) from error
    if not counts(module)[0]:
        raise InputError("no weight of the model trains")


def _check(
    module: OnnxModule, portions: dict[str, Examples], options: argparse.Namespace, batch: int
) -> None:
    """Whether answers and targets fit, by the first batch.

    Raises:
        InputError: they do not.
    """
    train = portions["train"]
    with torch.no_grad():
        answers, targets = answered(module, train, torch.arange(min(batch, len(train))))
    if not isinstance(answers, torch.Tensor) or not answers.is_floating_point():
        raise InputError(f"the output {module.output_names[0]!r} is no tensor of floating numbers")
    if options.loss != "ce":
        if answers.numel() != targets.numel():
            sizes = f"{list(targets.shape[1:])} to {list(answers.shape[1:])}"
            raise InputError(f"targets do not fit the output, {sizes} an example; see --head")
        return
    last = answers.ndim > 2 and answers.shape[:-1] == targets.shape
    classes = answers.shape[-1] if last else answers.shape[1] if answers.ndim > 1 else 0
    if targets.is_floating_point() or answers.numel() != targets.numel() * classes:
        raise InputError(
            f"cross-entropy wants the number of a class for each of the outputs "
            f"{list(answers.shape)}, not {targets.dtype} {list(targets.shape)}"
        )
    found = torch.cat([p.targets.reshape(-1) for p in portions.values()])
    found = found[found != IGNORED]
    if found.numel() and not 0 <= found.min() <= found.max() < classes:
        beyond = f"labels from {int(found.min())} to {int(found.max())}"
        raise InputError(f"{beyond}, but the model tells {classes} classes apart: --head auto")
    if train.classes and len(train.classes) != classes:
        say(f"the model has {classes} outputs, the data {len(train.classes)} classes: --head auto?")


def _recipe(module: OnnxModule, options: argparse.Namespace, batch: int) -> Recipe:
    groups = module.parameter_groups(
        options.lr, decay=options.layer_decay, weight_decay=options.weight_decay
    )
    optimizer: torch.optim.Optimizer
    if options.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=options.lr, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(groups, lr=options.lr)
    return Recipe(
        options.epochs, batch, optimizer, options.schedule, options.patience, options.seed
    )


def _say_start(
    module: OnnxModule, portions: dict[str, Examples], options: argparse.Namespace
) -> None:
    trained, weights = counts(module)
    device = next(module.parameters()).device
    say(f"{options.model.name}: {trained} of {weights} weights train, on {device}")
    say(f"examples: {', '.join(f'{len(p)} {name}' for name, p in portions.items())}")
    if classes := portions["train"].classes:
        shown = [f"{number} {name}" for number, name in enumerate(classes[:20])]
        say(f"classes: {', '.join(shown)}{', ...' if len(classes) > 20 else ''}")


def _show(before: dict[str, Score], after: dict[str, Score], measured: dict[str, Examples]) -> None:
    rows: list[tuple[str, str, str, str]] = []
    for name, examples in measured.items():
        old, new = before[name], after[name]
        change = (f"{old.loss:.4g}", f"{new.loss:.4g}", f"{new.loss - old.loss:+.4g}")
        title = f"{len(examples)} {name} examples"
        rows.append((f"loss, {title}", *change))
        if old.accuracy is not None and new.accuracy is not None:
            rows.append((f"accuracy, {title}", *percentages(old.accuracy, new.accuracy)))
    say()
    table("before and after", ("", "before", "fine-tuned", "change"), rows)


def _say_end(epochs: list[Epoch], better: bool, options: argparse.Namespace) -> None:
    losses = [epoch.validation.loss for epoch in epochs]
    size = bytes_text(options.output.stat().st_size)
    if better:
        best = losses.index(min(losses)) + 1
        say(f"wrote {options.output} ({size}): the weights of epoch {best} of {len(epochs)}")
    else:
        say(f"no epoch was better: {options.output} ({size}) has the weights of before")
    if options.curve:
        series = {"training": [e.loss for e in epochs], "validation": losses}
        options.curve.write_text(svg(f"{options.loss} of {options.model.name}", series))
        say(f"wrote {options.curve}")
