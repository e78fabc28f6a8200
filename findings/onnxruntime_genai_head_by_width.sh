#!/usr/bin/env bash
# onnxruntime-genai 0.18.0 (model builder; onnxruntime 1.32.0, transformers 5.24.0, torch 2.14.1): a decoder
# whose vocabulary is as large as its hidden size gets the head of its first attention output.
#
# The builder takes every torch.nn.Linear with as many outputs as the vocabulary for the LM head. In a
# Llama with vocab_size == hidden_size, that is the o_proj of each layer. Expected: an error, or the
# head behind the final norm, as with any other vocabulary. The node lm_head reads the norm in the
# first layer instead, its weight is that of o_proj, and nothing warns; the final norm is computed and read by
# nobody. With a vocabulary of another size the file is right.
#
# Output seen:
#   vocab_size 64: logits come from /model/layers.0/post_attention_layernorm/output_0
#   vocab_size 96: logits come from /model/layers.1/final_norm_layernorm/output_0
#
# Exit status 0: as described; anything else: the builder behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime-genai==0.18.0 onnxruntime==1.32.0 onnx==1.23.2 \
    onnx-ir==1.1.0 torch==2.14.1 transformers==5.24.0
cd "$folder"
"$folder/venv/bin/python" - <<'PROGRAM'
import subprocess
import sys

import onnx
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

seen = {}
for vocabulary in (64, 96):
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        head_dim=16,
    )
    torch.manual_seed(0)
    source, out = f"llama{vocabulary}", f"out{vocabulary}"
    LlamaForCausalLM(config).save_pretrained(source)
    words = {f"<{i}>": i for i in range(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    special = {"bos_token": "<1>", "eos_token": "<2>", "pad_token": "<0>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(source)
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    options = ["-m", source, "-o", out, "-p", "fp32", "-e", "cpu", "-c", "cache"]
    subprocess.run([*builder, *options], check=True, capture_output=True)
    graph = onnx.load(f"{out}/model.onnx", load_external_data=False).graph
    (head,) = [node for node in graph.node if "logits" in node.output]
    seen[vocabulary] = head.input[0]
    print(f"vocab_size {vocabulary}: logits come from {head.input[0]}")
assert seen[64] == "/model/layers.0/post_attention_layernorm/output_0"
assert seen[96] == "/model/layers.1/final_norm_layernorm/output_0"
PROGRAM
