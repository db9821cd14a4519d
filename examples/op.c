/* op.c - gdn_attention on a prompt of three tokens: one key and value head, on the CPU.
 *
 *     cc op.c $(pkg-config --cflags --libs gdn) && ./a.out */
#include <gdn/op.h>

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

enum { T = 3, DK = 8, DV = 2, W = 2, C = 2 * DK + DV };

/* All numbers of the call; a tensor is a view of a part.  The states are in and out. */
static struct call {
    float   qkvz[T][C + DV], ba[T][2], core[T][DV], z[T][DV];
    float   conv_state[1][W - 1][C], ssm_state[1][1][DV][DK];
    float   conv_weights[C][W], A_log[1], dt_bias[1];
    int32_t start[2], slot[1];
} m = { .start = { 0, T } }; /* one sequence of T tokens, on slot 0, from a state of zeros */

#define VIEW(field, type, ndim, ...) \
    gdn_tensor_dense(buf, offsetof(struct call, field), type, ndim, (const int64_t[]){ __VA_ARGS__ })

int main(void) {
    gdn_err err = { .code = GDN_OK };
    gdn_device *dev = NULL;
    gdn_queue *queue = NULL;
    gdn_buffer *buf = NULL;
    for (int t = 0; t < T; t++)
        for (int i = 0; i < C + DV; i++) m.qkvz[t][i] = (float)((7 * t + 3 * i) % 11 - 5) / 4;
    for (int c = 0; c < C; c++) m.conv_weights[c][0] = 0.25f, m.conv_weights[c][1] = 1;

    gdn_status st = gdn_device_open("cpu", NULL, &dev, &err);
    if (st == GDN_OK) st = gdn_queue_create(dev, &queue, &err);
    if (st == GDN_OK) st = gdn_buffer_wrap(dev, &m, sizeof m, &buf, &err);
    const gdn_attention_args args = {
        .core = VIEW(core, GDN_F32, 3, T, 1, DV), .z = VIEW(z, GDN_F32, 3, T, 1, DV),
        .qkvz = VIEW(qkvz, GDN_F32, 2, T, C + DV), .ba = VIEW(ba, GDN_F32, 2, T, 2),
        .conv_state = VIEW(conv_state, GDN_F32, 3, 1, W - 1, C),
        .ssm_state = VIEW(ssm_state, GDN_F32, 4, 1, 1, DV, DK),
        .conv_weights = VIEW(conv_weights, GDN_F32, 2, C, W),
        .A_log = VIEW(A_log, GDN_F32, 1, 1), .dt_bias = VIEW(dt_bias, GDN_F32, 1, 1),
        .non_spec_query_start_loc = VIEW(start, GDN_I32, 1, 2),
        .non_spec_state_indices = VIEW(slot, GDN_I32, 1, 1),
        .n_k_head = 1, .n_v_head = 1, .dk = DK, .dv = DV, .tp_size = 1,
        .num_actual_tokens = T, .null_slot = -1, .reorder_input = true,
    };
    if (st == GDN_OK) st = gdn_attention(queue, &args, &err);
    if (st == GDN_OK) st = gdn_queue_wait(queue, &err); /* the results are there only now */
    if (st == GDN_OK) {
        for (int t = 0; t < T; t++) printf("core %.4f %.4f\n", m.core[t][0], m.core[t][1]);
        printf("state %.4f %.4f\n", m.ssm_state[0][0][0][0], m.ssm_state[0][0][1][0]);
    } else fprintf(stderr, "op: %s: %s\n", gdn_status_text(st), err.text);
    gdn_buffer_free(buf);
    gdn_queue_free(queue);
    gdn_device_close(dev);
    return st == GDN_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
