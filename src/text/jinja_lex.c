/* jinja_lex.c - a template's source as tokens.
 *
 *     text --{{--> expression --}}--> text        -  strips white space on its side
 *     text --{%--> statement  --%}--> text        +  keeps it
 *     text --{#--> comment    --#}--> text
 *     text --{% raw %}--> text as it is --{% endraw %}--> text
 *
 * Without a sign, white space between the start of a line and {% or {# goes, and so does
 * one newline after %} or #} (lstrip_blocks and trim_blocks of Jinja2). */
#include "jinja_lex.h"

#include <string.h>

#include "../base/json.h"
#include "jinja_text.h"

typedef struct {
    jin        *J;
    const char *p;
    size_t      n, at;
    int         line;
    bool        line_start; /* the last match ended in a newline */
    jtok       *tok;
    size_t      n_tok, cap_tok;
    char        open[128];  /* brackets of the tag being read */
    int         n_open;
} lexer;

static const struct {
    char      text[3];
    jtok_kind kind;
} operators[] = {
    {"//", T_FLOORDIV}, {"**", T_POW},    {"==", T_EQ},     {"!=", T_NE},     {">=", T_GE},
    {"<=", T_LE},       {"+", T_ADD},     {"-", T_SUB},     {"/", T_DIV},     {"*", T_MUL},
    {"%", T_MOD},       {"~", T_TILDE},   {"[", T_LBRACKET}, {"]", T_RBRACKET}, {"(", T_LPAREN},
    {")", T_RPAREN},    {"{", T_LBRACE},  {"}", T_RBRACE},  {">", T_GT},      {"<", T_LT},
    {"=", T_ASSIGN},    {".", T_DOT},     {":", T_COLON},   {"|", T_PIPE},    {",", T_COMMA},
    {";", T_SEMICOLON},
};

const char *jin_tok_name(jtok_kind kind) {
    switch (kind) {
    case T_EOF: return "end of template";
    case T_DATA: return "text";
    case T_VAR_BEGIN: return "{{";
    case T_VAR_END: return "}}";
    case T_BLOCK_BEGIN: return "{%";
    case T_BLOCK_END: return "%}";
    case T_NAME: return "name";
    case T_STRING: return "string";
    case T_INT: return "integer";
    case T_FLOAT: return "float";
    default: break;
    }
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (operators[i].kind == kind) return operators[i].text;
    return "?";
}

static bool see(const lexer *l, size_t at, const char *s) {
    const size_t k = strlen(s);
    return k <= l->n - at && memcmp(l->p + at, s, k) == 0;
}

static size_t skip_space(const lexer *l, size_t at) {
    return at + jt_lspace(l->p + at, l->n - at);
}

static void add_token(lexer *l, jtok_kind kind, jv val) {
    if (l->n_tok == l->cap_tok) {
        const size_t cap = l->cap_tok == 0 ? 256 : 2 * l->cap_tok;
        jtok        *t = jin_array(l->J, cap, sizeof *t);
        if (l->n_tok > 0) memcpy(t, l->tok, l->n_tok * sizeof *t);
        l->tok = t, l->cap_tok = cap;
    }
    l->tok[l->n_tok++] = (jtok){.kind = (uint8_t)kind, .line = l->line, .val = val};
}

/* Move on to `to`, counting lines. */
static void advance(lexer *l, size_t to) {
    for (size_t i = l->at; i < to; i++) l->line += l->p[i] == '\n';
    if (to > l->at) l->line_start = l->p[to - 1] == '\n';
    l->at = to;
    l->J->line = l->line;
}

/* The text from l->at to end, which stands before a tag with this sign. */
static void add_text(lexer *l, size_t end, char sign, bool is_variable) {
    const char *p = l->p + l->at;
    size_t      n = end - l->at;
    if (sign == '-') {
        n = jt_rstrip(p, n);
    } else if (sign != '+' && !is_variable) {
        size_t line = n;
        while (line > 0 && p[line - 1] != '\n') line--;
        if ((line > 0 || l->line_start) && jt_lspace(p + line, n - line) == n - line) n = line;
    }
    if (n > 0) add_token(l, T_DATA, jv_str(p, n));
}

