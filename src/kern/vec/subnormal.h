/* subnormal.h - numbers below 2^-126 as zeros, as the processor's bf16 instructions have them anyway:
 * where decays make such numbers, each costs an instruction a hundred cycles.  x86. */
#ifndef GDN_KERN_SUBNORMAL_H
#define GDN_KERN_SUBNORMAL_H

#include <xmmintrin.h>

/* From here on; what to give back at the end. */
static inline unsigned subnormals_off(void) {
    enum { ZEROS_IN = 0x0040, ZEROS_OUT = 0x8000 };
    const unsigned as_it_was = _mm_getcsr();
    _mm_setcsr(as_it_was | ZEROS_IN | ZEROS_OUT);
    return as_it_was;
}
static inline void subnormals_as_before(unsigned as_it_was) { _mm_setcsr(as_it_was); }

#endif
