/* test_radix.c - the radix tree against a plain list of arrays. */
#include "engine_check.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 120, LONGEST = 40 };

typedef struct {
    uint64_t key;
    int32_t  tokens[LONGEST], n;
    gdn_radix_node *node;
} entry;

static entry list[MOST];
static int32_t n_entry;
static uint64_t seed;

static int32_t roll(int32_t n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int32_t)((seed >> 33) % (uint64_t)n);
}

static int32_t agree(const entry *a, uint64_t key, const int32_t *tokens, int32_t n) {
    int32_t k = 0;
    while (a->key == key && k < a->n && k < n && a->tokens[k] == tokens[k]) k++;
    return k;
}

/* Few different ids, so that much is shared; often a piece of something there already. */
static int32_t any_tokens(int32_t *tokens) {
    const int32_t n = roll(8) == 0 ? 1 + roll(3) : 1 + roll(LONGEST);
    int32_t from = 0;
    if (n_entry > 0 && roll(3) > 0) {
        const entry *a = list + roll(n_entry);
        from = a->n < n ? a->n : n;
        from -= roll(3) == 0 ? roll(from) : 0;
        memcpy(tokens, a->tokens, (size_t)from * sizeof *tokens);
    }
    for (int32_t i = from; i < n; i++) tokens[i] = roll(3);
    return n;
}

static void check_find(const gdn_radix *t, uint64_t key, const int32_t *tokens, int32_t n) {
    int32_t want_common = 0, common;
    const entry *want = NULL;
    for (int32_t i = 0; i < n_entry; i++) {
        const int32_t k = agree(list + i, key, tokens, n);
        if (k > want_common) want_common = k;
        if (list[i].key == key && k == list[i].n && (want == NULL || k > want->n)) want = list + i;
    }
    const gdn_radix_node *got = gdn_radix_find(t, key, tokens, n, &common);
    assert_int_equal(common, want_common);
    assert_true(got == (want != NULL ? want->node : NULL));
}

static void insert(gdn_radix *t, uint64_t key, const int32_t *tokens, int32_t n) {
    entry *a = NULL;
    for (int32_t i = 0; i < n_entry; i++)
        if (list[i].n == n && agree(list + i, key, tokens, n) == n) a = list + i;
    if (a == NULL && n_entry == MOST) return;
    gdn_radix_node *node = gdn_radix_insert(t, key, tokens, n);
    assert_non_null(node);
    assert_int_equal(node->depth, n);
    if (a != NULL) assert_true(node == a->node);
    else {
        assert_null(node->value);
        a = list + n_entry++;
        *a = (entry){.key = key, .n = n, .node = node};
        memcpy(a->tokens, tokens, (size_t)n * sizeof *tokens);
    }
    node->value = node; /* entries move, nodes stay */
}

static void check_all(const gdn_radix *t) {
    int32_t tokens[LONGEST];
    assert_int_equal(check_radix(t, true), n_entry);
    for (int32_t i = 0; i < n_entry; i++) {
        const entry *a = list + i, *above = NULL;
        gdn_radix_tokens(a->node, tokens);
        assert_memory_equal(tokens, a->tokens, (size_t)a->n * sizeof *tokens);
        for (int32_t k = 0; k < n_entry; k++)
            if (list[k].n < a->n && agree(list + k, a->key, a->tokens, a->n) == list[k].n &&
                list[k].key == a->key && (above == NULL || list[k].n > above->n))
                above = list + k;
        assert_true(gdn_radix_above(a->node) == (above != NULL ? above->node : NULL));
    }
}

static void test_random(void **state) {
    (void)state;
    for (int run = 0; run < 20; run++) {
        gdn_radix t = {0};
        int32_t tokens[LONGEST];
        seed = 100 + (uint64_t)run;
        n_entry = 0;
        const int32_t grows = 30 + 3 * run; /* of 100 */
        for (int step = 0; step < 600; step++) {
            const uint64_t key = (uint64_t)roll(3) * 0x100000001u;
            const int32_t n = any_tokens(tokens), what = roll(100);
            if (what < grows) insert(&t, key, tokens, n);
            else if (what < 90 && n_entry > 0) {
                const int32_t i = roll(n_entry);
                gdn_radix_remove(list[i].node);
                list[i] = list[--n_entry];
            }
            check_find(&t, key, tokens, n);
            check_find(&t, 77, tokens, n); /* a key that nobody used */
            if (step % 10 == 0) check_all(&t);
        }
        check_all(&t);
        if (run % 2 == 0) {
            while (n_entry > 0) gdn_radix_remove(list[--n_entry].node);
            assert_int_equal(check_radix(&t, true), 0);
            for (int32_t i = 0; i < t.n_root; i++) assert_null(t.root[i]->root.child);
        }
        gdn_radix_release(&t); /* with what is left in it */
        assert_int_equal(t.n_root, 0);
    }
}

/* One long chain of nodes of one token each, taken apart from its root. */
static void test_deep(void **state) {
    (void)state;
    enum { DEEP = 3000 };
    gdn_radix t = {0};
    int32_t *tokens = random_ids(DEEP, 5, 1), common;
    gdn_radix_node **node = malloc(DEEP * sizeof(gdn_radix_node *));
    assert_non_null(node);
    for (int32_t n = DEEP; n > 0; n--) {
        node[n - 1] = gdn_radix_insert(&t, 0, tokens, n);
        assert_non_null(node[n - 1]);
        node[n - 1]->value = tokens;
    }
    for (int32_t n = 1; n <= DEEP; n += 97) {
        assert_true(gdn_radix_find(&t, 0, tokens, n, &common) == node[n - 1]);
        assert_int_equal(common, n);
    }
    for (int32_t n = 1; n < DEEP; n++) gdn_radix_remove(node[n - 1]);
    assert_int_equal(check_radix(&t, true), 1);
    assert_int_equal(node[DEEP - 1]->n_edge, DEEP);
    gdn_radix_release(&t);
    free(node);
    free(tokens);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_deep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
