/* sources.c - writes every file of OpenCL kernels as the program gives it to a compiler:
 *
 *     xpu-sources DIR SG     DIR/<file>.cl and DIR/<file>.opt, for sub-groups of SG items */
#include <stdio.h>
#include <stdlib.h>

#include "../../src/backend/xpu_source.h"
#include "../../src/backend/xpu_x.h"

static FILE *open_file(const char *dir, const char *name, const char *end) {
    char path[512];
    snprintf(path, sizeof path, "%.400s/%.60s.%s", dir, name, end);
    FILE *f = fopen(path, "w");
    if (f == NULL) perror(path), exit(1);
    return f;
}

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: xpu-sources DIR SG\n"), 2;
    for (const xpu_source *s = xpu_sources; s->name != NULL; s++) {
        xpu_text t;
        if (!xpu_text_has_kernels(s->name)) continue;
        if (!xpu_text_of(s->name, atoi(argv[2]), false, true, &t)) return 1;
        FILE *f = open_file(argv[1], s->name, "cl");
        for (int i = 0; i < t.n; i++) fputs(t.text[i], f);
        if (fclose(f) != 0) return 1;
        f = open_file(argv[1], s->name, "opt");
        fputs(t.options, f);
        if (fclose(f) != 0) return 1;
    }
    return 0;
}
