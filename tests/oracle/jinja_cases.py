"""The cases of make_jinja_vectors.py: templates by construct, and conversations."""

CONTEXT = {
    "a": 7, "b": 2, "neg": -7, "f": 2.5, "big": 1e22, "tiny": 1e-07, "t": True, "no": False,
    "n": None, "s": "Hello, World", "e": "", "u": "naïve Ünïcode — 日本語 🙂",
    "sp": "  \n padded\t ", "html": "<a href=\"x\">'&'</a>",
    "l": [3, 1, 2], "el": [], "ls": ["b", "A", "c", "a"], "nest": [[1, 2], [3, [4, 5]]],
    "d": {"x": 1, "y": "two", "z": None, "items": "shadow", "get": 5, "1": "one"},
    "dd": {"b": {"c": [10, 20, {"k": "deep"}]}}, "ed": {},
    "people": [{"name": "Zoe", "age": 30, "ok": True, "tag": {"id": 2}},
               {"name": "adam", "age": 25, "ok": False, "tag": {"id": 1}},
               {"name": "Bob", "age": 30, "ok": True, "tag": {"id": 3}}],
    "mixed": [1, "1", 1.0, True, None, [1], {"a": 1}], "lines": "one\ntwo\n\nthree\n",
    "floats": [0.1, 1.0, -0.0, 1e16, 1e15, 123456789012345680.0, 5e-324, 1.7976931348623157e308,
               0.0001, 0.00001, 1.5e-10, 5.684341886080802e-14, 2.220446049250313e-16, 100.0, 1e100],
}


def both(*exprs):
    """Print each expression."""
    return ["{{ %s }}" % e for e in exprs]


