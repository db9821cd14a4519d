/* xpu_source.h - the text of the OpenCL kernels, which the Makefile puts into the program. */
#ifndef GDN_BACKEND_XPU_SOURCE_H
#define GDN_BACKEND_XPU_SOURCE_H

typedef struct {
    const char          *name; /* of the file, without _xpu.cl */
    const unsigned char *text; /* ends in a NUL                */
} xpu_source;

extern const xpu_source xpu_sources[]; /* the last has no name */

#endif
