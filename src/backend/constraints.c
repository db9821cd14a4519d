/* constraints.c - the table of what backends ask of a cache block. */
#include "constraints.h"

#include <stddef.h>
#include <string.h>

static const gdn_device_constraints table[] = {
#define X(name, NAME, kv, gdn) {#name, kv, gdn},
    GDN_CONSTRAINT_LIST(X)
#undef X
};
enum { N_TABLE = sizeof table / sizeof *table };

const gdn_device_constraints *gdn_constraints_at(int i) {
    return i >= 0 && i < N_TABLE ? &table[i] : NULL;
}

const gdn_device_constraints *gdn_constraints_find(const char *device) {
    const size_t n = strcspn(device, ":");
    for (int i = 0; i < N_TABLE; i++)
        if (strlen(table[i].name) == n && memcmp(table[i].name, device, n) == 0) return &table[i];
    return NULL;
}
