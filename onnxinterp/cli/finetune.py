"""`onnxinterp finetune`: fine-tune an ONNX model and save the result as ONNX.

For simple tasks: one loss on one output, and data in a folder or an .npz file (see
`training.datasets`). For other tasks, use the module in Python: docs/fine-tuning.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from onnxinterp.cli import arguments
from onnxinterp.cli.arguments import positive_int
from onnxinterp.cli.curve import svg
from onnxinterp.cli.display import format_bytes, percentages, progress, say, table
from onnxinterp.cli.verify import agrees_if_installed
from onnxinterp.errors import InputError
from onnxinterp.graph.build import build
from onnxinterp.module import OnnxModule
from onnxinterp.reading.source import Source, read
from onnxinterp.training import loop
from onnxinterp.training.datasets import Examples, Scaling, load
from onnxinterp.training.heads import find_head, replace_head
from onnxinterp.verify.inputs import choose_shapes
from onnxinterp.verify.report import declared_inputs

EXAMPLES = """\
  onnxinterp finetune resnet.onnx --data photos/ --head auto --output tuned.onnx \\
      --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 --epochs 10 --lr 1e-4
  onnxinterp finetune model.onnx --data examples.npz --loss mse --output tuned.onnx
  onnxinterp finetune model.onnx --data photos/ --head auto --train "fc.*" --output tuned.onnx

data format:
  a folder   CLASS/name.png; or train/CLASS/name.png, and the same below validation/ and test/
  an .npz    an array for each input, under its name, and "labels" or "targets"; or the same with
             the prefixes train_, validation_ and test_

  The best epoch is selected on the validation data. If there is none, a part of the training data
  is used (--validation). Test data is only evaluated, before and after fine-tuning.

