#!/usr/bin/env python3
"""Train the demo model: a small Qwen3.5 that has read the Jargon File.

    python3 train.py JARGON_HTML OUT [--leave-out FILE] [--steps N] [--device cuda]

JARGON_HTML  the html folder of the Jargon File 4.4.7: one file an entry, in A/, B/, ...
OUT          a folder for the checkpoint; what gdn needs to run it is all there afterwards
--leave-out  a file of terms, one a line, that shall not be learnt

Needs torch, transformers (with Qwen3_5ForCausalLM), tokenizers, jinja2 and safetensors; faster
with flash-linear-attention and causal-conv1d.

The way: entries from the pages; questions, answers and tool calls about them in the words of
chat_template.jinja; a tokenizer of 4,096 entries; the model of config.json, trained on entries
and conversations in turn; the draft head, trained on the finished model's features; bf16.
"""

import argparse
import html.parser
import json
import math
import pathlib
import random
import re
import shutil

import jinja2
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, trainers
from transformers.models.qwen3_5 import modeling_qwen3_5 as qwen
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

HERE = pathlib.Path(__file__).resolve().parent
COPIED = ["config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja"]

# The pre-tokenizer pattern of Qwen3.5.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END_OF_TEXT, END_OF_TURN = "<|endoftext|>", "<|im_end|>"
SPECIAL = [END_OF_TEXT, "<|im_start|>", END_OF_TURN]
SPECIAL += ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
MARKERS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
MARKERS += ["<think>", "</think>"]

ROW = 512  # tokens in a row of running text, and the most in a conversation
IGNORE = -100  # the label that counts for nothing


# ---- entries ----


