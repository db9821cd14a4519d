/* switch.c - reading the environment. */
#include "switch.h"

#include <stdlib.h>

const char *gdn_switch_get(gdn_switch s) {
    static const char *const name[] = {
#define X(name_, text) "GDN_" #name_,
        GDN_SWITCH_LIST(X)
#undef X
    };
    return getenv(name[s]);
}
