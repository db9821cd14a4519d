/* jinja_loop.c - going through an iterable for {% for %}, and the variable `loop`.
 *
 * Elements are fetched one at a time, so that a condition (for x in y if c) sees what the
 * body did before; loop.last, nextitem and length look ahead as far as they must. */
#include "jinja_eval.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct jv_loop {
    const jnode *node;
    jframe      *outer; /* where the loop stands: the scope of its condition */
    jv           seq;
    jv_iter      it;
    jvec         ahead;     /* drained elements, once the length had to be known */
    size_t       ahead_at;
    bool         drained;
    int64_t      index0;    /* -1 before the first element */
    jv           current, before, after;
    bool         has_after; /* after was fetched */
    bool         ended;     /* there is nothing after */
    int64_t      length;    /* -1: not known */
    jv           changed;   /* tuple of the last loop.changed() */
};

jv_loop *jin_loop_start(jin *J, const jnode *node, jv seq) {
    jv_loop *l = jin_alloc(J, sizeof *l);
    l->node = node, l->outer = J->frame, l->seq = seq;
    l->it = jv_iterate(J, seq);
    l->index0 = -1, l->length = -1;
    l->ahead.J = J;
    return l;
}

static bool passes(jin *J, jv_loop *l, jv item) {
    const jnode *cond = l->node->kid.v[2];
    if (cond == NULL) return true;
    jframe *back = J->frame;
    J->frame = jin_push_frame(J, l->outer);
    jin_assign_target(J, l->node->kid.v[0], item);
    const bool pass = jv_true(J, jin_eval(J, cond));
    J->frame = back;
    return pass;
}

/* The next element from the source, skipping those that fail the condition. */
static bool fetch(jin *J, jv_loop *l, jv *out) {
    if (l->drained) {
        if (l->ahead_at >= l->ahead.n) return false;
        *out = l->ahead.v[l->ahead_at++];
        return true;
    }
    while (jv_next(J, &l->it, out))
        if (passes(J, l, *out)) return true;
    return false;
}

static bool peek(jin *J, jv_loop *l) {
    if (!l->has_after && !l->ended) {
        l->has_after = fetch(J, l, &l->after);
        l->ended = !l->has_after;
    }
    return l->has_after;
}

bool jin_loop_next(jin *J, jv_loop *l, jv *out) {
    if (!peek(J, l)) return false;
    l->has_after = false;
    l->index0++;
    l->before = l->current;
    l->current = *out = l->after;
    return true;
}

static int64_t length(jin *J, jv_loop *l) {
    size_t n;
    if (l->length >= 0) return l->length;
    if (l->node->kid.v[2] == NULL && jv_len(J, l->seq, &n)) {
        l->length = (int64_t)n;
        return l->length;
    }
    jv x;
    while (fetch(J, l, &x)) jvec_add(&l->ahead, x);
    l->drained = true;
    l->length = (int64_t)l->ahead.n + l->index0 + 1 + l->has_after;
    return l->length;
}

static bool named(const char *p, size_t n, const char *name) {
    return n == strlen(name) && memcmp(p, name, n) == 0;
}

static jv bound(jin *J, jv obj, int method) {
    jv_bound *b = jin_alloc(J, sizeof *b);
    b->self = obj, b->method = method;
    return (jv){.type = JV_METHOD, .u.bound = b};
}

jv jin_loop_attr(jin *J, jv obj, const char *p, size_t n, bool *found) {
    jv_loop *l = obj.u.loop;
    *found = true;
    if (named(p, n, "index")) return jv_int(l->index0 + 1);
    if (named(p, n, "index0")) return jv_int(l->index0);
    if (named(p, n, "first")) return jv_bool(l->index0 == 0);
    if (named(p, n, "last")) return jv_bool(!peek(J, l));
    if (named(p, n, "length")) return jv_int(length(J, l));
    if (named(p, n, "revindex")) return jv_int(length(J, l) - l->index0);
    if (named(p, n, "revindex0")) return jv_int(length(J, l) - l->index0 - 1);
    if (named(p, n, "depth")) return jv_int(1);
    if (named(p, n, "depth0")) return jv_int(0);
    if (named(p, n, "previtem"))
        return l->index0 > 0 ? l->before : jv_undef(J, "there is no previous item");
    if (named(p, n, "nextitem"))
        return peek(J, l) ? l->after : jv_undef(J, "there is no next item");
    if (named(p, n, "cycle")) return bound(J, obj, 0);
    if (named(p, n, "changed")) return bound(J, obj, 1);
    *found = false;
    return jv_none();
}

jv jin_loop_cycle(jin *J, jv_loop *l, const jargs *a) {
    if (a->n == 0 || a->n_key > 0) jin_fail(J, GDN_E_FORMAT, "no items for cycling given");
    return a->pos[(size_t)l->index0 % a->n];
}

jv jin_loop_changed(jin *J, jv_loop *l, const jargs *a) {
    if (a->n_key > 0) jin_fail(J, GDN_E_FORMAT, "changed takes no keyword arguments");
    const jv now = jv_list(J, a->n, SEQ_TUPLE);
    for (size_t i = 0; i < a->n; i++) now.u.seq->v[i] = a->pos[i];
    if (l->changed.type == JV_SEQ && jv_equal(J, l->changed, now)) return jv_bool(false);
    l->changed = now;
    return jv_bool(true);
}

void jin_loop_print(jin *J, jv_loop *l, jsb *b) {
    char buf[80];
    snprintf(buf, sizeof buf, "<LoopContext %" PRId64 "/%" PRId64 ">", l->index0 + 1, length(J, l));
    jsb_text(b, buf);
}
