"""Turn a vocabulary of ranks (lines "BASE64 RANK", as tiktoken reads them) into a tokenizer.json.

    python tokenizer_from_ranks.py RANKS PATTERN_NAME OUT.json [ID=TEXT ...]

PATTERN_NAME is qwen2 or qwen35.  Added tokens are marked special unless the text is followed by a
final '~'.  A merge is the last step by which a token's bytes become that token; tokens that are never
made this way have none."""
import base64
import json
import sys

PATTERN = {
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen35": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def alphabet():
    """The character that stands for each byte."""
    out, extra = [], 256
    for b in range(256):
        if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174:
            out.append(chr(b))
        else:
            out.append(chr(extra))
            extra += 1
    return out


def last_parts(ranks, token, rank):
    parts = [bytes([b]) for b in token]
    while True:
        best = min((ranks.get(a + b, rank), i) for i, (a, b) in enumerate(zip(parts, parts[1:])))
        if best[0] >= rank:
            return parts
        parts[best[1]:best[1] + 2] = [parts[best[1]] + parts[best[1] + 1]]


def added(i, text, special=True, normalized=False):
    return {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": normalized, "special": special}


def spec(vocab, merges, pattern, tokens):
    """A tokenizer.json as Qwen's are."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens,
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
            "post_processor": level, "decoder": level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                      "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
                      "ignore_merges": False, "vocab": vocab, "merges": merges}}


def main():
    letters = alphabet()
    spell = lambda token: "".join(letters[b] for b in token)
    with open(sys.argv[1], "rb") as f:
        ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in f if line.strip()}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda x: x[1]):
        parts = last_parts(ranks, token, rank) if len(token) > 1 else []
        if len(parts) == 2:
            merges.append([spell(parts[0]), spell(parts[1])])
    tokens = []
    for arg in sys.argv[4:]:
        i, text = arg.split("=", 1)
        tokens.append(added(int(i), text.removesuffix("~"), not text.endswith("~")))
    out = spec({spell(t): r for t, r in ranks.items()}, merges, PATTERN[sys.argv[2]], tokens)
    with open(sys.argv[3], "w", encoding="utf-8") as f:
        json.dump(out, f, ensure_ascii=False, indent=2)
    print(len(ranks), "tokens,", len(merges), "merges")


if __name__ == "__main__":
    main()
