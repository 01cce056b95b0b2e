"""What gives a model away, and what only looks like it: code, formulas, and entities of nothing."""

from __future__ import annotations

import pytest

from arena.battle import without_names
from arena.battle.leaks import names_itself


@pytest.mark.parametrize(
    "entity", ["&#1;", "&#x1F;", "&#127;", "&#xFFFE;", "&#0;", "&acE;", "&nonsense;", "&#9999999;"]
)
def test_an_entity_of_no_letter_stays_as_it_is(entity: str) -> None:
    assert not names_itself(f"x {entity} y", "llama3.2:3b")
    assert names_itself(f"I am {entity} Llama", "llama3.2:3b")
    assert without_names(f"I am {entity} Llama", ["llama3.2:3b"]) == f"I am {entity} ████"


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        ("olmo2:7b", "x = a[i]*2"),
        ("olmo2:7b", "a_i_2 = a*i*2; a[i][2]; `a`i2"),
        ("olmo2:7b", "| a | i | 2 |\n|---|---|---|\n* a\n* i\n* 2"),
        ("granite3:8b", "i*b*m + i[b][m] + i_b_m"),
        ("gpt-oss:20b", "g*p*t, g_p_t, g[p]*t"),
        ("glm4:9b", "z.a[i] + z.a_i, g[l]*m"),
        ("grok-1", "x*a*i, x_ai, x[a][i]"),
        ("exaone3.5:7b", "lg a_i, lg a[i]"),
        ("yi:9b", "0*1.a[i]"),
        ("minicpm-v:8b", "model_best = model[best] or model__best or model\\_best"),
        ("starcoder2:3b", "big_code, big[code]"),
        ("solar:10.7b", "up_stage and self.up__stage"),
    ],
)
def test_code_and_formulas_name_nobody(model: str, answer: str) -> None:
    assert not names_itself(answer, model)
    assert without_names(answer, [model]) == answer


@pytest.mark.parametrize(
    ("model", "answer", "masked"),
    [
        ("olmo2:7b", "by **AI2**, A\u200bI2, A<b>I</b>2", "by **████**, ████, ████"),
        ("gpt-oss:20b", "**GPT**-oss and [GPT](http://x.example)", "**██**██ and [████](http://x.example)"),
        ("glm4:9b", "by **Z**.ai", "by **██**██"),
        ("qwen2.5:3b", "Q[wen](http://x.example)", "████](http://x.example)"),
        ("qwen2.5:3b", "_Q_**wen**, **Q**__wen__ 2.5", "_██_██**██**, **██**██"),
        ("qwen2.5:3b", "__Qwen__ 2.5, Qwen\\_2.5, Qwen_2.5", "__████, ████, ████"),
        ("minicpm-v:8b", "by Model**Best**", "by ██**██**"),
    ],
)
def test_a_name_between_marks_is_a_name(model: str, answer: str, masked: str) -> None:
    assert names_itself(answer, model)
    assert without_names(answer, [model]) == masked
