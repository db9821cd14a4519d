/* cpus.h - how many CPUs this process may use, and which. */
#ifndef GDN_BASE_CPUS_H
#define GDN_BASE_CPUS_H

/* CPUs in the affinity mask; at least 1. */
int gdn_cpus_allowed(void);

/* Bind the calling thread to the i-th CPU of the mask, counted round and round.  Returns
 * the CPU's number, or -1 where that is not possible. */
int gdn_cpus_pin(int i);

/* Whole CPUs' worth of time that the control group grants, at least 1; 0: no limit.  For
 * the arguments see cgroup.h.  A fraction is dropped: a thread beyond the quota stops all
 * of them for the rest of a period. */
int gdn_cpus_quota(const char *proc, const char *root);

/* The threads to start when nobody says: the mask, within the quota. */
int gdn_cpus_default(void);

#endif
