/* xpu_real.c - whether the machine has an Intel GPU, found out without OpenCL where there is none.
 *
 * To load OpenCL and ask its platforms takes a tenth of a second and, with a compiler among them, much
 * memory: too much for every start of a program on a machine without such a GPU.  The kernel lists
 * render nodes with the vendor of each; under WSL there is one node for all GPUs. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "xpu.h"

static bool is_intel(const char *node) {
    enum { INTEL = 0x8086 };
    char path[320], text[16] = "";
    snprintf(path, sizeof path, "/sys/class/drm/%.200s/device/vendor", node);
    FILE *f = fopen(path, "r");
    if (f == NULL) return false;
    const bool read = fgets(text, sizeof text, f) != NULL;
    fclose(f);
    return read && strtol(text, NULL, 16) == INTEL;
}

static bool node_there(void) {
    if (access("/dev/dxg", F_OK) == 0) return true;
    DIR *all = opendir("/sys/class/drm");
    if (all == NULL) return access("/dev/dri", F_OK) == 0;
    bool found = false;
    for (struct dirent *e; !found && (e = readdir(all)) != NULL;)
        found = strncmp(e->d_name, "renderD", 7) == 0 && is_intel(e->d_name);
    closedir(all);
    return found;
}

bool xpu_real(void) {
    const xpu_cl_device *d;
    const char *none;
    return node_there() && xpu_cl_devices(&d, &none) > 0 && d[0].intel; /* these come first */
}
