#!/usr/bin/env python3
"""Make adapters and their logits with PEFT itself, on the models of tests/golden and the demo model.

    python3 -m venv venv && venv/bin/pip install torch transformers peft safetensors
    venv/bin/python tests/oracle/make_lora_vectors.py tests/golden/lora

Every folder is what PeftModel.save_pretrained() writes, less its README; golden.safetensors holds
input_ids and the logits of the model with the adapter, computed in f32 by transformers and PEFT.  B is
random (init_lora_weights=False): a fresh adapter would change nothing.
"""
import json
import os
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

CASES = [
    # name, model, what PEFT is asked for, tokens of the golden logits (0: none)
    ("dense-mtp", "tests/golden/model/dense-mtp",
     dict(r=3, lora_alpha=6, target_modules="all-linear",
          rank_pattern={"layers.3.self_attn.q_proj": 5}, alpha_pattern={"down_proj": 1.5}), 24),
    ("next-moe", "tests/golden/model/next-moe",
     dict(r=4, lora_alpha=4, use_rslora=True,
          target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "in_proj_qkvz", "in_proj_ba",
                          "out_proj", "shared_expert.gate_proj", "shared_expert.up_proj",
                          "shared_expert.down_proj", "shared_expert_gate", "lm_head"]), 24),
    ("jargon", "models/jargon",
     dict(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj", "in_proj_qkv"]), 0),
]


def make(out, name, path, options, n):
    torch.manual_seed(20)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **options))
    # Values that bf16 holds, so that the saved file and what was computed with agree.
    for key, p in model.named_parameters():
        if "lora_" in key:
            p.data = (p.data * (1.0 if "lora_A" in key else 0.7)).bfloat16().float()
    folder = os.path.join(out, name)
    logits = None
    if n > 0:
        ids = torch.tensor([[(i * i + 7) % 512 for i in range(n)]])
        with torch.no_grad():
            model.eval()
            logits = model(ids, use_cache=False).logits[0].float().contiguous()
            plain = model.disable_adapter
            with plain():
                base = model(ids, use_cache=False).logits[0].float()
        print(name, "logits", float(logits.abs().max()), "changed by", float((logits - base).abs().max()))
    for key, p in model.named_parameters():
        if "lora_" in key:
            p.data = p.data.bfloat16()
    model.save_pretrained(folder, safe_serialization=True)
    os.remove(os.path.join(folder, "README.md"))
    config = os.path.join(folder, "adapter_config.json")
    with open(config) as f:
        c = json.load(f)
    for key in ("target_modules",):  # a set: its order differs from run to run
        if isinstance(c[key], list):
            c[key].sort()
    with open(config, "w") as f:
        json.dump(c, f, indent=2)
        f.write("\n")
    if logits is not None:
        save_file({"input_ids": ids[0].contiguous(), "logits": logits},
                  os.path.join(folder, "golden.safetensors"))


for case in CASES:
    make(sys.argv[1], *case)
