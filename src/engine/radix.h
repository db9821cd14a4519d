/* radix.h - a radix tree over token ids: which prefixes have something saved.
 *
 * Nodes stand at the ends of edges that carry tokens; a node may carry one value, which then is
 * saved for the tokens from its root to there.  There is a root for each adapter, because
 * what a prefix leads to depends on it.
 *
 *     root ── system prompt ── [value] ── question 1 ── [value] ── answer ── [value]
 *                                    └─── question 2 ── [value] */
#ifndef GDN_ENGINE_RADIX_H
#define GDN_ENGINE_RADIX_H

#include <stdbool.h>
#include <stdint.h>

typedef struct gdn_radix_node gdn_radix_node;
struct gdn_radix_node {
    gdn_radix_node *parent, *child, *next; /* next: of the parent's children  */
    int32_t *edge;                         /* [n_edge] tokens from the parent */
    int32_t  n_edge, depth;                /* depth: tokens from the root     */
    void    *value;
};

typedef struct {
    uint64_t key; /* of its adapter, 0 none */
    gdn_radix_node root;
} gdn_radix_root;

typedef struct {
    gdn_radix_root **root;
    int32_t n_root;
} gdn_radix;

void gdn_radix_release(gdn_radix *t); /* values are the caller's */

/* The deepest node with a value on the way along tokens, NULL if none; *common: how many tokens
 * agree with anything in the tree. */
gdn_radix_node *gdn_radix_find(const gdn_radix *t, uint64_t key, const int32_t *tokens, int32_t n,
                               int32_t *common);

/* The node for exactly these tokens, made when needed.  NULL: no memory. */
gdn_radix_node *gdn_radix_insert(gdn_radix *t, uint64_t key, const int32_t *tokens, int32_t n);

/* Forget a node's value, and nodes that nothing needs any more. */
void gdn_radix_remove(gdn_radix_node *node);

/* The nearest node above with a value; NULL if none. */
gdn_radix_node *gdn_radix_above(const gdn_radix_node *node);

/* The tokens from the root to the node: [node->depth]. */
void gdn_radix_tokens(const gdn_radix_node *node, int32_t *out);

#endif
