#!/usr/bin/env python3
"""What Intel GPUs could do at most, by arithmetic: the tables of docs/xpu.md.

    bench/xpu_ceilings.py

Generation is bound by the bytes that a token reads and writes, prompts by the operations of their
tokens; the ceiling is one or the other divided by the GPU's rate: of its data sheet, or units times
clock where that is silent.  Nothing here is measured.  Shapes of the released models come from the table in src/tools/random.c.

Of one token at a context of 4,096, weights in bf16:

    weights   every matrix once, of experts the chosen ones and the shared one; the head; no draft head,
              no embeddings but a row
    state     of each Gated DeltaNet layer hv 128 128 floats and 3 C (convolution), read and written
    keys      2 hkv 256 bf16 a position and layer of full attention, read

    operations   2 for each weight (prompts: without the head), 8 for an element of the state (decay,
                 what it answers, correction, output), 4 hq 256 for a position attended to (of a prompt
                 of 4,096 tokens 2,048 on average)
"""
import os
import re

CONTEXT, HEAD, DK, W = 4096, 256, 128, 4
# name, GB/s, TFLOP/s of the matrix engine in bf16, memory in GiB
GPUS = [("Arc A770", 560, 138, 16), ("Arc B580", 456, 117, 12), ("Arc Pro B60", 456, 98, 24),
        ("Arc Pro B70", 608, 184, 32), ("Max 1100", 1229, 352, 48), ("Max 1550", 3277, 839, 128),
        ("Lunar Lake 140V", 136, 33, 16)]


def shapes():
    """(name, d, layers, hq, hkv, hk, hv, ffn, experts, top, f, fs, vocab, tied) of each model."""
    path = os.path.join(os.path.dirname(__file__), "..", "src", "tools", "random.c")
    text = open(path).read()
    table = text[text.index("shapes[] = {"):text.index("enum { N_SHAPE")]
    for name, rest in re.findall(r'\{"([^"]+)",\s*(.*?)\},', table, re.S):
        kind, inner = re.match(r"(B35|M35)?\(?(.*)", rest.replace("\n", " "), re.S).groups()
        a = [x.strip(" )") for x in inner.split(",")]
        if kind == "B35":
            d, l, q, kv, v, ffn = map(int, a[:6])
            yield name, d, l, q, kv, 16, v, ffn, 0, 0, 0, 0, 248320, a[6] == "true"
        elif kind == "M35":
            d, l, q, kv, v, e, k, moe = map(int, a)
            yield name, d, l, q, kv, 16, v, 0, e, k, moe, moe, 248320, False
        else:
            yield (name, *map(int, a[1:13]), a[14] == "true")


def costs(d, layers, hq, hkv, hk, hv, ffn, experts, top, f, fs, vocab, tied):
    full = layers // 4  # every fourth
    linear = layers - full
    channels = 2 * hk * DK + hv * DK
    attention = d * (2 * hq * HEAD + 2 * hkv * HEAD + hq * HEAD)
    gdn = d * (channels + hv * DK + 2 * hv + hv * DK) + channels * W
    expert = 3 * d * f
    mlp = 3 * d * ffn + (experts + 1 if experts else 0) * d + 3 * d * fs
    body = full * attention + linear * gdn + layers * (mlp + top * expert)
    whole = body + layers * (experts - top) * expert + vocab * d * (1 if tied else 2)
    state = linear * (hv * DK * DK * 4 + (W - 1) * channels * 4)
    keys = full * 2 * hkv * HEAD * 2 * CONTEXT
    delta = linear * 8 * hv * DK * DK
    attend = full * 4 * hq * HEAD
    return {
        "weights": 2 * (body + vocab * d), "state": 2 * state, "keys": keys,
        "bytes": 2 * (body + vocab * d) + 2 * state + keys, "memory": 2 * whole + state + keys,
        "generate": 2 * (body + vocab * d) + delta + attend * CONTEXT,
        "prompt": 2 * body + delta + attend * CONTEXT // 2, "whole": whole,
    }


def number(x):
    return f"{x:,.0f}" if x >= 10 else f"{x:.1f}"


def main():
    models = [(s[0], costs(*s[1:])) for s in shapes()]
    print("| model | weights in memory, GB | a token reads: weights, GB | state, MB | keys, MB | "
          "operations, answer, GFLOP | prompt, GFLOP |\n|---|---|---|---|---|---|---|")
    for name, c in models:
        print(f"| {name} | {2e-9 * c['whole']:.1f} | {1e-9 * c['weights']:.2f} | {1e-6 * c['state']:.0f} | "
              f"{1e-6 * c['keys']:.0f} | {1e-9 * c['generate']:.1f} | {1e-9 * c['prompt']:.1f} |")
    for title, key, rate in (("generation", "bytes", 1e9), ("prompts", "prompt", 1e12)):
        print(f"\n{title}, tokens/s at most\n")
        print("| model | " + " | ".join(g[0] for g in GPUS) + " |\n|---" + "|---" * len(GPUS) + "|")
        for name, c in models:
            row = []
            for _, bandwidth, flops, memory in GPUS:
                fits = c["memory"] <= memory * 2**30 * 7 / 8
                row.append(number((bandwidth if key == "bytes" else flops) * rate / c[key]) if fits
                           else "-")
            print(f"| {name} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
