"""gdn_torch_baseline.py - gated DeltaNet attention on the cpu in plain PyTorch, as a yardstick.

The operator of op.h for plain sequences, as one writes it with tensor operations: projected rows cut
apart, conv1d over time, then the recurrence token by token for all heads and sequences at once.  The
cases are those of op_speed.c; prints one JSON object a line.

    python bench/gdn_torch_baseline.py [threads [prompt tokens [rounds [bf16|f32]]]]
"""
import json
import sys
import time

import torch
import torch.nn.functional as F

NK, NV, D, W, SEQ, POOLS = 16, 32, 128, 4, 32, 4
C = 2 * NK * D + NV * D


def operator(qkvz, ba, conv_state, ssm_state, slots, w, A_log, dt_bias):
    """qkvz [B, T, C + NV D] and ba [B, T, 2 NV] of B sequences of T tokens; states in place."""
    B, T, _ = qkvz.shape
    x, z = qkvz.split([C, NV * D], dim=-1)
    b, a = ba.float().split([NV, NV], dim=-1)
    x = torch.cat([conv_state[slots], x], dim=1)  # [B, W - 1 + T, C]
    conv_state[slots] = x[:, -(W - 1):]
    y = F.silu(F.conv1d(x.transpose(1, 2), w.unsqueeze(1), groups=C)).transpose(1, 2).float()
    q, k, v = y.split([NK * D, NK * D, NV * D], dim=-1)
    q, k, v = (t.reshape(B, T, -1, D) for t in (q, k, v))
    q = q * torch.rsqrt(q.square().sum(-1, keepdim=True) + 1e-6) * D**-0.5
    k = k * torch.rsqrt(k.square().sum(-1, keepdim=True) + 1e-6)
    q, k = (t.repeat_interleave(NV // NK, dim=2) for t in (q, k))
    beta = torch.sigmoid(b)
    alpha = torch.exp(-torch.exp(A_log) * F.softplus(a + dt_bias.float()))
    S = ssm_state[slots]  # [B, NV, D, D]
    core = torch.empty(B, T, NV, D)
    for t in range(T):
        S = S * alpha[:, t, :, None, None]
        d = (v[:, t] - torch.matmul(S, k[:, t, :, :, None]).squeeze(-1)) * beta[:, t, :, None]
        S = S + d.unsqueeze(-1) * k[:, t, :, None, :]
        core[:, t] = torch.matmul(S, q[:, t, :, :, None]).squeeze(-1)
    ssm_state[slots] = S
    return core.to(qkvz.dtype), z.reshape(B, T, NV, D)


def best(rounds, call):
    wall, cpu = 1e9, 1e9
    for i in range(rounds):
        t0, c0 = time.perf_counter(), time.process_time()
        call(i)
        wall, cpu = min(wall, time.perf_counter() - t0), min(cpu, time.process_time() - c0)
    return wall * 1e3, cpu * 1e3


def main():
    arg = sys.argv[1:] + [None] * 4
    threads, tokens, rounds = int(arg[0] or 2), int(arg[1] or 8192), int(arg[2] or 3)
    act = torch.float32 if arg[3] == "f32" else torch.bfloat16
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    w = torch.rand(C, W).to(act)
    A_log, dt_bias = torch.rand(NV), torch.rand(NV).to(act)

    def case(name, B, T, n_slot, n_round):
        qkvz, ba = torch.rand(B, T, C + NV * D).to(act), torch.rand(B, T, 2 * NV).to(act)
        conv, ssm = torch.rand(n_slot, W - 1, C).to(act), torch.rand(n_slot, NV, D, D)
        groups = torch.arange(n_slot).split(B)
        ms, cpu = best(n_round, lambda i: operator(qkvz, ba, conv, ssm, groups[i % len(groups)], w,
                                                   A_log, dt_bias))
        print(json.dumps({"case": name, "by": "torch " + torch.__version__, "act": str(act)[6:],
                          "sequences": B, "tokens": B * T, "ms": round(ms, 2),
                          "cpu_ms": round(cpu, 2)}), flush=True)

    case("decode", SEQ, 1, SEQ * POOLS, 2 * POOLS * rounds)
    case("prompt", 1, tokens, 1, rounds)


if __name__ == "__main__":
    main()
