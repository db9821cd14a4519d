/* jinja_print.c - values as text: Python's str() and repr(), HTML escapes, and tojson. */
#include "jinja_eval.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../base/json.h"

static void print(jsb *b, jv v);

static void print_int(jsb *b, int64_t i) {
    char buf[32];
    jsb_add(b, buf, (size_t)snprintf(buf, sizeof buf, "%" PRId64, i));
}

/* A string as a literal: single quotes, unless only those occur inside. */
static void print_quoted(jsb *b, const char *p, size_t n) {
    const bool has1 = n > 0 && memchr(p, '\'', n) != NULL, has2 = n > 0 && memchr(p, '"', n) != NULL;
    const char quote = has1 && !has2 ? '"' : '\'';
    char       buf[16];
    jsb_char(b, quote);
    for (size_t i = 0, used; i < n; i += used) {
        const uint32_t c = jt_decode(p + i, n - i, &used);
        if (c == (uint32_t)quote || c == '\\') {
            jsb_char(b, '\\');
            jsb_char(b, (char)c);
        } else if (c == '\n' || c == '\r' || c == '\t') {
            jsb_text(b, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        } else if (jt_printable(c)) {
            jsb_add(b, p + i, used);
        } else {
            if (c < 0x100) snprintf(buf, sizeof buf, "\\x%02x", (unsigned)c);
            else if (c < 0x10000) snprintf(buf, sizeof buf, "\\u%04x", (unsigned)c);
            else snprintf(buf, sizeof buf, "\\U%08x", (unsigned)c);
            jsb_text(b, buf);
        }
    }
    jsb_char(b, quote);
}

static void print_items(jsb *b, const jv *v, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (i > 0) jsb_add(b, ", ", 2);
        print(b, v[i]);
    }
}

static void print_seq(jsb *b, const jv_seq *s, const jv *v) {
    switch ((seq_kind)s->kind) {
    case SEQ_LIST:
        jsb_char(b, '[');
        print_items(b, s->v, s->n);
        jsb_char(b, ']');
        return;
    case SEQ_TUPLE:
        jsb_char(b, '(');
        print_items(b, s->v, s->n);
        jsb_text(b, s->n == 1 ? ",)" : ")");
        return;
    case SEQ_RANGE:
        jsb_text(b, "range(");
        print_int(b, s->start);
        jsb_text(b, ", ");
        print_int(b, s->stop);
        if (s->step != 1) {
            jsb_text(b, ", ");
            print_int(b, s->step);
        }
        jsb_char(b, ')');
        return;
    case SEQ_KEYS:
    case SEQ_VALUES:
    case SEQ_ITEMS:
        jsb_text(b, jv_type_name(v));
        jsb_text(b, "([");
        print_items(b, s->v, s->n);
        jsb_text(b, "])");
        return;
    case SEQ_GEN: break;
    }
    jin_fail(b->J, GDN_E_FORMAT, "a generator has no printed form (use |list)");
}

static void print_dict(jsb *b, const jv_dict *d) {
    jsb_char(b, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i > 0) jsb_add(b, ", ", 2);
        print(b, d->key[i]);
        jsb_add(b, ": ", 2);
        print(b, d->val[i]);
    }
    jsb_char(b, '}');
}

static void print(jsb *b, jv v) {
    char buf[GDN_JSON_DOUBLE_MAX];
    jin_work(b->J, 1);
    jin_enter(b->J, JIN_DEPTH_DATA);
    switch ((jv_type)v.type) {
    case JV_MISSING:
    case JV_UNDEF: jsb_text(b, "Undefined"); break;
    case JV_NONE: jsb_text(b, "None"); break;
    case JV_BOOL: jsb_text(b, v.u.i ? "True" : "False"); break;
    case JV_INT: print_int(b, v.u.i); break;
    case JV_FLOAT: jsb_add(b, buf, gdn_json_repr(v.u.f, buf)); break;
    case JV_STR:
        if (v.safe) jsb_text(b, "Markup(");
        print_quoted(b, v.u.s.p, v.u.s.n);
        if (v.safe) jsb_char(b, ')');
        break;
    case JV_SEQ: print_seq(b, v.u.seq, &v); break;
    case JV_DICT: print_dict(b, v.u.dict); break;
    case JV_NS:
        jsb_text(b, "<Namespace ");
        print_dict(b, v.u.dict);
        jsb_char(b, '>');
        break;
    case JV_MACRO:
        jsb_text(b, "<Macro ");
        print(b, v.u.macro->name);
        jsb_char(b, '>');
        break;
    case JV_LOOP: jin_loop_print(b->J, v.u.loop, b); break;
    case JV_FUNC:
    case JV_METHOD: jin_fail(b->J, GDN_E_FORMAT, "a function has no printed form (call it)");
    }
    jin_leave(b->J);
}