CASES = {
    "text": [
        "", "plain", "a\nb\n", "a\n\n", "\n", "{{ a }}\n", "a\r\nb\rc\r\n", "{ {a} }", "% %} }} #}",
        "{{ '{{' }}", "{{ \"}}\" }}", "{{ '%}' }}x", "x{# c #}y", "x{#- c -#} y", "x {#- c #} y",
        "a\n  {# comment #}\nb", "a\n  {#+ comment #}\nb", "{# {{ a }} {% x %} #}z", "é{{ a }}ü",
        "{#\nmulti\nline\n#}\nafter", "x {#- c +#}\n y", "{##}x", "{#-#} x", "{#--#} x",
    ],
    "whitespace": [
        "  {% if t %}  \n  x  \n  {% endif %}  \ny", "a  {%- if t -%}  x  {%- endif -%}  b",
        "a\n  {%+ if t %}x{% endif %}", "a {% if t +%}\nx{% endif %}", "a\n\t{% if t %}\nx\n\t{% endif %}\nb",
        "{{ a }}  {{- b }}", "{{ a -}}  {{ b }}", "{{ a -}} \n\n {{- b }}", "a\n   {{ a }}\n", "   {{ a }}",
        "a \n {%- set x = 1 -%} \n b", "{% if t %}\n\nx{% endif %}", "  x{% if t %}y{% endif %}",
        "{% for i in l %}\n  {{ i }}\n{% endfor %}\n", "{% for i in l -%}\n  {{ i }}\n{%- endfor %}\n",
        "a\n  \u00a0{% if t %}x{% endif %}", "{% if t %}\r\nx{% endif %}\r\n", "\u2003{%- if t %}x{% endif %}",
        "a {{-b}} c {{b-}} d", "{{+ a }}", "{{ - a }}|{{ -a }}|{{-a}}", "{%if t%}x{%endif%}",
        "{%\nif\nt\n%}x{%\nendif\n%}", "x\n {% raw %}\n y{% endraw %}", "{{ a }}{% if t %}\n{% endif %}x",
        "  {% if t %}{% endif %}  {% if t %}{% endif %}", "{% if t %}a{% endif %}\n{% if t %}b{% endif %}\n",
    ],
    "raw": [
        "{% raw %}{{ a }}{% endraw %}", "{% raw %}{% if %}{% endraw %}x", "a {%- raw -%} {{ x }} {%- endraw -%} b",
        "{% raw %}\n  x\n{% endraw %}\ny", "{%+ raw %} x {%+ endraw +%}\ny", "a\n  {% raw %}b\n  {% endraw %}\nc",
        "{% raw %}{# x #}{% endraw %}", "{%- raw %}{{ '{% endraw %}",
    ],
    "literals": both(
        "1", "0", "1_000", "0x1F", "0b101", "0o17", "1.5", "1e3", "1.5E-3", "2_0.5", "'a'", '"a"',
        "'a' 'b' \"c\"", "'it\\'s'", "'tab\\tnl\\n\\\\'", "'\\x41\\u00e9\\U0001F642\\101'", "'\\q\\ '",
        "'a\\\nb'", "'日本'", "true", "True", "false", "False", "none", "None", "[1, 2, 3]", "[]", "[1,]",
        "(1, 2)", "(1,)", "()", "(1)", "{'a': 1, 'b': [2]}", "{}", "{'a': 1,}", "{1: 'x', none: 2, true: 3}",
        "1, 2", "[1, [2, (3, {'k': none})]]", "'\\r\\a\\b\\f\\v'|length", "9223372036854775807", "00", "1.0",
        "{'a': 1, 'a': 2}", "{1: 'int', 1.0: 'float', true: 'bool'}", "1.e", "10.5.x",
    )[:-2],
    "output": both(
        "s", "u", "n", "t", "f", "big", "tiny", "l", "d", "nest", "mixed", "floats", "people", "missing",
        "[missing]", "[u, sp, html]", "[\"it's\"]", "['a\"b']", "['a\"\\'b']", "['\\x00\\x7f\\xa0\\xad\\u200b\\ue000']",
        "('a',)", "(1, 'a', none)", "range(3)", "range(1, 10, 3)", "{'a': (1, 2)}", "d.keys()", "d.values()",
        "dd.items()", "namespace(a=1, b='x')", "[1.0, 1e100, -0.5]", "[['\\\\', '\\n']]", "range(3)[1:]",
    ),
    "arithmetic": both(
        "1 + 2", "a - b", "a * b", "a / b", "a // b", "a % b", "a ** b", "neg // b", "neg % b", "a // -2",
        "a % -2", "neg / b", "f + 1", "f * 2", "7.5 // 2", "-7.5 // 2", "7.5 % 2", "-7.5 % 2", "7.5 % -2",
        "2 ** -1", "2 ** 0.5", "-2 ** 2", "2 ** 3 ** 2", "-a", "+a", "- -a", "1 + 2 * 3", "(1 + 2) * 3",
        "10 - 2 - 3", "100 / 10 / 2", "(1 + 2) ~ (3 + 4)", "1 ~ 2 * 3", "1 ~ 2", "'a' ~ 1 ~ none ~ true ~ 1.0 ~ missing",
        "s + '!'", "'ab' * 3", "3 * 'ab'", "'ab' * 0", "'ab' * -1", "[1] + [2]", "[1, 2] * 2", "(1,) + (2,)",
        "t + 1", "t * 'x'", "true + true", "-true", "1 / 3", "1e308 * 10", "0.1 + 0.2", "5 % 3.5", "0 ** 0",
        "1e16", "1e15 + 0.5", "-0.0", "0.0 * -1", "7 // 2.0", "2 ** 62", "6 / 3", "1 - 0.9", "3.0", "10 ** 15 / 1",
        "1 // 0.3", "-1 // 3", "-1 % 3", "0.5 ** 2", "1 * 2.0", "(9007199254740993) + 0.0", "7 % 2.5",
    ),
    "compare": both(
        "1 == 1.0", "1 == true", "'1' == 1", "n == none", "missing == none", "missing == missing2", "1 != 2",
        "1 < 2 < 3", "1 < 3 < 2", "3 > 2 >= 2", "'a' < 'b'", "'Z' < 'a'", "'é' > 'z'", "[1, 2] < [1, 3]",
        "[1] < [1, 0]", "(1, 'a') < (1, 'b')", "l == [3, 1, 2]", "d == d", "{'a': 1} == {'a': 1.0}", "[1] == (1,)",
        "1 in l", "9 in l", "9 not in l", "'ell' in s", "'' in s", "'x' in d", "'q' not in d", "1 in (1, 2)",
        "1 in range(3)", "'a' in missing", "true in [1]", "none in mixed", "1 < 2 == true", "1.5 > 1",
        "9007199254740993 == 9007199254740992.0", "9007199254740993 > 9007199254740992.0", "not 1 == 2",
        "1 == 1 in [true]", "'b' in 'abc' and 'z' not in 'abc'", "2 > 1 > 0 > -1", "'' < 'a'", "range(3) == range(3)",
        "[] == []", "{} == {}", "{'a': [1, {'b': 2}]} == {'a': [1, {'b': 2}]}", "1 in {1: 2}", "[1] in [[1]]",
        "'x' in d.keys()", "('x', 1) in d.items()" if False else "1 in dd.b.c",
    ),
    "logic": both(
        "t and no", "t or no", "0 or 'x'", "'' or 0", "1 and 'x'", "0 and x.y.z", "1 or x.y.z", "not t", "not missing",
        "not not 5", "t and not no", "1 if t else 2", "1 if no else 2", "(1 if no)", "'x' ~ (1 if no)", "1 if no else 2 if t else 3",
        "1 if t", "'a' if el else 'b'", "'a' if d else 'b'", "'a' if ed else 'b'", "'a' if 0.0 else 'b'", "'a' if ' ' else 'b'",
        "not l and t", "(t or no) and no", "t or no and no", "n or missing or 'last'", "[] or {} or () or ''",
        "1 if t else x.y.z", "'a' if range(0) else 'b'", "'a' if namespace() else 'b'", "1 + 2 if t else 0",
    ),
    "access": both(
        "d.x", "d['y']", "d.nope", "d['nope']", "d.get" if False else "d['get']", "d['items']", "l[0]", "l[-1]", "l[9]",
        "l[-9]", "s[0]", "s[-1]", "s[99]", "u[2]", "u[-1]", "dd.b.c[2].k", "dd['b']['c'][-1]['k']", "l.0", "l.1", "nest[1][1][0]",
        "nest.1.1.0", "(1, 2)[1]", "[1, 2][0]", "{'a': 1}.a", "{'a': 1}['a']", "'abc'[1]", "n.x", "n['x']", "a.x", "(1.5).x",
        "l['x']", "l.x", "s.x", "l[true]", "d[none]", "d[1]", "d['1']", "d.__class__", "''.__class__", "d.pop", "l.append",
        "l[1.5]", "l[none]", "range(5)[2]", "range(5)[-1]", "d[[1]]", "a[]", "people[0].tag.id", "d.y.upper()", "d['y'][0]",
        "l[missing]", "d[missing]",
    ),
    "slice": both(
        "l[1:]", "l[:1]", "l[:]", "l[::-1]", "l[::2]", "l[-2:]", "l[:-1]", "l[5:]", "l[-99:99]", "l[2:0:-1]", "l[0:0]",
        "s[1:4]", "s[::-1]", "s[-5:]", "s[::3]", "u[::-1]", "u[6:9]", "u[-3:]", "u[::2]", "(1, 2, 3)[1:]", "(1, 2, 3)[::-1]",
        "range(10)[2:8:3]", "range(10)[::-2]", "'abc'[b:]", "'abc'[none:2]", "''[1:]", "[][::-1]", "l[true:]", "s[10:2:-2]",
        "l[1:][0]", "'abcdef'[-1:-4:-1]", "l[99:-99:-1]", "l[::9223372036854775807]", "l[-9223372036854775807:]",
    ),
    "set": [
        "{% set x = 1 %}{{ x }}", "{% set x, y = 1, 2 %}{{ x }}{{ y }}", "{% set x, y = [3, 4] %}{{ x }}{{ y }}",
        "{% set (x, y) = 'ab' %}{{ x }}{{ y }}", "{% set x = 1, 2 %}{{ x }}", "{% set x %}a{{ a }}{% endset %}{{ x }}|{{ x|length }}",
        "{% set x | upper %}abc{% endset %}{{ x }}", "{% set x | replace('a', 'b') | upper %}aca{% endset %}{{ x }}",
        "{% set ns = namespace() %}{% set ns.v = 5 %}{{ ns.v }}", "{% set ns = namespace(c=0) %}{% for i in l %}{% set ns.c = ns.c + i %}{% endfor %}{{ ns.c }}",
        "{% set ns = namespace({'q': 1}, r=2) %}{{ ns.q }}{{ ns.r }}{{ ns.nope }}", "{% set x = 1 %}{% for i in l %}{% set x = i %}{{ x }}{% endfor %}{{ x }}",
        "{% set x = 1 %}{% if t %}{% set x = 2 %}{% endif %}{{ x }}", "{% for i in l %}{{ y }}{% set y = i %}{{ y }}{% endfor %}{{ y }}",
        "{% set a = a + 1 %}{{ a }}", "{% set x = y %}{{ x is defined }}", "{% set x = namespace(n=namespace(m=1)) %}{{ x.n.m }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(3) %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.l }}",
        "{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.a + ns.b }}", "{% set x %}{% for i in l %}{{ i }}{% endfor %}{% endset %}[{{ x }}]",
        "{% set x %}\n  a\n{% endset %}[{{ x }}]", "{% set x = 'a' %}{% set x = x ~ 'b' %}{% set x = x ~ x %}{{ x }}",
        "{% set ns = namespace(s='') %}{% for i in range(50) %}{% set ns.s = ns.s ~ i ~ ',' %}{% endfor %}{{ ns.s }}",
        "{% set p = 'ab' %}{% set q = p ~ 'c' %}{% set r = q[:2] ~ 'X' %}{% set q2 = q ~ 'Y' %}{{ p }} {{ q }} {{ r }} {{ q2 }} {{ q ~ 'Z' }} {{ q2 }}",
        "{% set ns = namespace(x=1) %}{{ ns['x'] }}", "{% set x = namespace %}{% set y = x(a=1) %}{{ y.a }}", "{% set loop = 5 %}{{ loop }}",
        "{% set ns = namespace(a=1) %}{% set ns2 = ns %}{% set ns2.a = 9 %}{{ ns.a }}", "{% set x = [] %}{% set y = x + [1] %}{{ x }}{{ y }}",
    ],
    "if": [
        "{% if t %}a{% endif %}", "{% if no %}a{% else %}b{% endif %}", "{% if no %}a{% elif t %}b{% else %}c{% endif %}",
        "{% if no %}a{% elif no %}b{% elif t %}c{% elif t %}d{% endif %}", "{% if missing %}a{% endif %}", "{% if el %}a{% else %}b{% endif %}",
        "{% if n is none and s %}{% if d %}x{% endif %}{% endif %}", "{% if t: %}a{% endif %}", "{% if 1, 2 %}a{% endif %}",
        "{% if not (a and no) or x.y %}a{% endif %}", "{% if t %}{% else %}b{% endif %}", "{% if d.x == 1 %}one{% endif %}",
    ],
    "for": [
        "{% for i in l %}{{ i }},{% endfor %}", "{% for i in el %}x{% else %}empty{% endfor %}", "{% for c in 'abé🙂' %}[{{ c }}]{% endfor %}",
        "{% for k in d %}{{ k }};{% endfor %}", "{% for k, v in dd.items() %}{{ k }}={{ v }}{% endfor %}", "{% for k, v in d|items %}{{ k }}={{ v }};{% endfor %}",
        "{% for a, b in [[1, 2], [3, 4]] %}{{ a }}{{ b }};{% endfor %}{{ a }}", "{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
        "{% for i in range(3) %}{{ i }}{% endfor %}", "{% for i in range(10, 0, -3) %}{{ i }} {% endfor %}", "{% for i in missing %}x{% else %}none{% endfor %}",
        "{% for p in people if p.ok %}{{ p.name }}{% if not loop.last %}, {% endif %}{% endfor %}", "{% for i in range(10) if i is odd %}{{ loop.index }}:{{ i }}/{{ loop.length }} {% endfor %}",
        "{% for i in l if i > 5 %}x{% else %}none{% endfor %}", "{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}",
        "{% for i in l %}[{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }}]{% endfor %}", "{% for i in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }} {% endfor %}",
        "{% for i in range(5) %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for i in [1, 1, 2, 2, 1] %}{{ loop.changed(i) }} {% endfor %}",
        "{% for i in [1, 1, 2] %}{% if loop.changed(i, 'x') %}{{ i }}{% endif %}{% endfor %}", "{% for i in l %}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}",
        "{% for i in l %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "{% for i in l %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% else %}e{% endfor %}",
        "{% for i in range(3) %}{% for j in range(3) %}{% if j == i %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}",
        "{% for i in l %}{% for j in ls %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}", "{% for i in [1, 2] %}{% set outer = loop %}{% for j in [1, 2] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
        "{% for i in l|sort %}{{ i }}{% endfor %}", "{% for i in 1, 2, 3 %}{{ i }}{% endfor %}", "{% for i in l[::-1] %}{{ i }}{% endfor %}", "{% for i in (l if t else el) %}{{ i }}{% endfor %}",
        "{% for i in l %}{{ loop }}{% endfor %}", "{% for x in l|map('string') %}{{ loop.length }}{{ x }}{% endfor %}", "{% for x in l|select('odd') %}{{ loop.revindex }}{% endfor %}",
        "{% for i in l if not loop is defined %}{{ i }}{% endfor %}" if False else "{% for i in l if i != 1 %}{{ loop.nextitem }}{% endfor %}",
        "{% for i in [1, 2, 3] %}{% filter upper %}a{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfilter %}{% endfor %}",
        "{% for i in [1, 2, 3] %}{% set x %}a{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endset %}{{ x }}{% endfor %}",
        "{% for k, v in people[0].items() %}{{ k }}{% endfor %}", "{% for _ in range(2) %}x{% endfor %}", "{% for i in d.values() %}{{ i }},{% endfor %}",
        "{% for i in l %}{% else %}x{% endfor %}", "{% for a in l %}{% for b in l if b > a %}{{ a }}{{ b }} {% endfor %}{% endfor %}", "{% for l in l %}{{ l }}{% endfor %}{{ l }}",
        "{% for i in l %}{% if loop.first %}({% endif %}{{ i }}{{ ')' if loop.last else ',' }}{% endfor %}", "{% for i in [[1,2],[3]] %}{{ i|length }}{{ loop.nextitem|length }}{% endfor %}",
        "{% set ns = namespace(stop=false) %}{% for i in range(9) if not ns.stop %}{{ i }}{% if i == 3 %}{% set ns.stop = true %}{% endif %}{% endfor %}",
    ],
    "macro": [
        "{% macro m() %}x{% endmacro %}{{ m() }}{{ m() }}", "{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=4, a=5) }}",
        "{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m() }}", "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}", "{% macro m(x, y=[1, 2]) %}{{ y }}{% endmacro %}{{ m(1) }}",
        "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, z=3) }}", "{% macro m() %}{{ s }}{% endmacro %}{{ m() }}", "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}",
        "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "{% macro m() %}{% set q = 1 %}{% endmacro %}{{ m() }}{{ q }}", "{% macro m() %}  x  {% endmacro %}[{{ m()|trim }}]",
        "{% macro m() %}x{% endmacro %}{{ m }}" if False else "{% macro m() %}x{% endmacro %}{{ m.name }}", "{% macro m(a) %}{{ a|upper }}{% endmacro %}{% for i in ls %}{{ m(i) }}{% endfor %}",
        "{% macro m() %}{{ caller() }}!{% endmacro %}{% call m() %}body{{ a }}{% endcall %}", "{% macro m() %}{{ caller(1, 2) }}{% endmacro %}{% call(x, y=3) m() %}{{ x }}{{ y }}{% endcall %}",
        "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}", "{% macro m(x) %}{{ x }}{% endmacro %}{% set r = m('q') %}{{ r ~ r }}{{ r is string }}", "{% macro a1() %}A{% endmacro %}{% macro b1() %}{{ a1() }}B{% endmacro %}{{ b1() }}",
        "{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}", "{% macro m(a, b) %}{{ a }}{{ b is undefined }}{% endmacro %}{{ m(1) }}", "{% macro m(l) %}{% for i in l %}{{ loop.index }}{% endfor %}{% endmacro %}{% for i in [1] %}{{ m(ls) }}{% endfor %}",
        "{% for i in [1, 2] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}", "{% macro m(x=none) %}{{ x is none }}{% endmacro %}{{ m() }}{{ m(1) }}", "{% if t %}{% macro m() %}in{% endmacro %}{% endif %}{{ m() }}", "{{ m is defined }}{% macro m() %}{% endmacro %}{{ m is defined }}{{ m is callable }}",
        "{%- macro m(x) -%}\n  {{- x -}}\n{%- endmacro -%}\n[{{ m('a') }}]", "{% macro m() %}{% for i in l %}{% if loop.first %}{% continue %}{% endif %}{{ i }}{% endfor %}{% endmacro %}{{ m() }}", "{% macro m(a='x', b='y') %}{{ a }}{{ b }}{% endmacro %}{{ m(b='z') }}",
    ],
    "blocks": [
        "{% with x = 1, y = a %}{{ x }}{{ y }}{% endwith %}{{ x }}", "{% with %}{% set z = 1 %}{{ z }}{% endwith %}{{ z }}", "{% set x = 5 %}{% with x = 1, y = x %}{{ x }}{{ y }}{% endwith %}{{ x }}",
        "{% filter upper %}abc {{ s }}{% endfilter %}", "{% filter replace('a', 'b') | upper %}banana{% endfilter %}", "{% filter trim %}  x  {% endfilter %}", "{% generation %}x{{ a }}{% endgeneration %}y",
        "{% for i in l %}{% generation %}{{ i }}{{ loop.index }}{% endgeneration %}{% endfor %}", "a{%- generation -%} x {%- endgeneration %} b", "{% print a, b %}", "{% print s %}", "{% with a, b = 1 %}{% endwith %}" if False else "{% with x = [1] %}{{ x[0] }}{% endwith %}",
        "{% set x = 1 %}{% filter upper %}{% set x = 2 %}{{ x }}{% endfilter %}{{ x }}", "{% generation %}{% set q = 1 %}{% endgeneration %}{{ q is defined }}",
    ],
    "tests": both(
        "s is string", "a is string", "d is mapping", "l is mapping", "l is iterable", "s is iterable", "a is iterable", "missing is iterable", "n is iterable", "l is sequence", "s is sequence", "d is sequence", "a is sequence",
        "range(3) is sequence", "d.items() is sequence", "a is number", "f is number", "t is number", "s is number", "a is integer", "t is integer", "f is integer", "f is float", "a is float", "t is boolean", "a is boolean",
        "n is none", "missing is none", "s is not none", "missing is undefined", "s is undefined", "s is defined", "d.nope is defined", "d.x is defined", "t is true", "a is true", "no is false", "0 is false", "a is odd", "a is even", "neg is odd",
        "a is divisibleby 7", "a is divisibleby(2)", "1 is in l", "'x' is in d", "9 is not in l", "a is eq 7", "a is equalto(7)", "a is ne 7", "a is lt 8", "a is le 7", "a is gt 7", "a is ge 7", "a is lessthan 8", "a is greaterthan 6", "a is sameas 7" if False else "t is sameas true",
        "n is sameas none", "1 is sameas true", "'abc' is lower", "'ABC' is upper", "'aBc' is lower", "'1' is lower", "'É' is upper", "range is callable", "s is callable", "s.upper is callable", "namespace() is mapping", "(1, 2) is sequence", "(s|safe) is escaped", "s is escaped",
        "a is not odd and t", "not a is odd", "s is string and l is iterable and l is not string", "l is iterable and l is not mapping", "'trim' is filter", "'nope' is filter", "'odd' is test", "1 is 'eq' 1" if False else "2.0 is even", "4 is divisibleby 2 and true", "a + 1 is even" if False else "(a + 1) is even",
        "[1]|map('string') is iterable", "[1]|map('string') is sequence", "missing is sequence" if False else "missing is string", "missing is mapping", "none is defined", "d.z is none", "a is number and not a is float", "1 is ==(1)" if False else "3 is odd",
        "missing is sameas missing2" if False else "d is sameas d", "[] is sameas []", "t is in [1]", "s is in 'Hello, World!'",
    ),
    "filters-text": both(
        "sp|trim", "sp|trim|length", "'xxaxx'|trim('x')", "missing|trim", "a|trim", "s|upper", "s|lower", "u|upper", "u|lower", "'straße ŉ ﬁ'|upper", "'ΑΣ ΣΑ Σ'|lower", "'İ'|lower|length", "'hELLO wORLD'|capitalize", "'ßa'|capitalize",
        "'hello wORLD-foo bar_baz (x) [y] o\\'neil'|title", "''|title", "'éa'|title", "s|replace('o', '0')", "s|replace('o', '0', 1)", "'abc'|replace('', '-')", "'abc'|replace('', '-', 2)", "'aaa'|replace('aa', 'b')", "123|replace(2, 'x')", "s|replace('zz', 'y')",
        "s|length", "u|length", "s|count", "e|length", "missing|length", "html|escape", "html|e", "html|e|e", "html|safe", "html|safe|e", "html|forceescape", "html|e|forceescape", "(html|safe) + '<'", "'<' + (html|safe)", "(html|safe) ~ '<'", "[html|safe]", "'<b>'|safe|upper",
        "lines|indent", "lines|indent(2, true)", "lines|indent(2, blank=true)", "lines|indent('> ')", "'a\\nb'|indent(width=1, first=true)", "''|indent", "'a\\r\\nb'|indent", "'one two, three-four 日本 x_y'|wordcount", "''|wordcount", "'x'|center(5)", "'xy'|center(5)", "'xyz'|center(2)", "'é'|center(4) ~ '|'",
        "'%s-%d'|format('a', 3)", "'%(a)s'|format(a=1)", "'%%'|format", "1.5|string", "none|string", "l|string", "missing|string", "'abc'|list", "'ab'|reverse", "'é🙂'|reverse", "'abc'|first", "'abc'|last", "''|first", "e|default('x')", "e|default('x', true)", "missing|default('x')", "missing|default", "n|default('x')",
        "n|d('x', true)", "missing|d(1) + 1", "d.nope.x|default('x')" if False else "d.nope|default('x')", "'a,b'|replace(',', '\\n')", "s|safe|length", "s|trim|upper|lower", "-1|abs", "(-1)|abs", "-1.5|abs", "(a|string) ~ 'x'",
    ),
    "filters-number": both(
        "'42'|int", "'x'|int", "'x'|int(7)", "'x'|int(default=7)", "'1.9'|int", "1.9|int", "-1.9|int", "(-1.9)|int", "'0x1f'|int(base=16)", "'1f'|int(0, 16)", "'101'|int(0, 2)", "'0b11'|int(0, 2)", "none|int", "l|int", "true|int", "' 12 '|int", "'1_000'|int", "'1__0'|int", "''|int", "'-5'|int", "'+5'|int", "'1e3'|int", "'inf'|int", "'nan'|int", "'08'|int", "'0x10'|int(0, 0)", "'010'|int(5, 0)", "'12'|int(0, 37)", "'x'|int(base='a')",
        "'1.5'|float", "'x'|float", "'x'|float(2.5)", "3|float", "'1e3'|float", "' .5 '|float", "'5.'|float", "'inf'|float", "'-Infinity'|float", "'nan'|float", "'1_0.5'|float", "none|float", "'1e'|float", "'0x1'|float", "'1e400'|float", "'-0'|float",
        "42.55|round(1)", "42.5|round", "43.5|round", "-2.5|round", "(-2.5)|round", "2.675|round(2)", "42|round", "42.123|round(2, 'ceil')", "42.129|round(2, 'floor')", "42|round(method='ceil')", "1234|round(-2)", "1250|round(-2)", "1350|round(-2)", "1234.5|round(-2)", "true|round", "1e300|round(2)", "0.5|round", "1.5|round", "-1250|round(-2)", "(-1250)|round(-2)", "12.5|round(-1)", "1|round(1, 'floor')",
        "7|abs", "(0 - 7)|abs", "-7.5|abs", "true|abs", "l|sum", "[0.1, 0.2]|sum", "el|sum", "l|sum(start=10)", "people|sum(attribute='age')", "[[1], [2]]|sum(start=[])", "[true, true]|sum", "l|min", "l|max", "el|min", "ls|min", "ls|max", "ls|min(case_sensitive=true)", "people|max(attribute='age')", "'hello'|max", "people|min(attribute='tag.id')", "[1, 1.0]|max", "[2.5, 1]|min",
    ),
    "filters-seq": both(
        "l|first", "l|last", "el|first", "el|last", "d|first", "d|last", "range(3)|last", "d.values()|last", "missing|first", "l|length", "d|length", "el|count", "range(7)|length", "l|join", "l|join(', ')", "l|join('-', )", "people|join(', ', attribute='name')", "[1, none, 'x', 1.0]|join('|')", "'abc'|join('-')", "el|join(',')", "missing|join", "d|join(',')", "l|join(1)", "people|join(',', 'tag.id')",
        "l|sort", "l|sort(reverse=true)", "ls|sort", "ls|sort(case_sensitive=true)", "people|sort(attribute='age')|map(attribute='name')|list", "people|sort(true, attribute='age')|map(attribute='name')|list", "people|sort(attribute='age,name')|map(attribute='name')|list", "people|sort(attribute='name')|map(attribute='name')|join(',')", "'bca'|sort", "[[2, 'a'], [1, 'b']]|sort", "[none, none]|sort", "[(1, 'b'), (1, 'a')]|sort(attribute='1')", "nest|sort(attribute='0')", "d|dictsort", "{'b': 1, 'A': 2, 'c': 0}|dictsort", "{'b': 1, 'A': 2}|dictsort(true)", "{'b': 1, 'A': 2, 'c': 0}|dictsort(by='value')", "{'b': 1, 'A': 2}|dictsort(reverse=true)" , "{'b': 'B', 'c': 'a'}|dictsort(false, 'value')", "el|sort",
        "l|reverse|list", "range(3)|reverse|list", "d|reverse|list", "(1, 2)|reverse|list", "l|map('string')|reverse|list", "l|map('string')|list", "ls|map('upper')|join", "people|map(attribute='name')|list", "people|map(attribute='nope')|list", "people|map(attribute='nope', default='-')|list", "people|map(attribute='tag.id')|list", "[[1, 2], [3, 4]]|map(attribute=1)|list", "[[1, 2], [3, 4]]|map(attribute='0')|list", "ls|map('replace', 'a', 'z')|list", "['x']|map('default', 'y')|list", "missing|map('upper')|list", "[1.5, 2.5]|map('round')|list", "[1, 2]|map('string')|map('length')|list", "[[3, 1], [2]]|map('sort')|list", "ls|map('indent', width=2, first=true)|list",
        "range(10)|select('odd')|list", "range(10)|reject('odd')|list", "mixed|select|list|length", "[0, 1, '', 'a', none]|select|list", "[0, 1]|reject|list", "range(10)|select('divisibleby', 3)|list", "range(6)|select('gt', 3)|list", "range(6)|select('>', 3)|list", "range(6)|select('<=', 1)|list", "range(6)|select('==', 1)|list", "range(6)|reject('in', [1, 2])|list", "people|selectattr('ok')|map(attribute='name')|list", "people|rejectattr('ok')|map(attribute='name')|list", "people|selectattr('age', 'eq', 30)|map(attribute='name')|list", "people|selectattr('tag.id', 'gt', 1)|list|length", "people|rejectattr('nope', 'defined')|list|length", "people|selectattr('name', 'equalto', 'Bob')|first", "mixed|select('string')|list", "mixed|select('number')|list", "missing|select('odd')|list", "people|selectattr('name', 'in', ['Bob'])|list|length",
        "[1, 2, 1, 3, 2]|unique|list", "ls|map('lower')|unique|list", "['a', 'A', 'b']|unique|list", "['a', 'A']|unique(true)|list", "people|unique(attribute='age')|map(attribute='name')|list" if False else "people|map(attribute='age')|unique|list", "[1, 1.0, true, '1']|unique|list", "range(5)|batch(2)|list", "range(5)|batch(2, 'x')|list", "range(7)|slice(3)|list", "range(7)|slice(3, 'x')|list", "el|batch(2)|list", "range(4)|slice(2)|list", "range(1)|slice(3)|list", "range(3)|batch(3, 0)|list",
        "people|groupby('age')|length", "(people|groupby('age'))[0].grouper", "(people|groupby('age'))[1].list|map(attribute='name')|list", "people|groupby('age')", "ls|list", "d|list", "range(3)|list", "(1, 2)|list", "d.items()|list", "d|items|list", "missing|items|list", "{}|items|list", "dd|items|first", "l|map('abs')|sum", "l|list|string", "ls|groupby(0)|map(attribute='grouper')|list",
    ),
    "tojson": both(
        "d|tojson", "l|tojson", "nest|tojson", "people|tojson", "floats|tojson", "u|tojson", "html|tojson", "n|tojson", "t|tojson", "a|tojson", "f|tojson", "big|tojson", "sp|tojson", "''|tojson", "{}|tojson", "[]|tojson", "{'a': {}}|tojson(indent=2)", "d|tojson(indent=2)", "nest|tojson(indent=4)", "people|tojson(indent=1)", "l|tojson(indent='\\t')", "l|tojson(indent=0)", "d|tojson(sort_keys=true)", "d|tojson(separators=(',', ':'))", "d|tojson(indent=2, separators=(',', ': '))", "u|tojson(ensure_ascii=true)", "u|tojson(true)", "{1: 2, none: 3, 1.5: 4}|tojson", "{true: 1, false: 0}|tojson", "(1, 2)|tojson", "'\\x00\\x1f\\x7f\\u2028/'|tojson", "'\\x7f'|tojson(true)", "'\"\\\\\\n\\r\\t\\b\\f'|tojson", "['inf'|float, 'nan'|float, '-inf'|float]|tojson", "mixed|tojson", "d|tojson|safe", "{'b': 1, 'a': {'d': 1, 'c': 2}}|tojson(sort_keys=true)", "[[], [[]], {}]|tojson(indent=2)", "(html|safe)|tojson", "1|tojson|length", "{'a': (1, [2])}|tojson(indent=2)", "'🙂'|tojson(ensure_ascii=true)", "{'é': 1}|tojson(ensure_ascii=true)", "l|tojson(separators=[' ; ', '='])", "l|tojson(indent=none)",
    ),
    "methods": both(
        "s.upper()", "s.lower()", "'ab cd'.title()", "\"they're\".title()", "'ABC'.capitalize()", "sp.strip()", "sp.lstrip()", "sp.rstrip() ~ '|'", "'xxaxx'.strip('x')", "'xyaxy'.strip('yx')", "'xxa'.lstrip('x')", "'axx'.rstrip('x')", "'éaé'.strip('é')", "'a'.strip(none)", "'a,b,c'.split(',')", "'a b  c'.split()", "' a b '.split()", "'a,b,c'.split(',', 1)", "' a  b  c '.split(none, 1)", "'a b c'.split(maxsplit=1)", "'a,b,c'.rsplit(',', 1)", "' a  b  c '.rsplit(none, 1)", "'abc'.split('x')", "''.split()", "''.split(',')", "'a--b'.split('--')", "'x'.split('x')", "'aXbXc'.rsplit('X')", "' a b '.rsplit()",
        "lines.splitlines()", "lines.splitlines(true)", "'a\\r\\nb\\rc\\x0bd\\u2028e'.splitlines()", "''.splitlines()", "s.startswith('Hell')", "s.startswith(('x', 'H'))", "s.endswith('ld')", "s.endswith(('x', 'y'))", "s.startswith('ello', 1)", "s.endswith('Hello', 0, 5)", "s.startswith('')", "s.startswith('', 99)", "s.startswith(())", "s.replace('l', 'L')", "s.replace('l', 'L', 1)", "s.replace('', '-')", "', '.join(ls)", "''.join(['a'])", "'-'.join('abc')", "'-'.join(ls|map('upper'))", "s.find('o')", "s.find('o', 5)", "s.find('zz')", "u.find('日')", "s.rfind('o')", "s.index('W')", "s.count('o')", "s.count('')", "'aaa'.count('aa')", "u.find('', 3)", "''.find('', 1)", "s.find('o', -4)", "s.find('o', 0, 4)",
        "'12'.isdigit()", "'1a'.isdigit()", "''.isdigit()", "'²'.isdigit()", "'²'.isdecimal()", "'½'.isnumeric()", "'ab'.isalpha()", "'a1'.isalnum()", "' '.isspace()", "'AB'.isupper()", "'ab'.islower()", "'aB'.islower()", "'5'.zfill(3)", "'-5'.zfill(4)", "'ab'.zfill(1)", "'x'.center(4, '*')", "'x'.ljust(3) ~ '|'", "'x'.rjust(3, '.')", "'abc'.removeprefix('a')", "'abc'.removesuffix('c')", "'abc'.removeprefix('x')", "'a=b=c'.partition('=')", "'a=b=c'.rpartition('=')", "'abc'.partition('=')", "'abc'.rpartition('=')",
        "'{} {}'.format(1, 'a')", "'{1}{0}'.format('a', 'b')", "'{x}'.format(x=5)", "'{:>5}|{:<5}|{:^5}'.format('a', 'b', 'c')", "'{:05d}'.format(42)", "'{:.2f}'.format(3.14159)", "'{:,}'.format(1234567)", "'{:x}'.format(255)", "'{:#x}'.format(255)", "'{{}}'.format()", "'{!r}'.format('a')", "'{:*^9}'.format('mid')", "'{:+d}'.format(5)", "'{:.1%}'.format(0.256)", "'{:e}'.format(12345.678)", "'{0.name}'.format(people[0])" if False else "'{0[name]}'.format(people[0])", "'{:.3}'.format('abcdef')", "'{:8.3f}|'.format(2.5)", "'{:b}'.format(5)", "'{:,.2f}'.format(12345.678)", "'{:_}'.format(1234567)", "'{:6}|'.format(1.5)", "'{}'.format(none)", "'{:g}'.format(0.00001)", "'{:>+6.1f}'.format(1.25)", "'{:=+6}'.format(5)",
        "d.keys()|list", "d.values()|list", "people[0].items()|list", "dd.get('b').get('c')", "dd.get('nope')", "dd.get('nope', 'def')", "dd.copy()", "l.count(1)", "l.index(2)", "l.copy()", "(1, 2, 1).count(1)", "dd.keys()", "'x'.join([])", "s.split(', ')[1][0]", "'a</think>b'.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n')", "'<think>\\nr\\n</think>\\n\\nc'.split('</think>')[-1].lstrip('\\n')", "('<b>'|safe).replace('b', '<')", "(s|safe).upper() is escaped", "'ǆ'.title()", "'ΑΣ'.lower()", "'ß'.upper()", "'ab'.upper().lower().title()",
    ),
    "percent": both(
        "'%s' % 'a'", "'%s %s' % ('a', 1)", "'%d' % 3.7", "'%5d|' % 42", "'%-5d|' % 42", "'%05d' % 42", "'%05d' % -42", "'%+d' % 42", "'% d' % 42", "'%x %X %o' % (255, 255, 8)", "'%#x' % 255", "'%.2f' % 3.14159", "'%8.3f|' % 2.5", "'%e' % 12345.678", "'%g' % 0.0001", "'%G' % 1e-10", "'%r' % 'a'", "'%s' % none", "'%s' % [l]", "'%(x)s-%(y)s' % d", "'%%' % ()", "'%5s|%-5s|' % ('a', 'b')", "'%.2s' % 'abcdef'", "'%c%c' % ('a', 66)", "'%*d' % (5, 42)", "'%s' % (missing,)", "'%s' % missing", "'%i' % true", "'100%%' % ()", "'%s' % ((1, 2),)", "'%.3d' % 5", "'%.0f' % 2.5", "'%s' % d.x", "'abc' % []", "'%f' % 1", "'%5.1f' % 2.25", "'%é' % 1" if False else "'é%sü' % 'x'", "'%010.2f' % -3.14159", "'%+.1e' % 0",
    ),
    "functions": both(
        "range(3)|list", "range(1, 4)|list", "range(4, 1, -1)|list", "range(0)|list", "range(5, 1)|list", "range(0, 10, 4)|list", "dict(a=1, b=2)", "dict([('a', 1)])", "dict({'a': 1}, b=2)", "dict()", "namespace(a=1).a", "strftime_now('%Y')|length", "strftime_now('%%')", "range(3)|sum", "dict(a=1).a", "range(2) == range(0, 2)", "dict(d).x", "strftime_now('plain')", "range(-3, 0)|list", "range(0, 9223372036854775807, 9223372036854775806)|list",
    ),
    "misc": [
        ("{{ messages[0]['role'] + ': ' + messages[0].content }}", {"messages": [{"role": "user", "content": "hi"}]}),
        ("{{ bos_token }}{% for m in messages %}[{{ m.role|upper }}] {{ m['content'] | trim }} {{ eos_token }}{% endfor %}", {"bos_token": "<s>", "eos_token": "</s>", "messages": [{"role": "user", "content": " hi "}, {"role": "assistant", "content": "yo"}]}),
        ("{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}{{ m.content }}{% endfor %}", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        ("{{ x }}", {"x": 9223372036854775807}), ("{{ x|tojson }}", {"x": -9223372036854775808}), ("{{ x }} {{ x|tojson }}", {"x": 3.0}), ("{{ x }}", {"x": "a\u0000b"}), ("{{ x|tojson }}", {"x": "a\u0000b"}),
        ("{{ x.a.b.c.d.e }}", {"x": {"a": {"b": {"c": {"d": {"e": 5}}}}}}), ("{{ range }}", {"range": 3}), ("{{ dict }}{{ loop }}", {"dict": 1, "loop": 2}), ("{% for i in [1] %}{{ loop.index }}{% endfor %}{{ loop }}", {"loop": "ctx"}),
        ("{% set messages = messages[1:] %}{{ messages|length }}{% for m in messages %}{{ m }}{% endfor %}", {"messages": [1, 2, 3]}), ("{{ keys.items }}{{ keys['items'] }}" if False else "{{ keys['items'] }}", {"keys": {"items": 3}}),
        ("{{ d.update is defined }}{{ d.pop is defined }}{{ d['keys'] }}", {"d": {"keys": "k"}}), ("{{ o|tojson }}", {"o": {str(i): i for i in range(40)}}), ("{{ o['17'] }}{{ o.x39 }}{{ o.nope }}", {"o": {**{str(i): i for i in range(40)}, "x39": "y"}}),
        ("{%- if tools is defined and tools is not none %}{{ tools|length }}{%- endif %}.", {"tools": None}), ("{{ (a or b) | default('x') }}", {}), ("{{ a is defined and a.b }}", {}), ("{{- x -}}\n", {"x": " y "}), ("{{ none is none }}{{ None == none }}", {}),
        ("{{ 'a' if x is defined and x else 'b' }}{{ x if x is string else x|tojson }}", {"x": {"k": [1, "é"]}}), ("{% set c = namespace(v=0) %}{% for i in range(200) %}{% set c.v = c.v + i %}{% endfor %}{{ c.v }}", {}),
        ("{{ x[0].function.arguments|tojson }}", {"x": [{"function": {"arguments": {"a": 1.5, "b": [True, None], "c": {"é": "\n"}}}}]}), ("{{ (x|string)[:3] }}{{ ((1)) }}{{ [1,2,3][1:][0] }}{{ 'x'.upper()|lower }}", {"x": 12345}),
        ("{% set x = 1 %}{% set y = x if x else 2 %}{{ y }}{% set z = 'a' 'b' %}{{ z }}", {}), ("{{ {'a': {'b': {}}} }}{{ {}|length }}{{{}}}", {}), ("{% if x.y is not defined %}u{% endif %}{% if x['y'] is undefined %}u{% endif %}", {"x": {}}), ("{{ -1 | abs }} {{ 2 * 3 | string }} {{ 'a' ~ 'b' | upper }} {{ not 'x' | length == 1 }}", {}),
    ],
}

ERRORS = [
    "{{ missing.x }}", "{{ missing['x'] }}", "{{ missing + 1 }}", "{{ 1 + missing }}", "{{ missing() }}", "{{ d.nope.x }}", "{{ missing < 1 }}", "{{ -missing }}", "{{ missing[::-1] }}", "{{ n + 1 }}", "{{ 'a' + 1 }}", "{{ 1 + 'a' }}", "{{ 'a' - 'b' }}", "{{ 'a' * 'b' }}", "{{ [1] + (1,) }}", "{{ d + d }}", "{{ 1 / 0 }}", "{{ 1 // 0 }}", "{{ 1 % 0 }}", "{{ 1.0 / 0 }}", "{{ 0 ** -1 }}", "{{ 1 < 'a' }}", "{{ n < 1 }}", "{{ d < d }}", "{{ [1] < ['a'] }}",
    "{{ 1 in 'abc' }}", "{{ 1 in 5 }}", "{{ [1] in d }}", "{{ s() }}", "{{ s.nope() }}", "{{ l.append(1) }}", "{{ d.pop('x') }}", "{{ d.update({}) }}", "{{ l.append.x }}", "{{ d.__class__.x }}", "{{ ''.__class__.__mro__ }}", "{{ n[:1] }}", "{{ d[:1] }}", "{{ l[::0] }}", "{{ l['a':] }}", "{{ s|nofilter }}", "{{ s is notest }}", "{{ raise_exception('boom') }}", "{{ raise_exception() }}", "{% set x.y = 1 %}", "{% set d.x = 1 %}", "{% set a, b = 1 %}", "{% set a, b = [1] %}", "{% for a, b in [[1]] %}{% endfor %}", "{% for i in 5 %}{% endfor %}", "{% for i in n %}{% endfor %}",
    "{% if %}", "{% if t %}", "{% endif %}", "{% for x %}{% endfor %}", "{% for x in %}{% endfor %}", "{% unknown %}", "{% set %}", "{% set x = %}", "{{ }}", "{{ 1 2 }}", "{{ a b }}", "{{ (1 }}", "{{ 1) }}", "{{ [1 }}", "{{ {1} }}", "{{ {'a' 1} }}", "{{ a. }}", "{{ a[ }}", "{{ 'abc }}", "{{ \"abc' }}", "{{ a | }}", "{{ a is }}", "{{ a ! }}", "{{ $ }}", "{{ a", "{% if t", "{# x", "{% raw %}x", "{{ f(a=1, 2) }}", "{{ dict(a=1, a=2) }}", "{{ 012 }}", "{{ 1abc }}", "{% break %}", "{% continue %}", "{% for i in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "{% macro %}{% endmacro %}", "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m(1) %}{% endmacro %}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", "{% macro m(a) %}{% endmacro %}{% call m() %}{% endcall %}", "{% call 5 %}{% endcall %}", "{% for loop in l %}{% endfor %}", "{% set 1 = 2 %}", "{% set 'a' = 2 %}", "{% set true = 2 %}", "{% set a.b.c = 2 %}", "{% else %}", "{% elif t %}", "{% if t %}{% endfor %}", "{% for i in l %}{% endif %}", "{% if t %}{% else %}{% else %}{% endif %}", "{% filter %}{% endfilter %}", "{% with x %}{% endwith %}",
    "{{ a|length }}", "{{ n|length }}", "{{ l|map('string')|length }}", "{{ missing|tojson }}", "{{ {'a': missing}|tojson }}", "{{ l|map('string')|tojson }}", "{{ namespace()|tojson }}", "{{ range(3)|tojson }}", "{{ {(1, 2): 3}|tojson }}", "{{ d.keys()|tojson }}", "{{ {1: 1, 'a': 2}|tojson(sort_keys=true) }}", "{{ d|tojson(nope=1) }}", "{{ s|abs }}", "{{ missing|int }}", "{{ s|round }}", "{{ 1.5|round(1, 'x') }}", "{{ a|items }}" if False else "{{ a|items|list }}", "{{ l|dictsort }}", "{{ [1, 'a']|sort }}", "{{ mixed|sum }}", "{{ ['a']|sum }}", "{{ a|join }}", "{{ a|list }}", "{{ a|first }}", "{{ a|last }}", "{{ l|map('string')|last }}",
    "{{ [1]|map('nofilter')|list }}", "{{ [1]|map|list }}", "{{ [1]|select('notest')|list }}", "{{ [1]|selectattr|list }}", "{{ a|indent }}", "{{ missing|indent }}", "{{ ''.join([1]) }}", "{{ 'a'.split('') }}", "{{ 'a'.split(1) }}", "{{ 'a'.strip(1) }}", "{{ 'a'.index('b') }}", "{{ 'a'.startswith(1) }}", "{{ 'a'.startswith(['a']) }}", "{{ 'a'.replace('a') }}", "{{ 'a'.upper(1) }}", "{{ l.index(99) }}", "{{ d.get() }}", "{{ d.get([]) }}", "{{ '%d' % 'a' }}", "{{ '%s %s' % 'a' }}", "{{ '%s' % (1, 2) }}", "{{ '%z' % 1 }}", "{{ '%' % 1 }}", "{{ '%(a)s' % 1 }}", "{{ '%(nope)s' % d }}", "{{ '{}'.format() }}", "{{ '{x}'.format() }}", "{{ '{'.format() }}", "{{ '{:d}'.format('a') }}", "{{ '%x' % 1.5 }}", "{{ '%c' % 'ab' }}",
    "{{ range() }}", "{{ range('a') }}", "{{ range(1, 2, 0) }}", "{{ range(1.5) }}", "{{ range(1000000) }}", "{{ dict(1) }}", "{{ dict([1]) }}", "{{ namespace(1) }}", "{{ a is divisibleby 0 }}", "{{ s is odd }}", "{{ a is divisibleby }}", "{{ a is eq }}", "{{ s is lt 1 }}", "{{ a is in 5 }}", "{{ {[]: 1} }}", "{{ {{}: 1} }}", "{% for i in l %}{{ loop.cycle() }}{% endfor %}", "{% for i in l recursive %}{{ loop(1) }}{% endfor %}", "{{ '\\x4' }}", "{{ '\\u12' }}", "{{ '\\U99999999' }}", "{{ a is string is number }}", "{{ f(**1) }}", "{{ dict(*5) }}", "{{ dict(**{1: 2}) }}", "{{ s|trim(1) }}", "{{ s|replace('a') }}", "{{ 'a' in n }}", "{{ s[missing:] }}", "{{ missing.x.y|default('z') }}", "{{ +s }}", "{{ -s }}", "{{ 2 ** 'a' }}", "{{ l * l }}", "{{ l * 1.5 }}", "{{ 1 ~ }}", "{% print %}{{ x.y }}", "{% generation %}", "{% endgeneration %}", "{% for i in l %}{% generation %}{% break %}{% endgeneration %}{% endfor %}", "{{ ('inf'|float)|int }}", "{{ s|center('a') }}", "{{ 'a'|batch }}", "{{ l|slice(0)|list }}", "{{ l|batch(2, 3, 4)|list }}", "{{ a.b.c }}", "{{ strftime_now() }}", "{{ strftime_now(1) }}", "{{ [1, [2, (3, n + 1)]] }}", "{{ 1 if t else }}", "{{ if t }}", "{{ not }}", "{{ 1 not 2 }}", "{{ 1 + }}", "{{ * 2 }}", "{{ a..b }}", "{{ a.1.5.x.y }}", "{{ l[1 2] }}", "{{ [,] }}", "{{ {,} }}", "{{ f(,) }}", "{{ {'a': } }}", "{{ ::1 }}", "{% set ns = namespace() %}{{ ns.a.b }}", "{{ (html|safe) - 1 }}",
]

