"""What a column's chat shows of its turns."""

from __future__ import annotations

from msgspec.structs import replace

from arena.types import Metrics, Options
from arena.ui.attachments import Attachment
from arena.ui.messages import SHOWN_TURNS, chat
from tests.ui.pieces import FULL, failed, turn


def contents(messages: list[dict[str, object]]) -> list[object]:
    return [message["content"] for message in messages]


def test_a_running_turn_shows_its_prompt_and_what_was_said() -> None:
    assert contents(chat([turn()])) == ["Why?"]
    assert contents(chat([turn(text="Because")])) == ["Why?", "Because"]


def test_thinking_is_a_block_of_its_own_that_is_folded() -> None:
    (_, thought, answer) = chat([turn(thinking="hm", text="Because")])
    assert thought["metadata"] == {"title": "Thought", "status": "done"}
    assert (thought["content"], answer["content"]) == ("hm", "Because")
    (_, thought) = chat([turn(thinking="hm", error=failed("stopped"))])
    assert thought["content"] == "hm"


def test_files_are_chips_and_pictures_are_shown() -> None:
    text = Attachment("no`tes.txt", "text", 2100, "x", "/up/notes.txt")
    picture = Attachment("p.png", "image", 90, "aGk=", "/up/p.png")
    messages = chat([turn(attachments=(text, picture))])
    assert messages[0]["content"] == "Why?\n\n`📎 no'tes.txt · 2 kB` `📎 p.png · 1 kB`"
    assert messages[1]["content"] == {"path": "/up/p.png", "alt_text": "p.png"}


def test_prompts_and_answers_cannot_bring_html() -> None:
    told = contents(chat([turn(prompt="<b>", thinking="<i>", text="<u> ![x](http://a)", metrics=FULL)]))
    assert told == ["&lt;b>", "&lt;i>", "&lt;u> [image: x](http://a)"]


def test_what_a_kept_conversation_tells_of_files_and_failures_brings_no_html() -> None:
    file = Attachment("a\n\n<b>`.txt", "text", 1, "")
    told = contents(chat([turn(attachments=(file,), error=failed("no_<u>")), turn()]))
    assert told == ["Why?\n\n`📎 a <b>'.txt · 1 kB`", "*Failed: no_&lt;u>*", "Why?"]


def test_how_earlier_turns_ended_stays_to_be_read() -> None:
    turns = [turn(text="Be", error=failed("stopped")), turn(error=failed("timeout")), turn(error=failed("timeout"))]
    assert contents(chat(turns)) == ["Why?", "Be", "*Stopped here.*", "Why?", "*Failed: timeout*", "Why?"]


def test_an_earlier_answer_that_was_cut_says_where() -> None:
    cut = Metrics(tokens=30, cut_by_limit=True)
    limited = turn(text="Be", metrics=cut, model="m")
    limited.instance = replace(limited.instance, options=Options(num_predict=30))
    roomy = turn(text="Be", metrics=cut, model="m")
    roomy.instance = replace(roomy.instance, options=Options(num_predict=99))
    told = contents(chat([roomy, limited, turn(text="Be", metrics=cut)]))
    own = "*Cut here, at the model's own limit or the end of its context.*"
    assert told == ["Why?", "Be", own, "Why?", "Be", "*Cut here, at num_predict: 30 tokens.*", "Why?", "Be"]


def test_an_answer_without_a_word_says_so() -> None:
    assert contents(chat([turn(metrics=Metrics())]))[-1] == "*The model ended without a word.*"


def test_a_long_conversation_shows_its_end() -> None:
    turns = [turn(text=str(number), metrics=FULL) for number in range(SHOWN_TURNS + 1)]
    told = contents(chat(turns))
    assert told[0] == "*1 earlier turn is not shown; the model and the export have them.*"
    assert len(told) == 1 + 2 * SHOWN_TURNS
    assert "2 earlier turns are" in str(contents(chat([*turns, turn()]))[0])
