"""Every process gives the same answers, gradients, files and messages, whatever it hashes to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import hashlib, json, sys
from pathlib import Path
import onnx.parser
import torch
from onnxinterp import OnnxError, OnnxModule, checkpoints
from tests.faults.models import MODELS, call_of

parse = onnx.parser.parse_model

folder = Path(sys.argv[1])
found = {}

def note(key, value):
    data = value if isinstance(value, bytes) else repr(value).encode()
    found[key] = hashlib.sha256(data).hexdigest()

def bits(value):
    return value.detach().numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value)

for name, model in MODELS.items():
    module = OnnxModule(model)
    for i in (1, 2, 2, 2, 15):
        args, keywords = call_of(name, i)
        answer = module(*args, **keywords)
        note(f"{name} {i}", [bits(o) for o in (answer if isinstance(answer, tuple) else [answer])])
    note(f"{name} parameters", [n for n, _ in module.named_parameters()])
    note(f"{name} state", list(module.state_dict()))
    note(f"{name} text", repr(module))
    note(f"{name} plan", str(module.plan))

module = OnnxModule(MODELS["network"]).train()
for step in range(3):
    module(call_of("network", step)[0][0]).square().sum().backward()
note("gradients", [(n, bits(p.grad)) for n, p in module.named_parameters()])
with torch.no_grad():
    for parameter in module.parameters():
        parameter -= 0.01 * parameter.grad
note("groups", [(g["name"], g["lr"]) for g in module.parameter_groups(0.1, decay=0.5)])
module.weights["scale"] = module.weights["bias"]  # one tensor of two names
module.save_onnx(folder / "n.onnx")
module.save_safetensors(folder / "n.safetensors")
checkpoints.save(MODELS["network"], folder / "n.pth")
for file in ("n.onnx", "n.safetensors", "n.pth"):
    note(file, (folder / file).read_bytes())

(folder / "a").mkdir()
(folder / "b").mkdir()
model = onnx.ModelProto.FromString(MODELS["network"].SerializeToString())
how = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 9}
onnx.save(model, folder / "a" / "m.onnx", **how)
module = OnnxModule(folder / "a" / "m.onnx")
with torch.no_grad():
    module.weights["conv_w"].add_(1)
module.save_onnx(folder / "b" / "m.onnx")
files = sorted((folder / "b").iterdir())
assert len(files) == 2
note("external", [file.read_bytes() for file in files])

HEADER = '<ir_version: 8, opset_import: ["": 17, "own": 1]>'
for key, text, args in (
    ("missing", "z = own.A(x) u = own.B(z) v = own.C(u) y = own.D(v)", ()),
    ("unknown", "y = Add(x, nothing)", ()),
    ("node", "z = Reshape(x, k) y = Add(z, x) k = Constant<value_ints = [7]>()", (torch.ones(2),)),
    ("input", "y = Neg(x)", (torch.ones(2, 2),)),
    ("name", "y = Neg(x)", (torch.ones(2), torch.ones(2))),
):
    try:
        OnnxModule(parse(f"{HEADER} g (float[n] x) => (float[n] y) {{ {text} }}"))(*args)
    except OnnxError as error:
        note(f"message {key}", f"{type(error)} {error}")
try:
    other = OnnxModule(MODELS["overridden"])
    other.load_safetensors(folder / "n.safetensors")
except OnnxError as error:
    note("message of a load", str(error).replace(str(folder), ""))
print(json.dumps(found))
"""


def test_processes_that_hash_differently_agree(tmp_path: Path) -> None:
    answers = []
    running = []
    for seed in ("0", "4711"):
        (tmp_path / seed).mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": "."}
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path / seed)]
        root = Path(__file__).parents[2]
        running.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=root, text=True)
        )
    for process in running:
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        answers.append(json.loads(out))
    assert len(answers[0]) > 40
    for other in answers[1:]:
        assert [key for key in other if other[key] != answers[0][key]] == []