TOOL = {"type": "function", "function": {"name": "weather", "description": "Tell the weather — \"now\" & later.", "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}}, "required": ["city"]}}}
TOOL2 = {"type": "function", "function": {"name": "größe", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "id": "1", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 3, "opts": {"a": [1, 2.5, None, True]}, "list": ["x", "y"], "flag": True, "none": None, "ratio": 0.1, "text": "two\nlines <&>"}}}
CALL2 = {"name": "größe", "arguments": {}}
CALL3 = {"type": "function", "function": {"name": "lookup", "arguments": {"term": " kluge "}}}


def user(text): return {"role": "user", "content": text}
def assistant(text, **more): return {"role": "assistant", "content": text, **more}
def system(text): return {"role": "system", "content": text}
def tool(text): return {"role": "tool", "content": text}


TALKS = [
    [user("What is cruft?")], [system("Be brief."), user("Hi")], [system("  Be brief. \n"), user("  Hi\n\n")], [system(""), user("x")],
    [user("a"), assistant("b"), user("c")], [user("a"), assistant("b", reasoning_content="because\n"), user("c"), assistant("d", reasoning_content=" why ")],
    [user("a"), assistant("<think>\nhmm\n</think>\n\nb"), user("c")], [user("a"), assistant("<think>\nhmm\n</think>\n\nb")], [user("a"), assistant("</think>b")],
    [user("weather?"), assistant("", tool_calls=[CALL])], [user("weather?"), assistant("Let me see.", tool_calls=[CALL, CALL2])],
    [user("w"), assistant("", tool_calls=[CALL3]), tool("sunny"), assistant("It is sunny.")], [user("w"), assistant(None, tool_calls=[CALL, CALL3]), tool("a"), tool("b"), assistant("done", reasoning_content="r"), user("next")],
    [system("S"), user("1"), assistant("2", reasoning_content="r2", tool_calls=[CALL2]), tool("3"), assistant("4", reasoning_content="r4", tool_calls=[CALL3]), tool("5")],
    [user("ünïcode 日本語 🙂 \u200b"), assistant("naïve — “quotes”"), user("\u00a0nbsp\u3000")], [user("<|im_end|> {{ x }} {% raw %}")], [user("a"), user("b"), user("c")],
    [system("S"), user("a"), assistant("b"), user("c"), assistant("d"), user("e"), assistant("f"), user("g")], [user("")], [user("x" * 3000), assistant("y\n" * 500)],
    [user("q"), assistant("", tool_calls=[CALL3]), tool("r1"), user("<tool_response>x</tool_response>"), assistant("z", reasoning_content="kept?")],
    [user("q"), assistant("a", tool_calls=[]), user("b")],
]
PARTS = [
    [user([{"type": "text", "text": "Look: "}, {"type": "image", "image": "x.png"}, {"type": "text", "text": " nice?"}])],
    [user([{"type": "image_url", "image_url": {"url": "u"}}, {"type": "video", "video": "v"}]), assistant("ok"), user([{"image": "z"}, {"text": "plain"}])],
    [system([{"type": "text", "text": "sys"}]), user("a")], [system([{"type": "image"}]), user("a")], [user([{"type": "audio"}])], [user([])], [user(5)], [user({"text": "x"})],
    [user("a"), system("late")], [assistant("a")], [{"role": "alien", "content": "x"}, user("y")], [], [tool("x"), user("y")], [user("a"), assistant([{"type": "text", "text": "part"}], reasoning_content="r")],
    [user("<tool_response>only</tool_response>")],
]
FLAGS = [
    {"add_generation_prompt": True}, {"add_generation_prompt": True, "enable_thinking": True}, {"add_generation_prompt": True, "enable_thinking": False}, {"add_generation_prompt": False}, {},
    {"add_generation_prompt": True, "tools": [TOOL], "enable_thinking": False}, {"add_generation_prompt": True, "tools": [TOOL, TOOL2], "enable_thinking": True}, {"tools": [], "add_generation_prompt": True}, {"tools": None, "documents": None, "add_generation_prompt": False},
]
EFFORT = [{"reasoning_effort": e, "add_generation_prompt": True} for e in ("low", "medium", "high", "LOW", "silly", "", None)] + [
    {"reasoning_effort": "low", "tools": [TOOL]}, {"preserve_thinking": True}, {"preserve_thinking": False}, {"add_vision_id": True, "add_generation_prompt": True}, {"reasoning_effort": "low", "enable_thinking": False}]

CONVERSATIONS = [{"messages": t, **FLAGS[(i * 2 + k) % len(FLAGS)]} for i, t in enumerate(TALKS) for k in range(3)]
QWEN_CONVERSATIONS = CONVERSATIONS[::2] + [
    {"messages": t, **f} for i, t in enumerate(TALKS + PARTS) for f in (EFFORT[i % len(EFFORT)], FLAGS[i % len(FLAGS)])] + [
    {"messages": PARTS[0] + PARTS[1], **f} for f in EFFORT]