jv jin_repr(jin *J, jv v) {
    jsb b = {.J = J};
    print(&b, v);
    return jsb_done(&b);
}

jv jin_str(jin *J, jv v) {
    if (v.type == JV_STR) return v;
    if (v.type == JV_UNDEF) return jv_str("", 0);
    return jin_repr(J, v);
}

jv jin_escape(jin *J, jv v) {
    if (v.type == JV_STR && v.safe) return v;
    const jv s = jin_str(J, v);
    jsb      b = {.J = J};
    for (size_t i = 0; i < s.u.s.n; i++) {
        switch (s.u.s.p[i]) {
        case '&': jsb_text(&b, "&amp;"); break;
        case '<': jsb_text(&b, "&lt;"); break;
        case '>': jsb_text(&b, "&gt;"); break;
        case '"': jsb_text(&b, "&#34;"); break;
        case '\'': jsb_text(&b, "&#39;"); break;
        default: jsb_char(&b, s.u.s.p[i]);
        }
    }
    jv r = jsb_done(&b);
    r.safe = true;
    return r;
}

/* --- tojson ------------------------------------------------------------------------------------- */

typedef struct {
    jsb            b;
    gdn_json_style style;
} json_out;

static void json_put(void *ctx, const char *p, size_t n) { jsb_add(&((json_out *)ctx)->b, p, n); }

static void json_value(json_out *o, jv v, size_t level);

static void json_key(json_out *o, jv key) {
    char buf[GDN_JSON_DOUBLE_MAX];
    switch ((jv_type)key.type) {
    case JV_STR: gdn_json_string(json_put, o, key.u.s.p, key.u.s.n, o->style.ascii); return;
    case JV_BOOL: jsb_text(&o->b, key.u.i ? "\"true\"" : "\"false\""); return;
    case JV_NONE: jsb_text(&o->b, "\"null\""); return;
    case JV_INT:
        jsb_char(&o->b, '"');
        print_int(&o->b, key.u.i);
        jsb_char(&o->b, '"');
        return;
    case JV_FLOAT:
        jsb_char(&o->b, '"');
        jsb_add(&o->b, buf, gdn_json_double(key.u.f, buf));
        jsb_char(&o->b, '"');
        return;
    default:
        jin_fail(o->b.J, GDN_E_FORMAT, "tojson: a key of type %s", jv_type_name(&key));
    }
}

/* The order in which members are printed: as they are, or by key (insertion keeps equal
 * keys in place, and there are none). */
static size_t *json_order(json_out *o, const jv_dict *d) {
    size_t *at = jin_array(o->b.J, d->n + 1, sizeof *at), *tmp;
    for (size_t i = 0; i < d->n; i++) at[i] = i;
    if (!o->style.sort) return at;
    tmp = jin_array(o->b.J, d->n + 1, sizeof *tmp);
    for (size_t w = 1; w < d->n; w *= 2) { /* merge sort: runs of w into runs of 2w */
        for (size_t lo = 0; lo < d->n; lo += 2 * w) {
            const size_t mid = lo + w < d->n ? lo + w : d->n, hi = lo + 2 * w < d->n ? lo + 2 * w : d->n;
            size_t       i = lo, j = mid;
            for (size_t k = lo; k < hi; k++) {
                const bool left = j >= hi || (i < mid && jv_order(o->b.J, d->key[at[i]], d->key[at[j]]) <= 0);
                tmp[k] = left ? at[i++] : at[j++];
            }
        }
        memcpy(at, tmp, d->n * sizeof *at);
    }
    return at;
}

