/* cgroup.c - reading a limit of a version-2 control group.
 *
 * A container and a batch system give a process part of a machine this way.  A file holds
 * one number, or a quota and the period it is for ("150000 100000": one and a half CPUs),
 * or "max". Version 1 has no files of these names, so there nothing is found. */
#include "cgroup.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The path of the group, from the line "0::PATH".  That of a group outside the view of a
 * container starts with "/.."; its limits cannot be read. */
static bool group_path(const char *proc, char *path, size_t size) {
    FILE *f = fopen(proc, "r");
    if (f == NULL) return false;
    char line[4096];
    bool found = false;
    while (!found && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "0::/", 4) != 0 || strncmp(line + 3, "/..", 3) == 0) continue;
        found = (size_t)snprintf(path, size, "%s", line + 3) < size;
    }
    fclose(f);
    return found;
}

static double limit_in(const char *root, const char *path, const char *file) {
    char name[8192];
    if ((size_t)snprintf(name, sizeof name, "%s%s/%s", root, path, file) >= sizeof name)
        return 0;
    FILE *f = fopen(name, "r");
    if (f == NULL) return 0;
    double limit = 0, period = 1;
    const int n = fscanf(f, "%40lf %40lf", &limit, &period);
    fclose(f);
    return n >= 1 && period > 0 ? limit / period : 0;
}

double gdn_cgroup_limit(const char *proc, const char *root, const char *file) {
    char path[4096];
    if (!group_path(proc, path, sizeof path)) return 0;
    double best = 0;
    for (;;) {
        if (strcmp(path, "/") == 0) path[0] = '\0';
        const double x = limit_in(root, path, file);
        if (x > 0 && (best <= 0 || x < best)) best = x;
        if (path[0] == '\0') return best;
        *strrchr(path, '/') = '\0';
    }
}
