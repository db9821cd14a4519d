#!/usr/bin/env python3
"""Make the test vectors of the template interpreter with Jinja2 itself.

    python3 -m venv venv && venv/bin/pip install 'jinja2>=3.1,<3.2'
    venv/bin/python tests/oracle/make_jinja_vectors.py tests/golden/jinja

The environment is the one of transformers' apply_chat_template: immutable sandbox,
trim_blocks, lstrip_blocks, loop controls, the {% generation %} tag, tojson without HTML
escapes, raise_exception and strftime_now.  Cases that print an address or today's date
are refused, since no second program could print the same.
"""
import json
import os
import re
import sys
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jinja_cases import CASES, CONTEXT, CONVERSATIONS, ERRORS, QWEN_CONVERSATIONS


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda fmt: datetime.now().strftime(fmt)
    return env


ENV = environment()


def run(template, context):
    """("expected", text) or ("error", True); the context goes through JSON as it will there."""
    try:
        text = ENV.from_string(template).render(**json.loads(json.dumps(context)))
        text.encode("utf-8")
    except Exception as e:  # any failure of the original counts
        return "error", True, e
    if re.search(r" at 0x[0-9a-f]+", text):
        raise SystemExit("prints an address: " + template)
    return "expected", text, None


def write(path, cases, template_file=None):
    doc = {"cases": cases}
    if template_file:
        doc = {"template_file": template_file, "cases": cases}
    with open(path, "w", encoding="utf-8") as f:
        json.dump(doc, f, ensure_ascii=False, indent=1)
        f.write("\n")
    errors = sum("error" in c for c in cases)
    print(f"{path}: {len(cases)} cases, {errors} of them errors")


def main():
    out = sys.argv[1]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    cases = []
    for group, items in CASES.items():
        for i, item in enumerate(items):
            template, context = item if isinstance(item, tuple) else (item, CONTEXT)
            kind, value, e = run(template, context)
            if kind == "error":
                raise SystemExit(f"{group} {i} fails: {template}: {e!r}")
            case = {"name": f"{group}-{i}", "template": template, kind: value}
            if context is not CONTEXT:
                case["context"] = context
            cases.append(case)
    for i, item in enumerate(ERRORS):
        template, context = item if isinstance(item, tuple) else (item, CONTEXT)
        kind, value, _ = run(template, context)
        if kind != "error":
            raise SystemExit(f"error {i} does not fail: {template}: {value!r}")
        case = {"name": f"error-{i}", "template": template, kind: True}
        if context is not CONTEXT:
            case["context"] = context
        cases.append(case)
    doc = os.path.join(out, "constructs.json")
    with open(doc, "w", encoding="utf-8") as f:
        json.dump({"context": CONTEXT, "cases": cases}, f, ensure_ascii=False, indent=1)
        f.write("\n")
    print(f"{doc}: {len(cases)} cases, {len(ERRORS)} of them errors")

    for name, file, contexts in (
            ("jargon", "models/jargon/chat_template.jinja", CONVERSATIONS),
            ("qwen", "tests/golden/jinja/qwen.jinja", QWEN_CONVERSATIONS)):
        with open(os.path.join(root, file), encoding="utf-8") as f:
            template = f.read()
        cases = []
        for i, context in enumerate(contexts):
            kind, value, _ = run(template, context)
            cases.append({"name": f"{name}-{i}", "context": context, kind: value})
        write(os.path.join(out, name + ".json"), cases, file)


if __name__ == "__main__":
    main()