static void json_dict(json_out *o, const jv_dict *d, size_t level) {
    const size_t *at = json_order(o, d);
    jsb_char(&o->b, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i > 0) jsb_add(&o->b, o->style.item, o->style.n_item);
        gdn_json_break(&o->style, json_put, o, level + 1);
        json_key(o, d->key[at[i]]);
        jsb_add(&o->b, o->style.colon, o->style.n_colon);
        json_value(o, d->val[at[i]], level + 1);
    }
    if (d->n > 0) gdn_json_break(&o->style, json_put, o, level);
    jsb_char(&o->b, '}');
}

static void json_list(json_out *o, const jv_seq *s, size_t level) {
    jsb_char(&o->b, '[');
    for (size_t i = 0; i < s->n; i++) {
        if (i > 0) jsb_add(&o->b, o->style.item, o->style.n_item);
        gdn_json_break(&o->style, json_put, o, level + 1);
        json_value(o, s->v[i], level + 1);
    }
    if (s->n > 0) gdn_json_break(&o->style, json_put, o, level);
    jsb_char(&o->b, ']');
}

static void json_value(json_out *o, jv v, size_t level) {
    char buf[GDN_JSON_DOUBLE_MAX];
    jin *J = o->b.J;
    jin_work(J, 1);
    jin_enter(J, JIN_DEPTH_DATA);
    switch ((jv_type)v.type) {
    case JV_NONE: jsb_text(&o->b, "null"); break;
    case JV_BOOL: jsb_text(&o->b, v.u.i ? "true" : "false"); break;
    case JV_INT: print_int(&o->b, v.u.i); break;
    case JV_FLOAT: jsb_add(&o->b, buf, gdn_json_double(v.u.f, buf)); break;
    case JV_STR: gdn_json_string(json_put, o, v.u.s.p, v.u.s.n, o->style.ascii); break;
    case JV_DICT: json_dict(o, v.u.dict, level); break;
    case JV_SEQ:
        if (v.u.seq->kind <= SEQ_TUPLE) {
            json_list(o, v.u.seq, level);
            break;
        }
        /* fall through */
    default: jin_fail(J, GDN_E_FORMAT, "tojson: %s is not JSON", jv_type_name(&v));
    }
    jin_leave(J);
}

/* Indentation is a text, or so many spaces. */
static void json_indent(jin *J, jv v, gdn_json_style *s) {
    if (v.type == JV_MISSING || v.type == JV_NONE) return;
    if (v.type == JV_STR) {
        s->indent = v.u.s.p, s->n_indent = v.u.s.n;
        return;
    }
    const int64_t n = jin_arg_int(J, "tojson", v, 0);
    if (n > 1000) jin_fail(J, GDN_E_FULL, "tojson: indent %lld", (long long)n);
    s->n_indent = n > 0 ? (size_t)n : 0;
    char *p = jin_alloc(J, s->n_indent + 1);
    memset(p, ' ', s->n_indent);
    s->indent = p;
}

jv jin_tojson(jin *J, jv v, const jargs *a) {
    jv       arg[5];
    json_out o = {.b = {.J = J}};
    jin_bind(J, "tojson", a, "ensure_ascii,indent,separators,sort_keys", arg);
    o.style.ascii = jin_arg_bool(J, arg[0], false);
    o.style.sort = jin_arg_bool(J, arg[3], false);
    json_indent(J, arg[1], &o.style);
    if (arg[2].type != JV_MISSING && arg[2].type != JV_NONE) {
        const jv sep = jv_to_list(J, arg[2], SEQ_LIST);
        if (sep.u.seq->n != 2 || sep.u.seq->v[0].type != JV_STR || sep.u.seq->v[1].type != JV_STR)
            jin_fail(J, GDN_E_FORMAT, "tojson: separators must be two strings");
        o.style.item = sep.u.seq->v[0].u.s.p, o.style.n_item = sep.u.seq->v[0].u.s.n;
        o.style.colon = sep.u.seq->v[1].u.s.p, o.style.n_colon = sep.u.seq->v[1].u.s.n;
    }
    gdn_json_style_init(&o.style);
    json_value(&o, v, 0);
    return jsb_done(&o.b);
}
