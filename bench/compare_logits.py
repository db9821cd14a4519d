"""Compare the logits of two safetensors files (`gdn logits`): JSON with the largest difference, the
mean KL divergence of the second from the first, and how often both choose the same token.

    python3 bench/compare_logits.py REFERENCE OTHER        (needs numpy)
"""
import json
import struct
import sys

import numpy as np


def logits(path):
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        t = json.loads(f.read(n))["logits"]
        begin, end = t["data_offsets"]
        f.seek(8 + n + begin)
        return np.frombuffer(f.read(end - begin), "<f4").reshape(t["shape"])


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def main():
    a, b = logits(sys.argv[1]), logits(sys.argv[2])
    worst, kl, same = 0.0, 0.0, 0
    for x, y in zip(a, b, strict=True):
        p, q = log_softmax(x), log_softmax(y)
        kl += float((np.exp(p) * (p - q)).sum())
        worst = max(worst, float(np.abs(x.astype(np.float64) - y).max()))
        same += int(x.argmax() == y.argmax())
    print(json.dumps({"rows": len(a), "largest_difference": worst, "mean_kl": kl / len(a),
                      "same_choice": same / len(a), "finite": bool(np.isfinite(b).all()),
                      "rms": float(np.sqrt((a.astype(np.float64) ** 2).mean()))}))


main()
