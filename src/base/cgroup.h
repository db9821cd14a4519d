/* cgroup.h - what the control group of this process grants. */
#ifndef GDN_BASE_CGROUP_H
#define GDN_BASE_CGROUP_H

#define GDN_CGROUP_PROC "/proc/self/cgroup" /* names the group        */
#define GDN_CGROUP_ROOT "/sys/fs/cgroup"    /* where groups are found */

/* The smallest limit in `file` ("cpu.max", in CPUs; "memory.max", in bytes) of the group
 * and the groups above it; 0: no limit, or none that can be read.
 *
 *   proc, root  GDN_CGROUP_PROC, GDN_CGROUP_ROOT; a test has others */
double gdn_cgroup_limit(const char *proc, const char *root, const char *file);

#endif
