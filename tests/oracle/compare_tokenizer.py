"""Compare gdn's token ids with those of Hugging Face tokenizers.

    pip install tokenizers
    cc -Iinclude tests/oracle/tokenize_lines.c build/libgdn.a -ljansson -lpcre2-8 -lutf8proc -lm -pthread -o tokenize_lines
    python tests/oracle/compare_tokenizer.py ./tokenize_lines DIR_WITH_TOKENIZER_JSON [COUNT] [SEED]

Three comparisons: ids with added tokens parsed, ids with them as plain text (against a copy of the
file without added tokens), and ids back to text (must be the input, or its NFC)."""
import json
import os
import subprocess
import sys
import unicodedata

from tokenizers import Tokenizer

from tokenizer_strings import strings


def main():
    tool, path = sys.argv[1:3]
    n = int(sys.argv[3]) if len(sys.argv) > 3 else 10000
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    name = os.path.join(path, "tokenizer.json") if os.path.isdir(path) else path
    with open(name, encoding="utf-8") as f:
        spec = json.load(f)
    texts = strings(n, [t["content"] for t in spec["added_tokens"]], seed)
    parse = Tokenizer.from_file(name)
    spec["added_tokens"] = []
    plain = Tokenizer.from_str(json.dumps(spec))
    lines = "".join("%d %s\n" % (k, s.encode().hex()) for s in texts for k in (1, 0))
    form = (lambda s: s) if spec["normalizer"] is None else (lambda s: unicodedata.normalize("NFC", s))
    out = subprocess.run([tool, name], input=lines, capture_output=True, text=True, check=True).stdout.split("\n")
    good = {"parsed": 0, "plain": 0, "back": 0}
    shown = 0
    for i, s in enumerate(texts):
        for k, (kind, oracle) in enumerate((("parsed", parse), ("plain", plain))):
            want = oracle.encode(s, add_special_tokens=False).ids
            got = out[4 * i + 2 * k]
            if got == " ".join(map(str, want)):
                good[kind] += 1
            elif shown < 20:
                shown += 1
                print("differs", kind, ascii(s[:200]), "\n  want", want[:40], "\n  got ", got[:200])
        if bytes.fromhex(out[4 * i + 3][1:]).decode() == form(s):
            good["back"] += 1
        elif shown < 20:
            shown += 1
            print("text back differs", ascii(s[:200]))
    print("%s: %d strings; same ids parsed %d, plain %d; same text back %d" %
          (name, len(texts), good["parsed"], good["plain"], good["back"]))
    return 0 if all(v == len(texts) for v in good.values()) else 1


sys.exit(main())
