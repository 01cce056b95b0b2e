"""What gives a model away, and what only looks like it: code, formulas, and entities of nothing."""

from __future__ import annotations

import pytest

from arena.battle import without_names
from arena.battle.families import identity_words
from arena.battle.leaks import names_itself


@pytest.mark.parametrize(
    ("model", "answer", "leaks"),
    [
        ("llama3.2:3b", "I'm Llama, an assistant.", True),
        ("llama3.2:3b", "I am LLAMA3 by Meta AI", True),
        ("llama3.2:3b", "A llama's wool", False),
        ("llama3.2:3b", "Collamation and llamas", False),
        ("llama3.2:3b", "I am Qwen", False),
        ("qwen2.5:7b", "made by Alibaba Cloud", True),
        ("qwen2.5:7b", "I am &#81;w&#x65;n2.5", True),
        ("qwen2.5:7b", "我是通义千问", True),
        ("qwen2.5-coder:7b", "as qwen2.5-coder I", True),
        ("hf.co/bartowski/gemma-2-9b-it-GGUF:Q4_K_M", "trained by Google DeepMind", True),
        ("gpt-oss:20b", "I'm ChatGPT", True),
        ("phi4:14b", "The golden ratio phi", False),
        ("phi4:14b", "I am Phi4", True),
        ("phi4:14b", "developed by Microsoft", True),
        ("command-r:35b", "Run this command", False),
        ("command-r:35b", "built by Cohere", True),
        ("smollm2:135m", "I am SmolLM, by Hugging Face", True),
        ("my-model", "I am my-model", True),
        ("my-model", "that is my opinion", False),
        ("x:1", "x", False),
        ("tinyllama", "I am TinyLlama", True),
        ("command", "command", False),
    ],
)
def test_who_names_itself(model: str, answer: str, leaks: bool) -> None:
    assert names_itself(answer, model) is leaks, identity_words(model)


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        ("llama3.2:3b", "I was created by Meta."),
        ("dolphin-llama3", "based on Llama 3"),
        ("nous-hermes2-mixtral", "Mixtral by Mistral AI"),
        ("openhermes", "Hermes by Nous Research"),
        ("deepseek-r1:7b qwen2", "I am Qwen made by Alibaba"),
        ("x/DeepSeek-R1-Distill-Qwen-7B", "I am Qwen, made by Alibaba"),
        ("phi3.5", "I'm Phi."),
        ("my-assistant qwen2", "I am Qwen, created by Alibaba Cloud"),
        ("hf.co/bartowski/Meta-Llama-3-8B-Instruct-GGUF:Q4_K_M", "I am Llama"),
        ("llama3.2", "I'm an AI assistant called Llama, trained by Meta"),
        ("llama3.2", "As an AI language model developed by Meta, I cannot"),
        ("llama3", "I'm a large language model from Meta AI"),
        ("mistral:7b", "I am **Mistral**, a model"),
        ("mistral:7b", "I'm a language model trained by the Mistral AI team"),
        ("mistral", "As Mistral, I think"),
        ("phi3", "I was developed by researchers at Microsoft."),
        ("gemma2:2b", "I'm Gemma, an open-weights AI assistant"),
        ("gemma2:2b", "I was trained by Google"),
        ("llama3", "Ich bin Llama"),
        ("llama3", "Ich wurde von Meta entwickelt"),
        ("llama3", "我是由Meta开发的"),
        ("llama3", "Je suis Llama"),
        ("command-r", "I am Command R, by"),
        ("llama3", "I'm a Llama model"),
        ("llama3", "Meta made me"),
        ("smollm2", "I was built by Hugging Face"),
        ("aya", "My creators at Cohere"),
        ("gemma", "My developer is Google"),
        ("falcon3", "I am Falcon3"),
        ("granite3:8b", "my name is Granite"),
        ("yi:9b", "I'm Yi, a bilingual model"),
        ("tulu3", "by AI2"),
        ("llama3", "Meta AI is my creator"),
        ("qwq", "Qwen"),
    ],
)
def test_who_says_who_it_is(names: str, answer: str) -> None:
    """`names` are the model's own, and the family that its host tells."""
    assert names_itself(answer, *names.split()), identity_words(*names.split())
    assert names_itself(f"Hello! {answer}", *names.split()) or answer.startswith(("built", "developed"))


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        ("llama3.2:3b", "A llama's wool"),
        ("llama3.2", "Llamas live in the Andes; a llama is calm"),
        ("llama3", "I once rode a llama, and I am a llama fan"),
        ("phi4", "The golden ratio phi is 1.618"),
        ("llama3", "This is meta: a meta-analysis of meta data"),
        ("mistral", "The Mistral wind blows; a wind called Mistral. I am cold in the Mistral"),
        ("mistral:7b", "The mistral is a strong wind. As an exception, it blows from the north by Marseille"),
        ("gemma", "Search on Google, or ask Google Maps"),
        ("phi3", "Microsoft Word was developed by Microsoft"),
        ("phi3", "I'm impressed by Microsoft"),
        ("command-r", "I am in command. Run this command"),
        ("llama3", "As a rule, meta tags are written by hand"),
        ("falcon", "SpaceX's Falcon 9 is a rocket"),
        ("wizardlm", "I am the wizard of Oz"),
        ("dolphin-mistral", "I'm swimming with a dolphin"),
        ("solar", "solar panels by night"),
        ("smollm2", "pip install transformers from Hugging Face"),
        ("glm4", "fit a GLM in R"),
        ("assistant", "I am your assistant"),
        ("orca-mini", "An orca is a whale"),
        ("hermes3", "Hermes is the god of trade"),
        ("llama3", "I am Qwen"),
        ("yi", "yi er san"),
        ("granite3", "granite is a stone made by cooling magma"),
        ("grok", "to grok it"),
        ("gemini", "I'm a Gemini, born in June"),
        ("llama3", "Facebook was created by Mark"),
        ("phi3", "As an aside, Excel is built by Microsoft"),
    ],
)
def test_who_writes_of_something_else(names: str, answer: str) -> None:
    assert not names_itself(answer, *names.split()), identity_words(*names.split())


@pytest.mark.parametrize(
    ("model", "answer", "masked"),
    [
        ("phi3", "I'm Phi, and phi is 1.6", "I'm ████, and ████ is 1.6"),
        ("phi3", "phi is 1.6", "phi is 1.6"),
        ("phi3", "Word is by Microsoft", "Word is by ████"),
        ("dolphin-llama3", "Dolphin, based on Llama 3", "Dolphin, based on ████"),
        ("1", "1", "1"),
    ],
)
def test_an_ordinary_word_is_masked_where_it_is_a_name(model: str, answer: str, masked: str) -> None:
    assert without_names(answer, [model]) == masked


@pytest.mark.parametrize(
    "told", ["I am an assistant as a model of words ", "as an ai model made by the ", "llama i am "]
)
def test_a_long_answer_is_looked_through_in_no_time(told: str) -> None:
    """What takes a time that grows with the square would take minutes here."""
    names_itself(told * 5_000, "llama3.2:3b", "qwen2")


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
