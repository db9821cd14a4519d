"""Strings that are hard on a tokenizer: the same ones for a given seed."""
import random
import unicodedata

WORDS = """the of and a to in is it you that he was for on are with as his they be at one have this from
or had by hot but some what there we can out other were all your when up use word how said an each she
internationalization antidisestablishmentarianism I'll don't they've it's we're I'd I'm cafe naive
int main(void) return NULL; static const uint32_t x_i += 0x1f; "string\\n" //comment #include <stdio.h> def f(x): self._x
пример слово текста Ελληνικά λέξη κείμενο 中文 汉字 測試 日本語 テスト ひらがな 한국어 단어 عربي كلمة עברית שלום हिन्दी शब्द
ไทย ภาษา தமிழ் বাংলা ქართული հայերեն አማርኛ tiếng Việt được Ångström ﬁne ﬃ ½ Ⅷ ² ٣ ४ Straße İstanbul ǅ""".split()
SPACES = [" ", "  ", "   ", "\n", "\r\n", "\n\n", "\t", "\r", "\u00a0", "\u3000", "\u2028", "\u2029", "\x85", "\u200b",
          "\u180e", "\x0b", "\x0c", "\x1c", "\x1f", "\u1680", "\u2007", "\u202f", "\u205f", "\ufeff", " \n", "\n ", " \r\n "]
CONTRACTIONS = ["'s", "'S", "'\u017f", "'t", "'T", "'re", "'RE", "'rE", "'ve", "'Ve", "'m", "'M", "'ll", "'LL", "'lL", "'d",
                "'D", "\u2019s", "'", "''s", "' s", "'x", "'\u212a", "'l", "'v", "'r"]
MARKS = ["\u0301", "\u0300", "\u0323", "\u0327", "\u0308", "\u0345", "\u0338", "\u20dd", "\ufe0f", "\u093c", "\u09be", "\u0bd7",
         "\u3099", "\u309a", "\u05bc", "\u0651", "\u064e", "\u0f71", "\u0f72", "\U0001d165", "\U0001d16e", "\u1ab0", "\u0cd5", "\u0dcf"]
EMOJI = ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f44d\U0001f3fd",
         "\u2764\ufe0f", "\U0001f1e9\U0001f1ea", "1\ufe0f\u20e3", "\u200d", "\ufe0e"]
PUNCT = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["...", "->", "=>", "//", "/*", "—", "“", "”", "…", "、", "。", "！", "¿", "€", "∑", "≠"]
CONTROL = ["\x00", "\x01", "\x07", "\x08", "\x1b", "\x7f", "\x80", "\x9f", "\u00ad", "\u061c", "\u202e", "\ufffd", "\uffff", "\U0010ffff",
           "\ue000", "\U000f0000"]
NOT_NFC = ["\u212b", "\u2126", "\u0958", "\uf900", "\ufa0e", "\u1f71", "\u2000", "\u2329", "\ufb1d", "\ufb2a", "\U0002f800", "\U0001d15e",
           "\u0340", "\u0344", "\u0374", "\u0f43", "\u2adc", "\u0387"]
NEW = ["\U00031350", "\U0002ebf0", "\U00010d4a", "\u0897", "\U00011f50", "\U0001e4d0", "\U00016100", "\u1c89", "\ua7cb", "\U0002b739", "\u0ece"]


def code_point(r):
    while True:
        top = r.choice([0x7f, 0x24f, 0x7ff, 0x1fff, 0x33ff, 0xffff, 0x1ffff, 0x323af, 0x10ffff])
        c = r.randrange(top + 1)
        if not 0xD800 <= c < 0xE000 and (unicodedata.category(chr(c)) != "Cn" or r.random() < 0.05):
            return chr(c)


def jamo(r):
    s = chr(r.randrange(0x1100, 0x1113)) + chr(r.randrange(0x1161, 0x1176))
    if r.random() < 0.6:
        s += chr(r.randrange(0x11a7, 0x11c3))
    return r.choice([s, s, unicodedata.normalize("NFC", s), s[::-1], s[:1], s[1:]])


def added(r, tokens):
    if not tokens:
        return "<|x|>"
    t = r.choice(tokens)
    k = r.random()
    if k < 0.5:
        return t
    if k < 0.7:
        return t[: r.randrange(len(t) + 1)]
    if k < 0.8:
        return t[r.randrange(len(t)):]
    if k < 0.9:
        return t + r.choice(tokens)[1:]
    return t[: r.randrange(len(t) + 1)] + t


def part(r, tokens):
    kind = r.randrange(16)
    if kind < 3:
        return r.choice(WORDS)
    if kind == 3:
        return r.choice(SPACES) * r.choice([1, 1, 1, 2, 3, 7])
    if kind == 4:
        return r.choice(WORDS) + r.choice(CONTRACTIONS)
    if kind == 5:
        return r.choice(WORDS)[:3] + "".join(r.choice(MARKS) for _ in range(r.choice([1, 1, 2, 3, 6])))
    if kind == 6:
        return r.choice(EMOJI)
    if kind == 7:
        return "".join(r.choice(PUNCT) for _ in range(r.choice([1, 1, 2, 5])))
    if kind == 8:
        return r.choice(CONTROL)
    if kind == 9:
        return r.choice(NOT_NFC)
    if kind == 10:
        return str(r.randrange(10 ** r.randrange(1, 12)))
    if kind == 11:
        return "".join(code_point(r) for _ in range(r.choice([1, 2, 5])))
    if kind == 12:
        return jamo(r) + jamo(r)
    if kind == 13:
        return added(r, tokens)
    if kind == 14:
        return unicodedata.normalize(r.choice(["NFC", "NFD"]), r.choice(WORDS) + r.choice(["éàü", "ộ", "각", "が"]))
    return r.choice(NEW + [" "])


def strings(n, tokens, seed):
    """n strings; tokens are the texts of the added tokens."""
    r = random.Random(seed)
    out = ["", " ", "a", "\n", "a" * 3000, "ab" * 1500, " " * 500, " " * 499 + "x", "\n" * 300, "é" * 300, "e\u0301" * 300,
           "漢" * 300, "".join(WORDS) * 2, "\u0301\u0323" * 200, "a" + "\u0327\u0301\u0323" * 100, "0" * 400, "-" * 1000,
           "'s" * 200, "<|im_start|>" * 30, "\r\n" * 100, "\t" * 65 + "x"]
    out += [chr(c) for c in range(256)] + ["x" + c + "y" for c in MARKS + SPACES + CONTRACTIONS + EMOJI + NOT_NFC + NEW + CONTROL]
    while len(out) < n:
        sep = r.choice(["", "", " ", " ", "\n"])
        k = r.choice([1, 2, 3, 5, 8, 20]) if r.random() < 0.98 else 200
        out.append(sep.join(part(r, tokens) for _ in range(k)))
    return out[:n] if n < len(out) else out
