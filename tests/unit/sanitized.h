/* sanitized.h - whether this build has sanitizers: they make code ten times slower, so that the
 * longest tests shorten what they do (the plain build does all of it). */
#ifndef GDN_TESTS_SANITIZED_H
#define GDN_TESTS_SANITIZED_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#endif