/* Where a tag's end at `at` ends: "+%}", "-%}" with white space, "%}" with a newline.
 * 0: there is none. */
static size_t tag_end(const lexer *l, size_t at, const char *mark, bool trim, bool plus) {
    if (plus && see(l, at, "+") && see(l, at + 1, mark)) return at + 3;
    if (see(l, at, "-") && see(l, at + 1, mark)) return skip_space(l, at + 3);
    if (!see(l, at, mark)) return 0;
    return trim && see(l, at + 2, "\n") ? at + 3 : at + 2;
}

/* {% WORD %} at `at`, after the "{%": its end, or 0. */
static size_t word_tag(const lexer *l, size_t at, const char *word, bool trim) {
    if (at < l->n && (l->p[at] == '-' || l->p[at] == '+')) at++;
    at = skip_space(l, at);
    if (!see(l, at, word)) return 0;
    at = skip_space(l, at + strlen(word));
    return tag_end(l, at, "%}", trim, trim);
}

static char sign_at(const lexer *l, size_t at) {
    return at < l->n && (l->p[at] == '-' || l->p[at] == '+') ? l->p[at] : '\0';
}

static void lex_comment(lexer *l) {
    for (size_t at = l->at; at < l->n; at++) {
        const size_t end = tag_end(l, at, "#}", true, true);
        if (end == 0) continue;
        advance(l, end);
        return;
    }
    jin_fail(l->J, GDN_E_FORMAT, "missing end of comment");
}

static void lex_raw(lexer *l) {
    for (size_t at = l->at; at < l->n; at++) {
        if (!see(l, at, "{%")) continue;
        const size_t end = word_tag(l, at + 2, "endraw", true);
        if (end == 0) continue;
        add_text(l, at, sign_at(l, at + 2), false);
        advance(l, end);
        return;
    }
    jin_fail(l->J, GDN_E_FORMAT, "missing end of raw");
}

static uint32_t hex(lexer *l, const char *p, size_t n, size_t digits) {
    uint32_t c = 0;
    if (n < digits) jin_fail(l->J, GDN_E_FORMAT, "truncated escape in a string");
    for (size_t i = 0; i < digits; i++) {
        const char     *set = "0123456789abcdef";
        const char      low = (char)(p[i] >= 'A' && p[i] <= 'F' ? p[i] + 32 : p[i]);
        const char     *at = low == '\0' ? NULL : strchr(set, low);
        if (at == NULL) jin_fail(l->J, GDN_E_FORMAT, "bad escape in a string");
        c = c << 4 | (uint32_t)(at - set);
    }
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        jin_fail(l->J, GDN_E_FORMAT, "escape of U+%X, which is not a character", (unsigned)c);
    return c;
}

/* One escape at p, after the backslash; returns the bytes used. */
static size_t escape(lexer *l, jsb *b, const char *p, size_t n) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char       *at = *p == '\0' ? NULL : strchr(from, *p);
    if (at != NULL) {
        jsb_char(b, to[at - from]);
        return 1;
    }
    if (*p == '\n') return 1;
    if (*p >= '0' && *p <= '7') {
        uint32_t c = 0;
        size_t   i = 0;
        while (i < 3 && i < n && p[i] >= '0' && p[i] <= '7') c = c * 8 + (uint32_t)(p[i++] - '0');
        jsb_rune(b, c);
        return i;
    }
    const size_t digits = *p == 'x' ? 2 : *p == 'u' ? 4 : *p == 'U' ? 8 : 0;
    if (digits > 0) {
        jsb_rune(b, hex(l, p + 1, n - 1, digits));
        return 1 + digits;
    }
    if (*p == 'N') jin_fail(l->J, GDN_E_FORMAT, "escape \\N{...} is not supported");
    jsb_char(b, '\\'); /* an unknown escape stays as it is */
    return 0;
}

