/* cpus.c - affinity mask and control-group quota of the process.
 *
 * Both are how a container or a batch system gives a process part of a machine. Elsewhere
 * than on Linux there is neither. */
#include "cpus.h"

#include <sched.h>
#include <stddef.h>
#include <unistd.h>

#include "cgroup.h"

enum { MAX_CPU = 1 << 16 };

#if defined(__linux__)

/* The mask is as wide as the kernel was built for, so try until it fits. */
static cpu_set_t *mask_get(size_t *size) {
    for (int n = 1024; n <= MAX_CPU; n *= 2) {
        cpu_set_t *set = CPU_ALLOC(n);
        if (set == NULL) return NULL;
        *size = CPU_ALLOC_SIZE(n);
        CPU_ZERO_S(*size, set);
        if (sched_getaffinity(0, *size, set) == 0) return set;
        CPU_FREE(set);
    }
    return NULL;
}

int gdn_cpus_allowed(void) {
    size_t size;
    cpu_set_t *set = mask_get(&size);
    if (set == NULL) return 1;
    const int n = CPU_COUNT_S(size, set);
    CPU_FREE(set);
    return n > 0 ? n : 1;
}

int gdn_cpus_pin(int i) {
    size_t size;
    cpu_set_t *set = mask_get(&size);
    if (set == NULL) return -1;
    const int n = CPU_COUNT_S(size, set);
    int cpu = -1;
    if (n > 0 && i >= 0) {
        int skip = i % n;
        for (cpu = 0; !CPU_ISSET_S(cpu, size, set) || skip-- > 0;) cpu++;
        CPU_ZERO_S(size, set);
        CPU_SET_S(cpu, size, set);
        if (sched_setaffinity(0, size, set) != 0) cpu = -1;
    }
    CPU_FREE(set);
    return cpu;
}

#else

int gdn_cpus_allowed(void) {
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > MAX_CPU ? MAX_CPU : (int)n;
}

int gdn_cpus_pin(int i) {
    (void)i;
    return -1;
}

#endif

int gdn_cpus_quota(const char *proc, const char *root) {
    const double n = gdn_cgroup_limit(proc, root, "cpu.max");
    if (n <= 0) return 0;
    return n < 1 ? 1 : n > MAX_CPU ? MAX_CPU : (int)n;
}

int gdn_cpus_default(void) {
    const int n = gdn_cpus_allowed();
    const int q = gdn_cpus_quota(GDN_CGROUP_PROC, GDN_CGROUP_ROOT);
    return q > 0 && q < n ? q : n;
}