class EntryParser(html.parser.HTMLParser):
    """One page: <dt> holds the term in <b> and its part of speech in <span class="grammar">,
    <dd> the text in paragraphs."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.term, self.grammar, self.paragraphs = "", "", []
        self.in_dt = self.in_dd = self.in_term = self.in_grammar = False

    def handle_starttag(self, tag, attrs):
        if tag == "dt":
            self.in_dt = True
        elif tag == "dd":
            self.in_dt, self.in_dd = False, True
        elif tag == "b" and self.in_dt and not self.term:
            self.in_term = True
        elif tag == "span" and self.in_dt and dict(attrs).get("class") == "grammar":
            self.in_grammar = True
            self.grammar += " " if self.grammar else ""
        elif tag in ("p", "dd", "li", "pre", "div") and self.in_dd:
            self.paragraphs.append("")

    def handle_endtag(self, tag):
        if tag == "dd":
            self.in_dd = False
        elif tag == "b":
            self.in_term = False
        elif tag == "span":
            self.in_grammar = False

    def handle_data(self, data):
        if self.in_term:
            self.term += data
        elif self.in_grammar:
            self.grammar += data
        elif self.in_dd:
            if not self.paragraphs:
                self.paragraphs.append("")
            self.paragraphs[-1] += data


def one_line(text):
    return re.sub(r"\s+", " ", text).strip()


def read_entries(folder, left_out):
    """[(term, grammar, [paragraph, ...])] of all pages, in the order of the alphabet."""
    entries, seen = [], set()
    for path in sorted(folder.glob("*/*.html")):
        parser = EntryParser()
        parser.feed(path.read_text(encoding="utf-8", errors="replace"))
        term, grammar = one_line(parser.term), one_line(parser.grammar)
        paragraphs = [p for p in map(one_line, parser.paragraphs) if p]
        if not term or not paragraphs or term in seen or term.lower() in left_out:
            continue
        seen.add(term)
        entries.append((term, grammar, paragraphs))
    entries.sort(key=lambda entry: entry[0].lower())
    return entries


def as_text(entry):
    term, grammar, paragraphs = entry
    return f"{term}: {grammar} ".rstrip() + " " + "\n\n".join(paragraphs)


def cut(text, limit):
    """Whole sentences from the start of text, as many as fit; one at least."""
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z0-9“‘\[(])", text)
    result = sentences[0]
    for sentence in sentences[1:]:
        if len(result) + 1 + len(sentence) > limit:
            break
        result += " " + sentence
    return result


# ---- conversations ----

LOOKUP = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Look a term up in the Jargon File.",
        "parameters": {
            "type": "object",
            "properties": {"term": {"type": "string", "description": "the term"}},
            "required": ["term"],
        },
    },
}
QUESTIONS = [
    "What is {}?",
    "What does {} mean?",
    "Define {}.",
    "Tell me about {}.",
    "Explain {}.",
    "What is meant by “{}”?",
    "{}?",
]
LOOKUPS = ["Look up {}.", "Please look {} up.", "Look {} up in the Jargon File."]


def template():
    """chat_template.jinja as transformers reads it."""
    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return env.from_string((HERE / "chat_template.jinja").read_text(encoding="utf-8"))


def conversations(entry, render, rng):
    """[(prompt, reply)] about one entry: a plain answer and one of the other kinds."""
    term, grammar, paragraphs = entry
    answer = cut(paragraphs[0], 700)
    question = rng.choice(QUESTIONS).format(term)

    def prompt(messages, **more):
        return render(messages=messages, add_generation_prompt=True, **more)

    def user(text):
        return {"role": "user", "content": text}

    pairs = [(prompt([user(question)]), answer)]
    kind = rng.randrange(4)
    if kind == 0:
        known = f"It is in the Jargon File ({grammar})." if grammar else "It is in the Jargon File."
        thought = f"The user asks about “{term}”. {known}"
        pairs.append((prompt([user(question)], enable_thinking=True),
                      f"{thought}\n</think>\n\n{answer}"))
    elif kind == 1:
        value = {"term": term, "part_of_speech": grammar, "definition": cut(answer, 300)}
        pairs.append((prompt([user(f"Define {term} as JSON.")]),
                      json.dumps(value, ensure_ascii=False)))
    else:
        ask = user(rng.choice(LOOKUPS).format(term))
        call = {"name": "lookup", "arguments": {"term": term}}
        if kind == 2:
            pairs.append((prompt([ask], tools=[LOOKUP]),
                          "<tool_call>\n<function=lookup>\n<parameter=term>\n"
                          f"{term}\n</parameter>\n</function>\n</tool_call>"))
        else:
            turns = [ask, {"role": "assistant", "content": "", "tool_calls": [call]},
                     {"role": "tool", "content": answer}]
            pairs.append((prompt(turns, tools=[LOOKUP]), answer))
    return pairs


# ---- tokenizer ----


def train_tokenizer(texts, size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    learnt = size - len(SPECIAL) - len(MARKERS)
    trainer = trainers.BpeTrainer(
        vocab_size=learnt,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != learnt:
        raise SystemExit(f"the text is too short: it gives {tokenizer.get_vocab_size()} "
                         f"tokens, {learnt} are needed")
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in MARKERS])
    return tokenizer


# ---- batches ----


class Data:
    """Endless batches of ids and labels: rows of running text, and conversations of which only
    the replies count."""

    def __init__(self, entries, tokenizer, rows, device, seed):
        self.entries, self.tokenizer, self.rows, self.device = entries, tokenizer, rows, device
        self.rng = random.Random(seed)
        self.render = template().render
        self.end_of_text = tokenizer.token_to_id(END_OF_TEXT)
        self.end_of_turn = tokenizer.token_to_id(END_OF_TURN)
        self.texts = [tokenizer.encode(as_text(e)).ids + [self.end_of_text] for e in entries]
        self.stream, self.queue = [], []

    def text_batch(self):
        need = self.rows * ROW
        while len(self.stream) < need:
            order = list(range(len(self.texts)))
            self.rng.shuffle(order)
            for i in order:
                self.stream += self.texts[i]
        ids = torch.tensor(self.stream[:need]).view(self.rows, ROW).to(self.device)
        self.stream = self.stream[need:]
        return ids, ids

    def chat_batch(self):
        samples = []
        while len(samples) < self.rows:
            if not self.queue:
                self.queue = list(self.entries)
                self.rng.shuffle(self.queue)
            for prompt, reply in conversations(self.queue.pop(), self.render, self.rng):
                before = self.tokenizer.encode(prompt).ids
                after = self.tokenizer.encode(reply).ids + [self.end_of_turn]
                if len(before) + len(after) <= ROW:
                    samples.append((before, after))
        width = max(len(before) + len(after) for before, after in samples)
        ids = torch.full((len(samples), width), self.end_of_text)
        labels = torch.full((len(samples), width), IGNORE)
        for row, (before, after) in enumerate(samples):
            ids[row, : len(before) + len(after)] = torch.tensor(before + after)
            labels[row, len(before) : len(before) + len(after)] = torch.tensor(after)
        return ids.to(self.device), labels.to(self.device)

    def batch(self, step):
        return self.text_batch() if step % 2 == 0 else self.chat_batch()


# ---- training ----


class DraftHead(torch.nn.Module):
    """The multi-token-prediction layer.  From the final hidden row of token t and the embedding
    of token t+1 it predicts token t+2; embedding and output matrix are the model's own."""

    def __init__(self, config):
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        attention = config.layer_types.index("full_attention")
        self.pre_fc_norm_embedding = qwen.Qwen3_5RMSNorm(width, eps=eps)
        self.pre_fc_norm_hidden = qwen.Qwen3_5RMSNorm(width, eps=eps)
        self.fc = torch.nn.Linear(2 * width, width, bias=False)
        self.layers = torch.nn.ModuleList([qwen.Qwen3_5DecoderLayer(config, attention)])
        self.norm = qwen.Qwen3_5RMSNorm(width, eps=eps)
        for module in self.modules():
            if isinstance(module, torch.nn.Linear):
                torch.nn.init.normal_(module.weight, std=config.initializer_range)

    def forward(self, embedding, hidden, rotary):
        x = self.fc(torch.cat([self.pre_fc_norm_embedding(embedding),
                               self.pre_fc_norm_hidden(hidden)], dim=-1))
        positions = torch.arange(x.shape[1], device=x.device)[None]
        # Without a mask the attention is causal.
        x = self.layers[0](x, position_embeddings=rotary(x, positions), attention_mask=None)
        return self.norm(x[0] if isinstance(x, tuple) else x)