static bool lex_string(lexer *l) {
    const char quote = l->p[l->at];
    if (quote != '\'' && quote != '"') return false;
    size_t end = l->at + 1;
    bool   plain = true;
    while (end < l->n && l->p[end] != quote) {
        if (l->p[end] == '\\') plain = false, end++;
        end++;
    }
    if (end >= l->n) return false;
    const char  *p = l->p + l->at + 1;
    const size_t n = end - l->at - 1;
    if (plain) {
        add_token(l, T_STRING, jv_str(p, n));
    } else {
        jsb b = {.J = l->J};
        for (size_t i = 0; i < n;) {
            if (p[i] == '\\') {
                i++;
                i += escape(l, &b, p + i, n - i);
            } else {
                jsb_char(&b, p[i++]);
            }
        }
        add_token(l, T_STRING, jsb_done(&b));
    }
    advance(l, end + 1);
    return true;
}

static bool is_digit(const lexer *l, size_t at) {
    return at < l->n && l->p[at] >= '0' && l->p[at] <= '9';
}

/* Digits with single underscores between them. */
static size_t skip_digits(const lexer *l, size_t at) {
    while (is_digit(l, at) || (at < l->n && l->p[at] == '_' && is_digit(l, at + 1))) at++;
    return at;
}

static bool lex_float(lexer *l) {
    if (!is_digit(l, l->at) || (l->at > 0 && l->p[l->at - 1] == '.')) return false;
    const size_t whole = skip_digits(l, l->at);
    size_t       end = whole;
    if (see(l, end, ".") && is_digit(l, end + 1)) end = skip_digits(l, end + 1);
    if (end < l->n && (l->p[end] == 'e' || l->p[end] == 'E')) {
        size_t e = end + 1;
        if (e < l->n && (l->p[e] == '+' || l->p[e] == '-')) e++;
        if (is_digit(l, e)) end = skip_digits(l, e);
    }
    if (end == whole) return false;
    double f;
    if (!gdn_json_parse_double(l->p + l->at, end - l->at, &f))
        jin_fail(l->J, GDN_E_FORMAT, "float literal of %zu digits", end - l->at);
    add_token(l, T_FLOAT, jv_float(f));
    advance(l, end);
    return true;
}

static int digit_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return 99;
}

static bool lex_integer(lexer *l) {
    if (!is_digit(l, l->at)) return false;
    size_t     at = l->at;
    int        base = 10;
    const char c = at + 1 < l->n ? (char)(l->p[at + 1] | 32) : '\0';
    if (l->p[at] == '0') {
        base = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 10;
        const size_t first = at + 2 + (at + 2 < l->n && l->p[at + 2] == '_');
        if (base != 10 && (first >= l->n || digit_value(l->p[first]) >= base)) base = 10;
        if (base != 10) at += 2;
    }
    const bool zero = base == 10 && l->p[at] == '0'; /* 012 is 0 and then 12 */
    int64_t    v = 0;
    for (; at < l->n; at++) {
        if (l->p[at] == '_' && at + 1 < l->n && digit_value(l->p[at + 1]) < base &&
            !(zero && l->p[at + 1] != '0'))
            continue;
        const int d = digit_value(l->p[at]);
        if (d >= base || (zero && d != 0)) break;
        if (__builtin_mul_overflow(v, (int64_t)base, &v) || __builtin_add_overflow(v, (int64_t)d, &v))
            jin_fail(l->J, GDN_E_FORMAT, "integer literal exceeds 64 bits");
    }
    add_token(l, T_INT, jv_int(v));
    advance(l, at);
    return true;
}

static bool lex_name(lexer *l) {
    size_t at = l->at, used;
    bool   good = true;
    while (at < l->n) {
        const uint32_t c = jt_decode(l->p + at, l->n - at, &used);
        const bool     part = jt_name_part(c);
        if (!part && !jt_numeric(c)) break;
        if (!part || (at == l->at && !jt_name_start(c))) good = false;
        at += used;
    }
    if (at == l->at) return false;
    if (!good) jin_fail(l->J, GDN_E_FORMAT, "invalid character in a name");
    add_token(l, T_NAME, jv_str(l->p + l->at, at - l->at));
    advance(l, at);
    return true;
}

