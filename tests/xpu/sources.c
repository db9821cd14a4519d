/* sources.c - writes every file of OpenCL kernels as the program gives it to a compiler:
 *
 *     xpu-sources DIR SG     DIR/<file>.cl and DIR/<file>.opt, for sub-groups of SG items */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/backend/xpu_source.h"
#include "../../src/backend/xpu_x.h"

static FILE *open_file(const char *dir, const char *name, const char *end) {
    char path[512];
    snprintf(path, sizeof path, "%.400s/%.60s.%s", dir, name, end);
    FILE *f = fopen(path, "w");
    if (f == NULL) perror(path), exit(1);
    return f;
}

/* name: of the files; file: as the program asks for it. */
static int write_one(const char *dir, const char *name, const char *file, int sg) {
    xpu_text t;
    if (!xpu_text_of(file, sg, false, true, &t)) return 1;
    FILE *f = open_file(dir, name, "cl");
    for (int i = 0; i < t.n; i++) fputs(t.text[i], f);
    if (fclose(f) != 0) return 1;
    f = open_file(dir, name, "opt");
    fputs(t.options, f);
    return fclose(f) != 0;
}

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: xpu-sources DIR SG\n"), 2;
    const int sg = atoi(argv[2]);
    for (const xpu_source *s = xpu_sources; s->name != NULL; s++) {
        if (strcmp(s->name, "xpu_common") == 0 || strcmp(s->name, "xpu_xmx") == 0) continue;
        if (write_one(argv[1], s->name, s->name, sg) != 0) return 1;
        const char *more = xpu_variants_of(s->name);
        for (int n; more != NULL && *more != '\0'; more += n, more += *more == ' ') {
            char name[80], file[80];
            n = (int)strcspn(more, " ");
            snprintf(name, sizeof name, "%.40s-%.*s", s->name, n, more);
            snprintf(file, sizeof file, "%.40s/%.*s", s->name, n, more);
            if (write_one(argv[1], name, file, sg) != 0) return 1;
        }
    }
    return 0;
}