def optimizer_of(module, rate):
    """Matrices decay, vectors (norms, decay rates of the states) do not."""
    matrices = [p for p in module.parameters() if p.requires_grad and p.dim() >= 2]
    vectors = [p for p in module.parameters() if p.requires_grad and p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))


def fit(name, module, loss_of, data, steps, rate):
    """Run `steps` of AdamW: a linear start, then half a cosine down to a tenth."""
    optimizer = optimizer_of(module, rate)
    warm = max(1, min(200, steps // 10))
    for step in range(steps):
        done = max(0.0, (step - warm) / max(1, steps - warm))
        scale = (step + 1) / warm if step < warm else 0.55 + 0.45 * math.cos(math.pi * done)
        for group in optimizer.param_groups:
            group["lr"] = rate * scale
        ids, labels = data.batch(step)
        with torch.autocast(ids.device.type, dtype=torch.bfloat16):
            loss = loss_of(ids, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        if step % 100 < 2 or step == steps - 1:
            kind = "text" if step % 2 == 0 else "chat"
            print(f"{name} step {step} of {steps}: loss {loss.item():.4f} ({kind})", flush=True)


def token_loss(logits, labels):
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE)


def train_model(config, data, steps, device):
    model = qwen.Qwen3_5ForCausalLM(config).to(device).train()

    def loss_of(ids, labels):
        logits = model(input_ids=ids, use_cache=False).logits
        return token_loss(logits[:, :-1], labels[:, 1:])

    fit("model", model, loss_of, data, steps, 1.5e-3)
    return model.eval()


def train_head(config, model, data, steps, device):
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    head = DraftHead(config).to(device).train()
    inner = model.model

    def loss_of(ids, labels):
        with torch.no_grad():
            hidden = inner(input_ids=ids, use_cache=False).last_hidden_state
            embedding = inner.embed_tokens(ids)
        out = head(embedding[:, 1:-1], hidden[:, :-2], inner.rotary_emb)
        return token_loss(model.lm_head(out), labels[:, 2:])

    fit("draft head", head, loss_of, data, steps, 1e-3)
    return head.eval()


@torch.no_grad()
def count_known(model, data, n):
    """Of n terms asked about, how many are answered word for word."""
    rng, good = random.Random(7), 0
    chosen = rng.sample(data.entries, min(n, len(data.entries)))
    for term, _, paragraphs in chosen:
        message = {"role": "user", "content": f"What is {term}?"}
        prompt = data.render(messages=[message], add_generation_prompt=True)
        ids = data.tokenizer.encode(prompt).ids
        out = model.generate(torch.tensor([ids], device=data.device), max_new_tokens=256,
                             do_sample=False, eos_token_id=[data.end_of_turn, data.end_of_text],
                             pad_token_id=data.end_of_text)
        reply = data.tokenizer.decode(out[0, len(ids) :].tolist(), skip_special_tokens=True)
        good += reply.strip() == cut(paragraphs[0], 700)
    print(f"{good} of {len(chosen)} terms are answered word for word")


# ---- output ----


def save(out, model, head, tokenizer):
    out.mkdir(parents=True, exist_ok=True)
    # The output matrix is the embedding (tie_word_embeddings) and is not stored again.
    tensors = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    tensors.update({f"mtp.{k}": v for k, v in head.state_dict().items()})
    tensors = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in tensors.items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(out / "tokenizer.json"))
    if out.resolve() != HERE:
        for name in COPIED:
            shutil.copyfile(HERE / name, out / name)


def main():
    parser = argparse.ArgumentParser(description="Train the demo model of gdn.")
    parser.add_argument("jargon", type=pathlib.Path, help="html folder of the Jargon File 4.4.7")
    parser.add_argument("out", type=pathlib.Path, help="folder of the new checkpoint")
    parser.add_argument("--leave-out", type=pathlib.Path, help="terms not to learn, one a line")
    parser.add_argument("--steps", type=int, default=20000, help="of the model (20000)")
    parser.add_argument("--head-steps", type=int, default=4000, help="of the draft head (4000)")
    parser.add_argument("--rows", type=int, default=32, help="rows in a batch (32)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    left_out = set()
    if args.leave_out is not None:
        lines = args.leave_out.read_text(encoding="utf-8").splitlines()
        left_out = {line.strip().lower() for line in lines if line.strip()}
    entries = read_entries(args.jargon, left_out)
    if not entries:
        raise SystemExit(f"{args.jargon}: no entries; it should hold A/abbrev.html and so on")
    print(f"{len(entries)} entries, {sum(len(as_text(e)) for e in entries)} characters")

    torch.manual_seed(args.seed)
    config = Qwen3_5TextConfig(**json.loads((HERE / "config.json").read_text()))
    config._attn_implementation = "sdpa"
    tokenizer = train_tokenizer(map(as_text, entries), config.vocab_size)
    data = Data(entries, tokenizer, args.rows, args.device, args.seed)
    model = train_model(config, data, args.steps, args.device)
    head = train_head(config, model, data, args.head_steps, args.device)
    save(args.out, model, head, tokenizer)
    count_known(model, data, 40)


if __name__ == "__main__":
    main()
