/* jinja_string.h - string work that methods and filters share. */
#ifndef GDN_TEXT_JINJA_STRING_H
#define GDN_TEXT_JINJA_STRING_H

#include "jinja_eval.h"

typedef struct {
    const char *name;
    jv (*fn)(jin *J, jv self, const jargs *a); /* NULL: changes its object, refused */
} jin_method_entry;

const jin_method_entry *jin_string_methods(size_t *n);

jv   jin_strip(jin *J, jv s, jv chars, bool left, bool right); /* chars none: white space */
jv   jin_replace(jin *J, jv s, jv from, jv to, int64_t count); /* count < 0: all */
jv   jin_map_case(jin *J, jv s, jt_case how);
jv   jin_capitalize(jin *J, jv s);
jv   jin_join(jin *J, jv sep, jv seq, bool strict); /* strict: elements must be strings */
jv   jin_split_lines(jin *J, jv s, bool keep_ends);
jv   jin_pad(jin *J, jv s, int64_t width, uint32_t fill, int side); /* -1 left, 0 both, 1 right */
jv   jin_dict_items(jin *J, jv d, seq_kind kind);

#endif
