"""How the ratings are made, in plain words, and what they cannot tell; docs/method.md has the long form."""

from __future__ import annotations

from typing import Final

from arena.ratings import DECIDED, PRELIMINARY, Caps

_CAPS: Final = Caps()

_HOW: Final = (
    (
        "From votes to ratings",
        "The ratings are the strengths under which all votes together are most likely (the Bradley-Terry model). A "
        "lead of 400 points means that ten of eleven battles are won, 100 points about 64 %. The mean of a board is "
        "1000, so a rating means something only beside the others. The order of the votes does not matter: the same "
        "votes always give the same ratings.",
    ),
    (
        "What counts",
        "Votes cast blind, in battles that the server drew, where no answer gave its maker away. A tie is half a win "
        "for each side, and so is &ldquo;both bad&rdquo;, which has a column of its own. Every model is given half a "
        "draw to begin with, so that one that has not lost yet is not infinitely strong.",
    ),
    (
        "The interval",
        "It holds the true rating with 95 % confidence. It ends where the likeliest ratings with that end fit the "
        "votes just too badly, so it may reach further to one side: ten wins of ten hardly say how much stronger a "
        "model is. Votes that stray more than chance does make it wider: that is seen in 200 draws from them.",
    ),
    (
        "The rank",
        "The places that the votes leave open: one more than the models that are clearly above, to the number of "
        f"those that are not clearly below. &ldquo;Preliminary&rdquo; marks votes that weigh less than "
        f"{PRELIMINARY:.0f} together.",
    ),
    (
        "Decided",
        "For each pair, the evidence is what somebody would own who began with 1 and bet, vote after vote, that the "
        "two do not win equally often. If they do, it ever reaches "
        f"{DECIDED:.0f} with a chance of at most {100 / DECIDED:.0f} %, however often one looks. &ldquo;More "
        "votes&rdquo; is how many would decide it if they fall as before. It holds for each pair by itself: of a "
        "hundred pairs of equals up to five may be called decided.",
    ),
    (
        "Votes to flip",
        "How many more battles the lower of two neighbours would have to win against the upper one to pass it. A "
        "small number says that their order is fragile.",
    ),
    (
        "Whose votes",
        f"A voter counts for at most {_CAPS.voter:.0f} votes and an address for {_CAPS.address:.0f}, unless most "
        "others here vote more than that; a small circle has no caps, since it knows what it does. Whose votes stray "
        "far from what all others let expect counts less, and so does the same comparison on the same prompt, made "
        "again. Votes are stored as they are; the weights are computed anew for every board.",
    ),
    (
        "More than two answers",
        "Whoever ranks k answers says who is better in each of their pairs, but does not say so many things "
        "independently. So each of these pairs counts 2/k, and the whole ballot k&minus;1 votes.",
    ),
    (
        "Style held equal",
        "People like long and decorated answers. With this switch the ratings also account for how much longer each "
        "answer was and how many more headings, lists and bold passages it had: what remains is how the models would "
        "do with answers alike in style. Votes whose answers were not counted are left out.",
    ),
    (
        "The next battle",
        "A battle teaches most where its outcome is open and the models are known least. So the pair is drawn that is "
        "expected to shrink the widest intervals most; one in ten is drawn at random, so that no pair is never seen.",
    ),
    (
        "Speed and memory",
        "Speed is the median over fair runs: measured by the server&rsquo;s own counters, over at least 16 tokens, "
        "with nothing else running on the same host. Anything else measures the neighbours too. Memory is the size "
        "of the weights.",
    ),
)  # fmt: skip

_LIMITS: Final = (
    "The votes of one person are that person&rsquo;s taste, however many they are. So are those of a few friends.",
    "Intervals assume that votes are independent, and that who beats whom often also beats those who lose to them. "
    "Tastes in circles are averaged away: look at the head-to-head map.",
    "Intervals are about chance, not about bias. Voters who all like length shift every rating; holding style equal "
    "takes away only what is counted.",
    "A model&rsquo;s name may stand for other weights tomorrow. Models with settings are told apart by their weights.",
    "Caps slow stuffing down; they do not stop somebody with hundreds of names and addresses who votes in moderation.",
)


def method() -> str:
    """The page on the method."""
    parts = "".join(f"<section><h3>{title}</h3><p>{text}</p></section>" for title, text in _HOW)
    limits = "".join(f"<li>{text}</li>" for text in _LIMITS)
    return (
        f'<div class="method">{parts}</div><section class="card limits"><h3>What the ratings cannot tell</h3>'
        f"<ul>{limits}</ul></section>"
    )
