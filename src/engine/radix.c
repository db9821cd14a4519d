/* radix.c - a radix tree over token ids. */
#include "radix.h"

#include <stdlib.h>
#include <string.h>

static void free_below(gdn_radix_node *node) {
    /* Bottom up without recursion: a tree may be as deep as a conversation is long. */
    gdn_radix_node *at = node;
    for (;;) {
        while (at->child != NULL) at = at->child;
        if (at == node) return;
        gdn_radix_node *up = at->parent;
        up->child = at->next;
        free(at->edge);
        free(at);
        at = up;
    }
}

void gdn_radix_release(gdn_radix *t) {
    for (int32_t i = 0; i < t->n_root; i++) {
        free_below(&t->root[i]->root);
        free(t->root[i]);
    }
    free(t->root);
    *t = (gdn_radix){0};
}

static gdn_radix_root *root_of(const gdn_radix *t, uint64_t key) {
    for (int32_t i = 0; i < t->n_root; i++)
        if (t->root[i]->key == key) return t->root[i];
    return NULL;
}

static gdn_radix_node *child_with(const gdn_radix_node *node, int32_t token) {
    gdn_radix_node *c = node->child;
    while (c != NULL && c->edge[0] != token) c = c->next;
    return c;
}

static int32_t agree(const int32_t *a, const int32_t *b, int32_t n) {
    int32_t i = 0;
    while (i < n && a[i] == b[i]) i++;
    return i;
}

static int32_t min32(int32_t a, int32_t b) { return a < b ? a : b; }

gdn_radix_node *gdn_radix_find(const gdn_radix *t, uint64_t key, const int32_t *tokens,
                               int32_t n, int32_t *common) {
    gdn_radix_root *r = root_of(t, key);
    gdn_radix_node *best = NULL, *at = r != NULL ? &r->root : NULL;
    *common = 0;
    while (at != NULL) {
        *common = at->depth;
        if (at->value != NULL) best = at;
        gdn_radix_node *c = at->depth < n ? child_with(at, tokens[at->depth]) : NULL;
        if (c == NULL) break;
        const int32_t k = agree(c->edge, tokens + at->depth, min32(c->n_edge, n - at->depth));
        *common = at->depth + k;
        if (k < c->n_edge) break;
        at = c;
    }
    return best;
}

static gdn_radix_node *new_node(gdn_radix_node *parent, const int32_t *edge, int32_t n) {
    gdn_radix_node *c = calloc(1, sizeof *c);
    if (c == NULL || (c->edge = malloc((size_t)n * sizeof *edge)) == NULL) {
        free(c);
        return NULL;
    }
    memcpy(c->edge, edge, (size_t)n * sizeof *edge);
    c->n_edge = n;
    c->depth = parent->depth + n;
    c->parent = parent;
    return c;
}

static gdn_radix_node **link_to(gdn_radix_node *node) {
    gdn_radix_node **p = &node->parent->child;
    while (*p != node) p = &(*p)->next;
    return p;
}

/* Cut the edge to `node` after k tokens and return the node in between. */
static gdn_radix_node *split(gdn_radix_node *node, int32_t k) {
    gdn_radix_node *mid = new_node(node->parent, node->edge, k);
    if (mid == NULL) return NULL;
    gdn_radix_node **p = link_to(node);
    mid->next = node->next;
    *p = mid;
    mid->child = node;
    node->next = NULL;
    node->parent = mid;
    node->n_edge -= k;
    memmove(node->edge, node->edge + k, (size_t)node->n_edge * sizeof *node->edge);
    return mid;
}

gdn_radix_node *gdn_radix_insert(gdn_radix *t, uint64_t key, const int32_t *tokens, int32_t n) {
    gdn_radix_root *r = root_of(t, key);
    if (r == NULL) {
        gdn_radix_root **more = realloc(t->root, ((size_t)t->n_root + 1) * sizeof *more);
        if (more == NULL) return NULL;
        t->root = more;
        if ((r = calloc(1, sizeof *r)) == NULL) return NULL;
        r->key = key;
        t->root[t->n_root++] = r;
    }
    gdn_radix_node *at = &r->root;
    while (at->depth < n) {
        gdn_radix_node *c = child_with(at, tokens[at->depth]);
        if (c == NULL) {
            c = new_node(at, tokens + at->depth, n - at->depth);
            if (c == NULL) return NULL;
            c->next = at->child;
            at->child = c;
            return c;
        }
        const int32_t k = agree(c->edge, tokens + at->depth, min32(c->n_edge, n - at->depth));
        if (k < c->n_edge && (c = split(c, k)) == NULL) return NULL;
        at = c;
    }
    return at;
}

void gdn_radix_remove(gdn_radix_node *node) {
    node->value = NULL;
    while (node->parent != NULL && node->value == NULL && node->child == NULL) {
        gdn_radix_node *up = node->parent;
        *link_to(node) = node->next;
        free(node->edge);
        free(node);
        node = up;
    }
    gdn_radix_node *c = node->child;
    if (node->parent == NULL || node->value != NULL || c == NULL || c->next != NULL) return;
    /* One child and no value: the two edges become one. */
    int32_t *edge = malloc(((size_t)node->n_edge + (size_t)c->n_edge) * sizeof *edge);
    if (edge == NULL) return; /* the longer tree is right, too */
    memcpy(edge, node->edge, (size_t)node->n_edge * sizeof *edge);
    memcpy(edge + node->n_edge, c->edge, (size_t)c->n_edge * sizeof *edge);
    free(c->edge);
    c->edge = edge;
    c->n_edge += node->n_edge;
    c->parent = node->parent;
    c->next = node->next;
    *link_to(node) = c;
    free(node->edge);
    free(node);
}

gdn_radix_node *gdn_radix_above(const gdn_radix_node *node) {
    gdn_radix_node *at = node->parent;
    while (at != NULL && at->value == NULL) at = at->parent;
    return at;
}

void gdn_radix_tokens(const gdn_radix_node *node, int32_t *out) {
    for (; node->parent != NULL; node = node->parent)
        memcpy(out + node->depth - node->n_edge, node->edge, (size_t)node->n_edge * sizeof *out);
}