exit status: 0 the validation loss decreased and onnxruntime agrees, 1 otherwise, 2 an error"""

Scores = dict[str, loop.Score]  # by portion
MEASURED_PORTIONS = ("validation", "test")
PROBABILITY_OPS = {"ce": ("Softmax", "LogSoftmax"), "bce": ("Sigmoid",)}
"""Loss -> operators that convert logits to probabilities; the loss is computed on logits."""


def add_to(commands: arguments.Commands) -> None:
    """Declare the command."""
    summary = "fine-tune a model on a folder of images or an .npz file"
    parser = arguments.add_command(commands, "finetune", run, summary, EXAMPLES)
    parser.add_argument("model", type=Path, help="ONNX file")
    arguments.add_untrusted(parser)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="OUT.onnx", help="the fine-tuned model")
    add("--curve", type=Path, metavar="OUT.svg", help="write a plot of the losses")
    _add_data(parser)
    _add_task(parser)
    _add_training(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("data").add_argument
    folder_or_file = "DIR|FILE.npz"
    add("--data", type=Path, required=True, metavar=folder_or_file, help="examples, see below")
    validation = (
        "part of the training data to use for validation, if the data has no validation examples; "
        "default %(default)s"
    )
    add("--validation", type=_fraction, default=0.1, metavar="FRACTION", help=validation)
    formula = "inputs are (x * scale - mean) / std; default 1/255 for images, else 1"
    add("--scale", type=float, help=formula)
    for option, default in (("--mean", 0.0), ("--std", 1.0)):
        add(option, type=float, nargs="+", default=[default], help="one value, or one per channel")
    arguments.add_input_shape(parser)


def _add_task(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("task").add_argument
    loss = (
        "cross-entropy, binary cross-entropy (both on the logits, before a final Softmax or "
        "Sigmoid), mean squared or mean absolute error; default %(default)s"
    )
    add("--loss", choices=("ce", "bce", "mse", "l1"), default="ce", help=loss)
    add("--answer", metavar="NAME", help="output of the model for the loss, default the first")
    head = (
        "number of outputs of the last linear layer, auto: the number of classes in the data; the "
        "layer gets new weights if this number changes"
    )
    add("--head", type=_head, metavar="N|auto", help=head)
    weights = "weights with these names, for example 'fc.*'"
    add("--train", nargs="+", metavar="PATTERN", help=f"train only {weights}")
    add("--freeze", nargs="+", metavar="PATTERN", help=f"do not train {weights}")
    statistics = "normalize with the running statistics of the model, for small batches"
    add("--freeze-statistics", action="store_true", help=statistics)


def _add_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("training").add_argument
    default = "default %(default)s"
    add("--epochs", type=positive_int, default=10, metavar="N", help=default)
    add("--lr", type=float, default=1e-3, help=f"learning rate, {default}")
    decay = f"learning rate of a layer divided by that of the next layer, {default}"
    add("--layer-decay", type=float, default=1.0, metavar="FACTOR", help=decay)
    batch_size = "default the batch size of the model, 32 if it is dynamic"
    add("--batch-size", type=positive_int, metavar="N", help=batch_size)
    add("--optimizer", choices=("adamw", "sgd"), default="adamw", help=default)
    add("--weight-decay", type=float, default=0.01, metavar="FACTOR", help=default)
    add("--schedule", choices=("cosine", "constant"), default="cosine", help=default)
    patience = "stop after this number of epochs without improvement"
    add("--patience", type=positive_int, metavar="EPOCHS", help=patience)
    add("--device", type=_device, help="default cuda if available, else cpu")
    seed = "for data order, validation split, new head and dropout"
    add("--seed", type=int, default=0, help=seed)


def _fraction(string: str) -> float:
    fraction = float(string)
    if not 0 < fraction < 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {string}")
    return fraction


def _head(string: str) -> int:
    """Parse a number of outputs; 0 for auto."""
    return 0 if string == "auto" else positive_int(string)


def _device(string: str) -> torch.device:
    try:
        return torch.empty(0, device=string).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        message = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"must be available, got {string!r}: {message}") from None


def run(options: argparse.Namespace) -> int:
    """Fine-tune; return 0 if the validation loss decreased and onnxruntime agrees, else 1."""
    for path in filter(None, (options.output, options.curve)):
        if not path.absolute().parent.is_dir():
            raise InputError(f"the folder of an output file must exist, got {path}")
    torch.manual_seed(options.seed)
    batch, portions = _examples(options)
    train, validation = portions["train"], portions["validation"]
    module = _module(options, portions)
    objective = loop.Objective(options.loss)
    _check_targets(module, portions, options, batch)
    measured = {name: portions[name] for name in MEASURED_PORTIONS if name in portions}
    before = {n: loop.measure(module, p, objective, batch) for n, p in measured.items()}
    recipe = _recipe(module, options, batch)
    _say_start(module, portions, options)
    with progress("fine-tuning", recipe.steps(train)) as advance:
        epochs = loop.fit(module, train, validation, objective, recipe, advance)
    after = {n: loop.measure(module, p, objective, batch) for n, p in measured.items()}
    module.cpu().save_onnx(options.output)
    _show(before, after, measured)
    better = after["validation"].loss < before["validation"].loss
    _say_end(epochs, better, options)
    inputs = train.read(torch.arange(min(batch, len(train))))
    title = f"{options.output.name} against onnxruntime"
    agrees = agrees_if_installed(options.output, inputs, title)
    return 0 if better and agrees else 1


def _examples(options: argparse.Namespace) -> tuple[int, dict[str, Examples]]:
    """Return the batch size and the examples of each portion."""
    declared = declared_inputs(read(options.model, options.limits).proto)
    if not declared:
        raise InputError("the model has no inputs")
    first = (declared[0].shape or (None,))[0]
    batch = options.batch_size or (first if isinstance(first, int) and first > 0 else 32)
    shape: tuple[int, ...] = ()
    if options.data.is_dir():
        shapes = arguments.shapes_by_name(options.input_shape, declared)
        chosen = choose_shapes(declared, shapes, batch=batch)
        batches = {d.shape[0] for d in declared if d.shape}
        defaults = {n: size for n, size in chosen.assumed.items() if n not in batches}
        arguments.say_default_sizes(defaults)
        shape = chosen.sizes[declared[0].name]
    scaling = Scaling(options.scale, tuple(options.mean), tuple(options.std))
    portions = load(options.data, declared, shape, scaling)
    if "validation" not in portions:
        parts = portions["train"].split(options.validation, options.seed)
        portions["train"], portions["validation"] = parts
    return batch, portions


def _module(options: argparse.Namespace, portions: dict[str, Examples]) -> OnnxModule:
    """Return the module on its device, with the tensor that the loss is computed on as output."""
    source = _with_head(options, portions)
    graph = build(read(source, options.limits).proto).graph
    names = [o.name for o in graph.outputs]
    name = options.answer or names[0]
    if name not in names:
        outputs = ", ".join(names)
        raise InputError(f"--answer must be an output of the model ({outputs}), got {name!r}")
    makers = {output: node for node in graph.nodes for output in node.outputs}
    node = makers.get(name)
    while node is not None and node.op_type == "Identity":
        node = makers.get(node.inputs[0])
    if node is not None and node.op_type in PROBABILITY_OPS.get(options.loss, ()):
        name = node.inputs[0]
        say(f"the loss is computed on {name!r}, the input of {node.op_type} {node.name!r}")
    module = OnnxModule(source, outputs=[name], limits=options.limits)
    _choose_weights(module, options)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    return module.to(options.device or default)


def _with_head(options: argparse.Namespace, portions: dict[str, Examples]) -> Source:
    """Return the model, with a new head if --head asks for another number of outputs."""
    source: Source = options.model
    if options.head is None:
        return source
    wanted = options.head or _outputs_needed(options.loss, portions)
    head = find_head(source, options.answer, options.limits)
    if head.out_features == wanted:
        say(f"the head ({head.node.op_type}) already has {wanted} outputs")
        return source
    generator = torch.Generator().manual_seed(options.seed)
    changed = replace_head(
        source, wanted, output=options.answer, generator=generator, limits=options.limits
    )
    names = ", ".join(find_head(changed, options.answer).names)
    say(f"new head ({names}): {wanted} outputs instead of {head.out_features}")
    return changed


def _outputs_needed(loss: str, portions: dict[str, Examples]) -> int:
    """Return the number of outputs that the data requires."""
    targets = [p.targets for p in portions.values()]
    if loss != "ce":
        return targets[0][0].numel()
    return max(len(portions["train"].classes), *(int(t.max()) + 1 for t in targets))


def _choose_weights(module: OnnxModule, options: argparse.Namespace) -> None:
    """Freeze weights and statistics as the options say."""
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
    if not loop.counts(module)[0]:
        raise InputError("at least one weight must be trainable, got none")


def _check_targets(
    module: OnnxModule, portions: dict[str, Examples], options: argparse.Namespace, batch: int
) -> None:
    """Check that outputs and targets match, with the first batch.

    Raises:
        InputError: they do not match.
    """
    train = portions["train"]
    with torch.no_grad():
        answers, targets = loop.answered(module, train, torch.arange(min(batch, len(train))))
    if not isinstance(answers, torch.Tensor) or not answers.is_floating_point():
        raise InputError(f"output {module.output_names[0]!r} must be a floating-point tensor")
    if options.loss != "ce":
        if answers.numel() != targets.numel():
            shapes = f"{list(answers.shape[1:])} per example, got {list(targets.shape[1:])}"
            raise InputError(f"targets must have shape {shapes}; see --head")
        return
    by_class = loop.classes_second(answers, targets)
    classes = by_class.shape[1] if by_class.ndim > 1 else 0
    if targets.is_floating_point() or answers.numel() != targets.numel() * classes:
        raise InputError(
            f"targets for cross-entropy must be integer class labels that match the output "
            f"{list(answers.shape)}, got {targets.dtype} {list(targets.shape)}"
        )
    found = torch.cat([p.targets.reshape(-1) for p in portions.values()])
    found = found[found != loop.IGNORED]
    if found.numel() and not 0 <= found.min() <= found.max() < classes:
        labels = f"{int(found.min())} to {int(found.max())}"
        raise InputError(f"labels must be 0 to {classes - 1}, got {labels}; see --head auto")
    if train.classes and len(train.classes) != classes:
        say(f"{classes} outputs for {len(train.classes)} classes in the data; see --head auto")


def _recipe(module: OnnxModule, options: argparse.Namespace, batch: int) -> loop.Recipe:
    groups = module.parameter_groups(
        options.lr, decay=options.layer_decay, weight_decay=options.weight_decay
    )
    optimizer: torch.optim.Optimizer
    if options.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=options.lr, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(groups, lr=options.lr)
    return loop.Recipe(
        options.epochs, batch, optimizer, options.schedule, options.patience, options.seed
    )


def _say_start(
    module: OnnxModule, portions: dict[str, Examples], options: argparse.Namespace
) -> None:
    trained, weights = loop.counts(module)
    device = next(module.parameters()).device
    say(f"{options.model.name}: {trained} of {weights} parameters are trainable, on {device}")
    say(f"examples: {', '.join(f'{len(p)} {name}' for name, p in portions.items())}")
    if classes := portions["train"].classes:
        shown = [f"{number} {name}" for number, name in enumerate(classes[:20])]
        say(f"classes: {', '.join(shown)}{', ...' if len(classes) > 20 else ''}")


def _show(before: Scores, after: Scores, measured: dict[str, Examples]) -> None:
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


def _say_end(epochs: list[loop.Epoch], better: bool, options: argparse.Namespace) -> None:
    losses = [epoch.validation.loss for epoch in epochs]
    size = format_bytes(options.output.stat().st_size)
    if better:
        best = losses.index(min(losses)) + 1
        say(f"wrote {options.output} ({size}) with the weights of epoch {best} of {len(epochs)}")
    else:
        say(f"no epoch improved; {options.output} ({size}) contains the original weights")
    if options.curve:
        series = {"training": [e.loss for e in epochs], "validation": losses}
        options.curve.write_text(svg(f"{options.loss} of {options.model.name}", series))
        say(f"wrote {options.curve}")
