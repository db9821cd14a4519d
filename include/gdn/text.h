/* text.h - text to token ids and back, and conversations to text.
 *
 * A tokenizer is read from tokenizer.json, a template from chat_template.jinja or
 * tokenizer_config.json; nothing about a model's vocabulary is built in.  All
 * strings are UTF-8 with an explicit length and may hold any byte: bytes that are
 * not UTF-8 are tokenized byte by byte and come back unchanged.
 *
 * Threads: a tokenizer and a template never change after loading and may be used
 * by any number of threads at once.  A gdn_detok belongs to one stream. */
#ifndef GDN_TEXT_H
#define GDN_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gdn_tokenizer gdn_tokenizer;
typedef struct gdn_template  gdn_template;
typedef struct gdn_detok     gdn_detok;

/* --- tokenizer ------------------------------------------------------------- */

/* Read DIR/tokenizer.json (or the file itself when path names a file).
 * GDN_E_IO: cannot read.  GDN_E_FORMAT: names the field that is wrong.
 * GDN_E_UNSUPPORTED: a model, normaliser or pre-tokenizer other than byte-level BPE, or an
 * option that would give other ids than this program does; names it.
 *
 * The ids are those of Hugging Face's tokenizers for the same file. */
GDN_API gdn_status gdn_tokenizer_open(const char *path, gdn_tokenizer **out, gdn_err *err);
GDN_API void       gdn_tokenizer_close(gdn_tokenizer *t);

/* One more than the largest id in use, added tokens included. */
GDN_API int32_t gdn_tokenizer_size(const gdn_tokenizer *t);

/* Encode n bytes of text.
 *
 *   parse_special  whether the text of an added token ("<|im_end|>") becomes that token;
 *                  when false such text is ordinary text (use it for what a user typed)
 *   ids, n_ids     on GDN_OK a malloc'ed array, the caller's to free(); NULL when empty
 *
 * Text is normalised if the file says so (NFC); what is already normal comes back from its
 * ids unchanged.  Each byte that is not part of a UTF-8 character becomes the token of that
 * byte, and the text before and after it is encoded as if it stood alone.
 *
 * Time is n log n at worst for the patterns of released models.
 * GDN_E_INVALID: more than 2^31 - 1 bytes.  GDN_E_FULL: the file's pattern backtracks
 * without end on this text.  GDN_E_NOMEM. */
GDN_API gdn_status gdn_tokenize(const gdn_tokenizer *t, const char *text, size_t n,
                                bool parse_special, int32_t **ids, size_t *n_ids, gdn_err *err);

/* The bytes of one token: the id's text for an added token, raw bytes otherwise (perhaps
 * part of a character).  NULL and *n = 0 for an id without text. */
GDN_API const char *gdn_token_bytes(const gdn_tokenizer *t, int32_t id, size_t *n);

/* The id of the added token with exactly this text, or -1. */
GDN_API int32_t gdn_token_find(const gdn_tokenizer *t, const char *text);

/* True for added tokens marked special (turn marks, padding): not shown to a reader. */
GDN_API bool gdn_token_is_special(const gdn_tokenizer *t, int32_t id);

/* --- streaming back to text ------------------------------------------------- */

/* A stream of ids to a stream of whole characters: bytes of an unfinished UTF-8
 * character are held back until it is complete or cannot become one. */
GDN_API gdn_status gdn_detok_create(const gdn_tokenizer *t, bool show_special, gdn_detok **out);
GDN_API void       gdn_detok_free(gdn_detok *d);

/* Add one id; *text stays valid until the next call on d and holds *n bytes, often none.
 * Ids without text add nothing. */
GDN_API gdn_status gdn_detok_push(gdn_detok *d, int32_t id, const char **text, size_t *n);

/* Give out what is still held back, as it is. */
GDN_API gdn_status gdn_detok_flush(gdn_detok *d, const char **text, size_t *n);

/* --- chat template ---------------------------------------------------------- */

/* Read the template of the checkpoint in dir: chat_template.jinja, or the string
 * chat_template of tokenizer_config.json (or of chat_template.json).
 * GDN_E_IO: there is none.  GDN_E_FORMAT: names line and cause. */
GDN_API gdn_status gdn_template_open(const char *dir, gdn_template **out, gdn_err *err);
/* The same from a string; name is used in messages only. */
GDN_API gdn_status gdn_template_parse(const char *source, size_t n, const char *name,
                                      gdn_template **out, gdn_err *err);
GDN_API void       gdn_template_close(gdn_template *t);

/* Render with the variables of a JSON object, as Hugging Face's apply_chat_template does:
 * {"messages": [...], "tools": [...], "add_generation_prompt": true, "enable_thinking": false, ...}
 *
 *   out, n   on GDN_OK a malloc'ed string with a final NUL (not counted); the caller frees it
 *
 * GDN_E_INVALID: json is not an object, or the template called raise_exception (its words).
 * GDN_E_FORMAT: the template did something undefined; names the line.
 * Time and memory are bounded: a template that runs away ends in GDN_E_FULL. */
GDN_API gdn_status gdn_template_render(const gdn_template *t, const char *json, size_t n_json,
                                       char **out, size_t *n, gdn_err *err);

#ifdef __cplusplus
}
#endif
#endif