static void balance(lexer *l, char c) {
    const char closing = (char)(c == '{' ? '}' : c == '(' ? ')' : c == '[' ? ']' : '\0');
    if (closing != '\0') {
        if (l->n_open == (int)sizeof l->open)
            jin_fail(l->J, GDN_E_FORMAT, "more than %zu brackets open", sizeof l->open);
        l->open[l->n_open++] = closing;
    } else if (c == '}' || c == ')' || c == ']') {
        if (l->n_open == 0) jin_fail(l->J, GDN_E_FORMAT, "unexpected '%c'", c);
        if (l->open[--l->n_open] != c)
            jin_fail(l->J, GDN_E_FORMAT, "unexpected '%c', expected '%c'", c, l->open[l->n_open]);
    }
}

static bool lex_operator(lexer *l) {
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!see(l, l->at, operators[i].text)) continue;
        if (operators[i].text[1] == '\0') balance(l, operators[i].text[0]);
        add_token(l, operators[i].kind, jv_none());
        advance(l, l->at + strlen(operators[i].text));
        return true;
    }
    return false;
}

/* The tokens of one tag up to its end. */
static void lex_tag(lexer *l, bool is_variable) {
    l->n_open = 0;
    while (l->at < l->n) {
        const size_t end = l->n_open > 0 ? 0
                           : is_variable ? tag_end(l, l->at, "}}", false, false)
                                         : tag_end(l, l->at, "%}", true, true);
        if (end > 0) {
            add_token(l, is_variable ? T_VAR_END : T_BLOCK_END, jv_none());
            advance(l, end);
            return;
        }
        const size_t space = skip_space(l, l->at);
        if (space > l->at) {
            advance(l, space);
            continue;
        }
        if (lex_float(l) || lex_integer(l) || lex_name(l) || lex_string(l) || lex_operator(l))
            continue;
        jin_fail(l->J, GDN_E_FORMAT, "unexpected character '%.*s'",
                 (int)jt_step(l->p + l->at, l->n - l->at), l->p + l->at);
    }
}

/* Line ends become "\n"; the last one goes. */
static void normalise(lexer *l, const char *source, size_t n) {
    char  *q = jin_alloc(l->J, n + 1);
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r') {
            q[k++] = '\n';
            if (i + 1 < n && source[i + 1] == '\n') i++;
        } else {
            q[k++] = source[i];
        }
    }
    if (k > 0 && q[k - 1] == '\n') k--;
    l->p = q, l->n = k;
}

jtok *jin_lex(jin *J, const char *source, size_t n) {
    lexer l = {.J = J, .line = 1, .line_start = true};
    J->line = 1;
    if (!jt_valid(source, n)) jin_fail(J, GDN_E_FORMAT, "the template is not valid UTF-8");
    normalise(&l, source, n);
    while (l.at < l.n) {
        size_t at = l.at;
        while (at < l.n && !see(&l, at, "{{") && !see(&l, at, "{%") && !see(&l, at, "{#")) at++;
        if (at == l.n) {
            add_token(&l, T_DATA, jv_str(l.p + l.at, at - l.at));
            break;
        }
        const char   kind = l.p[at + 1], sign = sign_at(&l, at + 2);
        const size_t raw = kind == '%' ? word_tag(&l, at + 2, "raw", false) : 0;
        add_text(&l, at, sign, kind == '{');
        advance(&l, raw > 0 ? raw : at + 2 + (sign != '\0'));
        if (raw > 0) {
            lex_raw(&l);
        } else if (kind == '#') {
            lex_comment(&l);
        } else {
            add_token(&l, kind == '{' ? T_VAR_BEGIN : T_BLOCK_BEGIN, jv_none());
            lex_tag(&l, kind == '{');
        }
    }
    add_token(&l, T_EOF, jv_none());
    return l.tok;
}
