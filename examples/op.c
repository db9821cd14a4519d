/* op.c - one operator of the library on a few numbers: RMS norm of two rows, on the CPU.
 *
 *     cc op.c $(pkg-config --cflags --libs gdn) && ./a.out */
#include <gdn/op.h>

#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 2, D = 4 };

/* A dense f32 tensor over the caller's numbers. */
static gdn_status wrap(gdn_device *dev, float *data, int32_t ndim, const int64_t *shape,
                       gdn_tensor *out, gdn_err *err) {
    uint64_t bytes = sizeof *data;
    for (int32_t i = 0; i < ndim; i++) bytes *= (uint64_t)shape[i];
    gdn_buffer *buf = NULL;
    gdn_status st = gdn_buffer_wrap(dev, data, bytes, &buf, err);
    if (st == GDN_OK) *out = gdn_tensor_dense(buf, 0, GDN_F32, ndim, shape);
    return st;
}

int main(void) {
    float x[ROWS][D] = { { 1, 7, 5, 5 }, { 2, -2, 2, 2 } };
    float w[D] = { 1, 0.5f, 2, -1 };
    float y[ROWS][D];
    const int64_t rows[] = { ROWS, D }, row[] = { D };

    gdn_err    err = { .code = GDN_OK };
    gdn_device *dev = NULL;
    gdn_queue  *queue = NULL;
    gdn_rms_norm_args args = { .eps = 0 };

    gdn_status st = gdn_device_open("cpu", NULL, &dev, &err);
    if (st == GDN_OK) st = gdn_queue_create(dev, &queue, &err);
    if (st == GDN_OK) st = wrap(dev, &x[0][0], 2, rows, &args.x, &err);
    if (st == GDN_OK) st = wrap(dev, w, 1, row, &args.w, &err);
    if (st == GDN_OK) st = wrap(dev, &y[0][0], 2, rows, &args.y, &err);
    if (st == GDN_OK) st = gdn_op_rms_norm(queue, &args, &err);
    if (st == GDN_OK) st = gdn_queue_wait(queue, &err); /* y holds the result only now */

    if (st == GDN_OK)
        for (int i = 0; i < ROWS; i++)
            printf("%.4f %.4f %.4f %.4f\n", y[i][0], y[i][1], y[i][2], y[i][3]);
    else
        fprintf(stderr, "op: %s: %s\n", gdn_status_text(st), err.text);

    gdn_buffer_free(args.x.buf);
    gdn_buffer_free(args.w.buf);
    gdn_buffer_free(args.y.buf);
    gdn_queue_free(queue);
    gdn_device_close(dev);
    return st == GDN_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
